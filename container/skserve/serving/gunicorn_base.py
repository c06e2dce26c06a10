"""What gunicorn runs, for one model and for many: its settings and its hooks."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from skserve.config import Config
from skserve.errors import StartError
from skserve.scheduling.bodies import Bodies
from skserve.serving import inline
from skserve.serving.arbiter import Arbiter
from skserve.serving.balancer import Balancer
from skserve.serving.sizing import Limits, Plan, places
from skserve.serving.worker import Worker
from skserve.serving.worker_counts import WorkerCounts

# Seconds from SIGTERM until what still runs is abandoned; SageMaker kills after 30.
GRACE = 23


class Application(BaseApplication):  # type: ignore[misc]
    """What is the same for one model and for many."""

    inline: inline.Inline  # what the poller answers; made by `load`

    def __init__(self, config: Config, plan: Plan) -> None:
        self._config, self._plan = config, plan
        self._counts = WorkerCounts(config)
        self.balancer = Balancer(places(plan.workers), plan.workers)
        self._said, self._say = os.pipe()  # why a worker could not start, told to the master
        super().__init__()

    def run(self) -> None:
        """Run until gunicorn ends. Raises StartError in the master if a worker could not start."""
        master = os.getpid()
        try:
            Arbiter(self).run()
        except SystemExit:
            if os.getpid() == master:
                self.end()
                os.set_blocking(self._said, False)
                with suppress(BlockingIOError):
                    sentences = os.read(self._said, select.PIPE_BUF).split(b"\0")
                    raise StartError(sentences[0].decode()) from None
            raise

    def load_config(self) -> None:
        config, plan = self._config, self._plan
        options = {
            "bind": f"0.0.0.0:{config.port}",
            "workers": plan.workers,
            "worker_class": Worker,
            # Only a worker whose poller is blocked is killed by this; a slow prediction is not.
            "timeout": int(config.timeout) + 10,
            "graceful_timeout": GRACE,
            "control_socket_disable": True,
            # Who we are now: gunicorn's own default is who we were when it was imported.
            "user": os.geteuid(),
            "group": os.getegid(),
            "logger_class": Log,
            "proc_name": "skserve",
            "pre_fork": self._counts.about_to_fork,
            "post_fork": self._counts.forked,
            "worker_exit": _worker_exit,
            "child_exit": self._worker_ended,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    @property
    def limits(self) -> Limits:
        return Limits.make(self._config, self._plan)

    def bodies(self) -> Bodies:
        """Return what counts the bodies of a worker: its part of a share of the memory."""
        config = self._config
        return Bodies(max(config.in_flight // self._plan.workers, config.max_whole))

    def mind(self) -> None:
        """Look after what must not end before the master. Called often, in the master."""
        self._counts.look()

    def _worker_ended(self, arbiter: Arbiter, worker: Worker) -> None:
        """Note that a worker has ended. Called in the master."""
        worker.give_up_place()
        self._counts.ended(arbiter, worker)

    def end(self) -> None:
        """End what must not outlive the master. Called in the master."""

    def warm(self) -> bool:
        """Whether this worker can predict. Called often, in the worker."""
        return True

    def hung(self) -> bool:
        """Whether this worker can answer nothing any more."""
        return False

    def retires(self) -> str:
        """Return why this worker is to be replaced although it is well, or nothing."""
        return ""

    def cannot_start(self, sentence: str) -> None:
        """Tell the master why this worker cannot start. Called in the worker, before it ends."""
        os.write(self._say, sentence.encode(errors="replace")[: select.PIPE_BUF - 1] + b"\0")

    def start_failed(self) -> bool:
        """Whether a worker has said that it cannot start. Called in the master."""
        return bool(select.select([self._said], [], [], 0)[0])


class Log(Logger):  # type: ignore[misc]
    """gunicorn's logger without handlers of its own: `telemetry.configure` has set one for all."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True


def _worker_exit(arbiter: Any, worker: Worker) -> None:
    """End a worker whose predictions hang: Python would wait for their threads without limit."""
    if worker.app.hung():
        os._exit(0)
