"""Which worker takes a new connection: the one that holds the fewest.

The kernel gives a new connection to any worker that asks for it first, so without this one of them
may hold nearly all.
"""

from __future__ import annotations

import mmap


class Balancer:
    """How many connections each worker holds and has taken, in memory that all of them see.

    The master gives a worker its place before the fork and takes it back after the end, however
    that came. A worker that takes no connections just now is absent.
    """

    ABSENT = -1

    def __init__(self, size: int) -> None:
        shared = memoryview(mmap.mmap(-1, 2 * 8 * size)).cast("q")
        self._held, self._taken = shared[:size], shared[size:]
        self._free = list(range(size))
        for place in self._free:
            self._held[place] = self.ABSENT

    def join(self) -> int | None:
        """Return a place, or None where there are more workers than anybody asked for."""
        return self._free.pop(0) if self._free else None

    def leave(self, place: int | None) -> None:
        if place is not None:
            self._held[place] = self.ABSENT
            self._free.insert(0, place)

    def say(self, place: int | None, held: int) -> None:
        """Say how many connections the worker at `place` holds now, or that it is absent."""
        if place is None:
            return
        if self._held[place] == self.ABSENT:
            self._taken[place] = max(self._taken)  # it has not been spared, it was away
        elif held > self._held[place]:
            self._taken[place] += 1
        self._held[place] = held

    def others_first(self, place: int | None) -> bool:
        """Whether another worker holds fewer, or as few and has taken fewer so far.

        With many connections a small difference does not matter.
        """
        if place is None:
            return False
        ranks = zip(self._held, self._taken, strict=True)
        held, taken = min(one for one in ranks if one[0] != self.ABSENT)
        slack = held // 4
        if self._held[place] == held:
            return slack == 0 and self._taken[place] > taken
        return self._held[place] > held + slack
