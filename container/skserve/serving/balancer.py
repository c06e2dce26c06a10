"""Which worker takes a new connection: of those that can predict, the one that holds the fewest.

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

    def __init__(self, size: int, workers: int = 1) -> None:
        shared = memoryview(mmap.mmap(-1, 8 * (3 * size + 1))).cast("q")
        self._held, self._taken = shared[:size], shared[size : 2 * size]
        self._warm, self._complete = shared[2 * size : 3 * size], shared[3 * size :]
        self._workers = workers
        self._free = list(range(size))
        for place in self._free:
            self._held[place] = self.ABSENT

    def join(self) -> int | None:
        """Return a place, or None where there are more workers than anybody asked for."""
        return self._free.pop(0) if self._free else None

    def leave(self, place: int | None) -> None:
        if place is not None:
            self._held[place], self._warm[place] = self.ABSENT, 0
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

    def warm(self, place: int | None) -> None:
        """Say that the worker at `place` can predict from now on."""
        if place is not None:
            self._warm[place] = 1
        if place is None or sum(self._warm) >= self._workers:
            self._complete[0] = 1

    @property
    def complete(self) -> bool:
        """Whether all workers could predict at one time: the server is ready since then."""
        return bool(self._complete[0])

    def cold(self, place: int | None) -> bool:
        """Whether the worker at `place` cannot predict yet, and others can in its stead."""
        if place is None or self._warm[place]:
            return False
        return self.complete and any(self._warm)

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
