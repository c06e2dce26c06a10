"""When a process that answers is replaced by a new one, before anything makes that necessary.

Nothing here ends a process: `reason` says that it is time, and the process then takes no more
requests, answers those that it has, and ends.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise

from skserve.machine import resident

log = logging.getLogger("skserve")

# Of SKSERVE_MAX_REQUESTS, how many more or fewer a process may answer, so that not all end at once.
JITTER = 0.1

# Seconds between two looks at the memory, how many of them make the shortest window, and how many
# windows of one length make one of the next: a leak shows within a minute, or within a day.
PAUSE, LOOKS, LONGER, LENGTHS = 1.0, 5, 4, 7

# Windows in which memory must have risen without a break, and in how many where it is short.
RISES, FEW = 6, 3

# Bytes, and share of what it was, that a process must have grown for that to matter.
LEAST, SHARE = 64 << 20, 0.5

# Share of the mean rise that each must reach.
STEADY = 0.3

# Share of the container's memory below which it is short.
SHORT = 0.1


class Growth:
    """Tells memory that grows without end from memory that comes and goes, or comes to rest.

    What comes and goes leaves the least of each window where it was, and what comes to rest raises
    it less and less; a leak raises it in each window by about as much.
    """

    def __init__(self) -> None:
        self._looks: list[list[int]] = [[] for _ in range(LENGTHS)]  # of a window, for each length
        self._least: list[deque[int]] = [deque(maxlen=RISES + 1) for _ in range(LENGTHS)]

    def add(self, held: int) -> None:
        """Take in how many bytes are held now. Called at equal intervals."""
        for length in range(LENGTHS):
            self._looks[length].append(held)
            if len(self._looks[length]) < (LONGER if length else LOOKS):
                return
            held = min(self._looks[length])
            self._looks[length].clear()
            self._least[length].append(held)

    def grown(self, rises: int) -> int:
        """Return the bytes by which memory rose in so many windows in turn; 0 where it did not."""
        return max(_risen(list(least)[-rises - 1 :], rises) for least in self._least)


def _risen(least: list[int], rises: int) -> int:
    if len(least) <= rises:
        return 0
    grown = least[-1] - least[0]
    slowest = min(other - one for one, other in pairwise(least))
    endless = slowest * rises > STEADY * grown and grown > max(LEAST, SHARE * least[0])
    return grown if endless else 0


class Retirement:
    """Says when this process has answered enough, or grows without end. Make it after the fork.

    `most` is the number of requests, 0 for any number; `memory` the bytes of the container, and
    `left` returns how many of them are not taken.
    """

    def __init__(
        self,
        most: int,
        memory: int,
        left: Callable[[], int],
        held: Callable[[], int] = resident,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        spread = int(most * JITTER)
        self._most = most and most + random.SystemRandom().randint(-spread, spread)
        self._memory, self._left, self._held, self._clock = memory, left, held, clock
        self._growth, self._next, self.grows = Growth(), clock(), False

    def reason(self, answered: int) -> str:
        """Return why to retire after so many answers, or nothing. Called about once a second."""
        if self._most and answered >= self._most:
            return f"it has answered {answered:,} requests"
        if self._clock() < self._next:
            return ""
        self._next = self._clock() + PAUSE
        self._growth.add(self._held())
        short = self._left() < SHORT * self._memory
        grown = self._growth.grown(FEW if short else RISES)
        if grown and not self.grows:
            self.grows = True
            log.warning(
                "The memory of this process grows without end, by %d MiB lately; it is replaced "
                "when less than %d MiB are left. A script may keep what it has answered.",
                grown >> 20,
                int(SHORT * self._memory) >> 20,
            )
        return "its memory grows without end" if self.grows and short else ""
