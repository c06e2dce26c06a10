"""The numbers behind `/metrics`, in memory that every process of the server sees.

The master makes the memory before it forks. Each process writes into a `Region` of its own, under a
lock of its own, so that a hung process holds up no other and no reader. The thread that polls has
a second region, which no other thread writes to: it counts without a lock. A region is never
cleared: whichever process takes the place of a dead one goes on counting where that one stopped, so
no counter ever falls. Only gauges are cleared, by the master. A model's process of the multi-model
mode gets none of this memory: its worker counts what it answers.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

from skserve.region import SIZE, LockedRegion, Region
from skserve.series import ENDING, ENDS, GAUGES, MODELS, NAME, OTHER_MODELS, PLACE
from skserve.totals import Totals

MASTER, ZYGOTE, FIRST_WORKER = 0, 1, 2


class Counters:
    """The regions of all processes, and the two that this process writes to: that of its poller,
    and that of all its other `threads`.

    Until `share` is called they are in the memory of this process alone.
    """

    threads: LockedRegion
    poller: Region

    def __init__(self) -> None:
        self.share(0)

    def share(self, workers: int) -> None:
        """Make the memory for a master, a zygote and as many workers. Called before any fork."""
        count = FIRST_WORKER + workers
        self._memory = mmap.mmap(-1, 2 * SIZE * count + (MODELS + 1) * NAME)
        whole = memoryview(self._memory)
        parts = [whole[at * SIZE : (at + 1) * SIZE] for at in range(2 * count)]
        self._regions = [LockedRegion(one) for one in parts[:count]]
        self._pollers = [Region(one) for one in parts[count:]]
        self._names = whole[2 * SIZE * count :]
        self._free = list(range(FIRST_WORKER, count))
        self.use(MASTER)

    def join(self) -> int | None:
        """Return the region of a new worker, or None where all regions are taken.

        Called in the master, before the fork.
        """
        return self._free.pop(0) if self._free else None

    def use(self, region: int | None) -> None:
        """Write into `region` from now on; None is memory of this process alone.

        Called after the fork, by the one thread there is.
        """
        if region is None:
            self.threads, self.poller = LockedRegion(_own()), Region(_own())
        else:
            self.threads, self.poller = self._regions[region], self._pollers[region]
            self.threads.resume()
            self.poller.resume()

    def unfinished(self, region: int | None) -> int:
        """Return how many requests a worker had begun and not answered, as far as is known."""
        if region is None:
            return 0
        return self._regions[region].unanswered + self._pollers[region].unanswered

    def leave(self, region: int | None) -> str:
        """Clear the gauges of a worker that has ended, and return what it said of its end."""
        if region is None:
            return ""
        cells = self._regions[region].cells
        said = int(cells[ENDING])
        for place in GAUGES:
            cells[place] = self._pollers[region].cells[place] = 0.0
        self._free.insert(0, region)
        return ENDS[said - 1] if said else ""

    def alone(self) -> None:
        """Let go of the memory, in a process that runs the code of one model of many."""
        memory, regions, names = self._memory, [*self._regions, *self._pollers], self._names
        self.share(0)
        for region in regions:
            region.release()
        names.release()
        with suppress(BufferError):  # a view is left, which has no name
            memory.close()

    @property
    def digest(self) -> str:
        """The digest of the model of all workers; empty until one of them has set it."""
        return bytes(self._names[MODELS * NAME :]).rstrip(b"\0").decode()

    @digest.setter
    def digest(self, text: str) -> None:
        self._names[MODELS * NAME : MODELS * NAME + len(text)] = text.encode()

    def add(self, name: str, value: str = "", amount: float = 1.0) -> None:
        """Add to a counter or a gauge that is no sum over requests."""
        self.threads.add(PLACE[name, value], amount)

    def put(self, name: str, value: str, amount: float) -> None:
        """Set a gauge of this process."""
        self.threads.cells[PLACE[name, value]] = amount

    def end(self, reason: str) -> None:
        """Say why this process is about to end, for the one that finds it ended."""
        self.threads.cells[ENDING] = 1.0 + ENDS.index(reason)

    def totals(self) -> Totals:
        """Return all numbers as they are now, over all processes. Waits for none of them."""
        return Totals([region.totals() for region in [*self._regions, *self._pollers]])

    def model(self, name: str) -> int:
        """Return the place of a model, given to the first that ask. Only the zygote may call it."""
        said = name.encode()[: NAME - 1]
        if name == "other":  # what all the others are called
            return OTHER_MODELS
        for place in range(MODELS):
            known = self._names[place * NAME : (place + 1) * NAME]
            if not known[0]:
                known[1 : 1 + len(said)] = said
                known[0] = len(said)  # last: a reader meanwhile sees the whole name or nothing
            if bytes(known[1 : 1 + known[0]]) == said:
                return place
        return OTHER_MODELS

    def models(self) -> list[str]:
        """Return the names of the models that have places of their own, in the order of those."""
        names = [bytes(self._names[at : at + NAME]) for at in range(0, MODELS * NAME, NAME)]
        return [name[1 : 1 + name[0]].decode(errors="replace") for name in names if name[0]]


def _own() -> memoryview:
    """Return the memory of a region that no other process reads."""
    return memoryview(bytearray(SIZE))
