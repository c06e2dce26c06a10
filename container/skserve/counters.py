"""The numbers behind `/metrics`, in memory that every process of the server sees.

The master makes the memory before it forks. Each process writes into a region of its own, under a
lock of its own, so that a hung process holds up no other and no reader. The thread that polls has
a second region, which no other thread writes to: it counts without a lock. A region is never
cleared: whichever process takes the place of a dead one goes on counting where that one stopped, so
no counter ever falls. Only gauges are cleared, by the master. A model's process of the multi-model
mode gets none of this memory: its worker counts what it answers.

Cells are float64: whole numbers are exact up to 2**53, and a write of eight aligned bytes is whole.
"""

from __future__ import annotations

import mmap
import struct
import threading
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from skserve.series import (
    AMOUNTS,
    BUCKETS,
    BY_COLUMN,
    BY_MODEL,
    CELLS,
    COLUMNS,
    ENDING,
    ENDS,
    GAUGES,
    MODEL_NUMBERS,
    MODELS,
    NAME,
    OTHER_MODELS,
    PLACE,
    REGION,
    STAGES,
    STATUSES,
)
from skserve.totals import Totals

MASTER, ZYGOTE, FIRST_WORKER = 0, 1, 2


class Counters:
    """The regions of all processes, and the two that this process writes to.

    Until `share` is called they are in the memory of this process alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.share(0)

    def share(self, workers: int) -> None:
        """Make the memory for a master, a zygote and as many workers. Called before any fork."""
        count = FIRST_WORKER + workers
        size = 8 * REGION * 2 * count
        self._memory = mmap.mmap(-1, size + (MODELS + 1) * NAME)
        whole = memoryview(self._memory)
        cells: memoryview[float] = whole[:size].cast("d")
        regions = [cells[at * REGION : (at + 1) * REGION] for at in range(2 * count)]
        self._regions, self._pollers = regions[:count], regions[count:]
        self._names = whole[size:]
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
        self._lock = threading.Lock()  # at the fork, another thread may have held it
        if region is None:
            self._cells, self._poller = (
                memoryview(bytearray(8 * REGION)).cast("d") for _ in range(2)
            )
        else:
            self._cells, self._poller = self._regions[region], self._pollers[region]
        self._amounts = _amounts(self._cells)
        self._poller_amounts = _amounts(self._poller)

    def unfinished(self, region: int | None) -> int:
        """Return how many requests a worker had begun and not answered, as far as is known."""
        if region is None:
            return 0
        return int(self._regions[region][_UNANSWERED] + self._pollers[region][_UNANSWERED])

    def leave(self, region: int | None) -> str:
        """Clear the gauges of a worker that has ended, and return what it said of its end."""
        if region is None:
            return ""
        cells = self._regions[region]
        said = int(cells[ENDING])
        for place in GAUGES:
            cells[place] = self._pollers[region][place] = 0.0
        self._free.insert(0, region)
        return ENDS[said - 1] if said else ""

    def alone(self) -> None:
        """Let go of the memory, in a process that runs the code of one model of many."""
        memory, regions, names = self._memory, self._regions + self._pollers, self._names
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
        """Add to a counter or a gauge."""
        with self._lock:
            self._cells[PLACE[name, value]] += amount

    def put(self, name: str, value: str, amount: float) -> None:
        """Set a gauge of this process."""
        self._cells[PLACE[name, value]] = amount

    def end(self, reason: str) -> None:
        """Say why this process is about to end, for the one that finds it ended."""
        self._cells[ENDING] = 1.0 + ENDS.index(reason)

    def request(
        self,
        status: int,
        stages: dict[str, float],
        rows: int,
        predictions: int,
        bytes_in: int,
        bytes_out: int,
        model: int | None,
        in_poller: bool,
    ) -> None:
        """Count one request whose answer is known; `stages` in seconds, with `total`."""
        if in_poller:
            cells, amounts = self._poller, self._poller_amounts
        else:
            cells, amounts = self._cells, self._amounts
            self._lock.acquire()
        try:
            cells[_STATUS.get(status, _OTHER_STATUS)] += 1.0
            for name, seconds in stages.items():
                place, at = _STAGE[name]
                # Most are in the first bucket.
                cells[place if seconds <= _FIRST else place + bisect_left(BUCKETS, seconds)] += 1.0
                amounts[at] += seconds
            if predictions:
                amounts[_ROWS] += rows
                amounts[_PREDICTIONS] += predictions
            amounts[_BYTES_IN] += bytes_in
            amounts[_BYTES_OUT] += bytes_out
            if not in_poller:  # else it is 0 in the list, as there is one at a time
                amounts[_IN_PROGRESS] -= 1.0
            _write(*amounts)
            if model is not None:
                place = BY_MODEL + model * MODEL_NUMBERS
                cells[place] += 1.0
                cells[place + 1] += status >= 400
                cells[place + 2] += stages["total"]
        finally:
            if not in_poller:
                self._lock.release()

    def began(self, in_poller: bool) -> None:
        """Count a request that is not answered yet; `in_poller` there is one at a time."""
        if in_poller:
            self._poller[_UNANSWERED] = 1.0
            return
        with self._lock:
            self._amounts[_IN_PROGRESS] += 1.0
            self._cells[_UNANSWERED] = self._amounts[_IN_PROGRESS]

    def left_poller(self) -> None:
        """Go on with the request that the poller has begun in a thread."""
        self._poller[_UNANSWERED] = 0.0
        self.began(False)

    def cells(self, counts: Sequence[Sequence[int]]) -> None:
        """Count cells of a table: for each of `CELLS` a count for each column."""
        cells = self._cells
        with self._lock:
            for at, (kind, columns) in enumerate(zip(CELLS, counts, strict=True)):
                if total := sum(columns):
                    cells[PLACE["skserve_cells", kind]] += total
                    for column, count in enumerate(columns[:COLUMNS]):
                        cells[BY_COLUMN + column * len(CELLS) + at] += count

    # ------------------------------------------------------------------------------------- reading

    def totals(self) -> Totals:
        """Return all numbers as they are now, over all processes. Waits for none of them."""
        return Totals([list(region) for region in self._regions + self._pollers])

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


_STATUS = {int(one): PLACE["skserve_requests", one] for one in STATUSES if one.isdigit()}
_OTHER_STATUS = PLACE["skserve_requests", "other"]
_UNANSWERED = PLACE["skserve_requests_in_progress", ""]
_FIRST = BUCKETS[0]

# Each request adds to the cells of AMOUNTS. Adding in a list and writing all of it at once takes
# half the time. The list begins with what `_write` is told first: where to, and from which byte on.
_AT = {place: 2 + at for at, place in enumerate(range(AMOUNTS.start, AMOUNTS.stop))}
_STAGE = {
    one: (PLACE["skserve_request_seconds", one], _AT[PLACE["skserve_request_seconds_sum", one]])
    for one in STAGES
}
_ROWS, _PREDICTIONS = _AT[PLACE["skserve_rows", ""]], _AT[PLACE["skserve_predictions", ""]]
_BYTES_IN, _BYTES_OUT = (_AT[PLACE["skserve_body_bytes", one]] for one in ("in", "out"))
_IN_PROGRESS = _AT[_UNANSWERED]
_write = struct.Struct(f"{len(_AT)}d").pack_into


def _amounts(cells: memoryview[float]) -> list[Any]:
    """Return the list for the cells of a region, which no other process writes to."""
    return [cells, 8 * AMOUNTS.start, *cells[AMOUNTS]]
