"""The gunicorn worker: one process that serves.

It stands on what gunicorn documents for workers of one's own: `init_process` calls `run`, which
calls `notify` often enough. What happens to connections is the `Poller`'s.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from gunicorn.workers import base

from skserve.serving.arbiter import ENDINGS
from skserve.serving.poller import Poller

# Seconds for which the poller waits for something to do, and for which it does while it stops.
TURN, LAST_TURN = 1.0, 0.1


class Worker(base.Worker):  # type: ignore[misc]
    """One process that serves."""

    alive: bool  # gunicorn's, untyped

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._place = self.app.balancer.join()
        self._notified = 0.0

    def init_signals(self) -> None:
        """Listen to signals from now on; `Arbiter.spawn_worker` has held them back so far."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)

    def give_up_place(self) -> None:
        """Tell the master's book that this worker has ended. Called in the master."""
        self.app.balancer.leave(self._place)

    def run(self) -> None:
        """Serve until told to stop, and then until every request is answered or time is up."""
        poller = Poller(
            self.sockets,
            self.app.balancer,
            self._place,
            self.PIPE,  # gunicorn writes to it where a signal comes
            self.app.limits,
            self.app.inline,
            self.wsgi,
        )
        warm = self._is_warm()
        poller.start()
        while self.alive:
            self.notify()
            if not warm and (warm := self._is_warm()):
                poller.turn(0)  # from now on it takes connections
            poller.turn(TURN)
            if self.ppid != os.getppid():
                self.log.info("The master is gone; this worker ends as well.")
                break
        poller.stop()
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while poller.held and time.monotonic() < deadline:
            self.notify()
            poller.turn(LAST_TURN)
        poller.close()

    def _is_warm(self) -> bool:
        """Whether this worker can predict; then the others learn of it."""
        warm = bool(self.app.warm())
        if warm:
            self.app.balancer.warm(self._place)
        return warm

    def notify(self) -> None:
        """Tell the master that the poller is alive: once a second is often enough."""
        now = time.monotonic()
        if now < self._notified + 1 and self.alive:
            return
        self._notified = now
        super().notify()
        if self.alive and self.app.hung():
            self.log.error("Every prediction of this worker hangs; it is replaced.")
            self.alive = False
        elif self.alive and (why := self.app.retires()):
            self.log.info("This worker is replaced: %s.", why)
            self.alive = False
