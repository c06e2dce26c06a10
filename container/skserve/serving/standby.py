"""The thread that polls while the poller is away for long, with an answer that was cheap so far.

What one request costs is never sure: other rows, another method, a log that is not read. The answer
goes on as if in a thread, and all others go to threads until it is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from skserve.serving.clients import Client

# Seconds between two looks. The standby polls where the poller was away with the same answer at
# both: a machine that stood still in between has not kept the poller from coming back.
AWAY = 0.1


class Standby:
    """Guards the poller by one lock, which is free only while the poller answers.

    `poll` is called again and again meanwhile, with the client that is answered.
    """

    def __init__(self, poll: Callable[[Client, float], None]) -> None:
        self.polls = False  # in the poller's place, just now
        self._poll = poll
        self._turn = threading.Lock()  # held by the thread that polls
        self._away: tuple[Client] | None = None  # with whose answer; each time another tuple
        self._seen: tuple[Client] | None = None  # where the poller was at the standby's last look

    def start(self) -> None:
        """Make the calling thread the poller."""
        self._turn.acquire()
        threading.Thread(target=self._run, name="standby", daemon=True).start()

    def leave(self, client: Client) -> None:
        """The poller is away, to answer a client."""
        # Before the lock is free: the standby that gets it reads whose answer it stands in for.
        self._away = (client,)
        self._turn.release()

    def come_back(self) -> None:
        """The poller has answered."""
        # Before the lock is asked for: this ends the standby's loop, which holds the lock.
        self._away = None
        self._turn.acquire()

    def wanted(self, _: object = None) -> bool:
        """Whether the poller is still away with the answer for which the standby polls."""
        return self._away is self._seen

    def _run(self) -> None:
        while True:
            time.sleep(AWAY)
            before, self._seen = self._seen, self._away
            if self._seen is None or self._seen is not before:
                continue
            with self._turn:
                self.polls = True
                while self.wanted():
                    self._poll(self._seen[0], AWAY)
                self.polls = False
