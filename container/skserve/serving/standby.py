"""The thread that polls while the poller is away for long, with an answer that was cheap so far.

What one request costs is never sure: other rows, another method, a log that is not read. The answer
goes on as if in a thread, and all others go to threads until it is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from skserve.serving.clients import Client

# Seconds for which the poller is away with one answer before the standby polls in its place.
AWAY = 0.1


class Standby:
    """Guards the poller by one lock, which is free only while the poller answers.

    `poll` is called again and again meanwhile, with the client that is answered.
    """

    def __init__(self, poll: Callable[[Client, float], None]) -> None:
        self.polls = False  # in the poller's place, just now
        self._poll = poll
        self._turn = threading.Lock()  # held by the thread that polls
        self._away: tuple[Client, float] | None = None  # with whose answer, for late from when

    def start(self) -> None:
        """Make the calling thread the poller."""
        self._turn.acquire()
        threading.Thread(target=self._run, name="standby", daemon=True).start()

    def leave(self, client: Client) -> None:
        """The poller is away, to answer a client."""
        # Before the lock is free: the standby that gets it reads whose answer it stands in for.
        self._away = client, time.monotonic() + AWAY
        self._turn.release()

    def come_back(self) -> None:
        """The poller has answered."""
        # Before the lock is asked for: this ends the standby's loop, which holds the lock.
        self._away = None
        self._turn.acquire()

    def _run(self) -> None:
        while True:
            time.sleep(AWAY)
            away = self._away
            if away is None or time.monotonic() < away[1]:
                continue
            with self._turn:
                self.polls = True
                while self._away is away:
                    self._poll(away[0], AWAY)
                self.polls = False
