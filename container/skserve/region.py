"""The memory in which one thread, or all threads of a process, count.

Each request is one record in a ring, which one call writes. Once the ring is full, its records are
added to the sums: into the other of two copies, and one write of eight bytes says that this copy
counts from now on. So a process may be killed at any moment: a request is counted as a whole or not
at all, and whichever process counts here next goes on from there. A reader waits for no lock: it
adds what is still in the ring, and reads again where the copies changed places meanwhile.

Cells are float64: whole numbers are exact up to 2**53, and a write of eight aligned bytes is whole.
"""

from __future__ import annotations

import struct
import threading
from array import array
from collections.abc import Sequence
from math import inf
from typing import Any

from skserve.series import (
    BUCKETS,
    BY_COLUMN,
    CELLS,
    COLUMNS,
    END,
    MODEL_NUMBERS,
    PLACE,
    STAGES,
    STATUSES,
    SUMS,
)

NO_MODEL = -1  # a request's model is not among those that are counted apart

# In the ring. To add more of them up at once costs each less, and holds up one request for longer,
# now for twice the time of a small model's answer.
RECORDS = 256

# Status, model, rows, predictions, bytes in and out, seconds by stage; last its own number, which
# says that all before it is written.
_WHOLE = 6
_NUMBER = _WHOLE + len(STAGES)
_FIELDS = _NUMBER + 1
_RECORD = struct.Struct(f"{_WHOLE}q{len(STAGES)}dq")
_write, _SIZE = _RECORD.pack_into, _RECORD.size

# The first copy of the sums, all cells that are there once, the second copy of the sums, and how
# many records were added to one of the copies, which also says to which.
_ADDED = END + SUMS
_COPIES = slice(0, SUMS), slice(END, _ADDED)
_RING = 8 * (_ADDED + 1)
SIZE = _RING + RECORDS * _SIZE  # bytes of a region

# Behind the sums: how many requests have begun, of which those that are counted are answered.
_BEGUN = SUMS


class Region:
    """A region that one thread writes to, with at most one request at a time."""

    def __init__(self, memory: memoryview) -> None:
        self.cells: memoryview[float] = memory[:_RING].cast("d")
        self._ring = memory[_RING:]
        self.resume()

    def resume(self) -> None:
        """Go on after the last request that any process has counted here."""
        added = int(self.cells[_ADDED])
        self._full = added + RECORDS
        self._number = added + _written(bytes(self._ring), added)
        self.cells[_BEGUN] = self._number

    def began(self) -> None:
        """Count a request that is not answered yet."""
        self.cells[_BEGUN] = self._number + 1

    def hand_on(self, other: Region) -> None:
        """Let another region count the request that has begun here."""
        self.cells[_BEGUN] = self._number
        other.began()

    def count(
        self,
        status: int,
        model: int,
        rows: int,
        predictions: int,
        bytes_in: int,
        bytes_out: int,
        stages: Sequence[float],
    ) -> None:
        """Count one request whose answer is known; `stages` in seconds, 0 where there was none."""
        number = self._number
        if number == self._full:
            self._add_up()
        decode, queue, predict, encode, total = stages
        _write(
            self._ring,
            number % RECORDS * _SIZE,
            status,
            model,
            rows,
            predictions,
            bytes_in,
            bytes_out,
            decode,
            queue,
            predict,
            encode,
            total,
            number + 1,
        )
        self._number = number + 1

    def totals(self) -> list[float]:
        """Return all numbers as they are now. Waits for no other process or thread."""
        while True:
            added = int(self.cells[_ADDED])
            # A processor may show the number of a record a little sooner than the rest of it.
            records = _written(bytes(self._ring), added)
            cells, ring = list(self.cells), bytes(self._ring)
            if self.cells[_ADDED] == added:
                break
        unanswered = max(0.0, cells[_BEGUN] - added - records)
        return [*_sums(cells, ring, added, records), unanswered, *cells[_BEGUN + 1 : END]]

    @property
    def unanswered(self) -> int:
        """How many requests have begun and are not answered."""
        return int(self.totals()[_BEGUN])

    def release(self) -> None:
        """Let go of the memory."""
        self.cells.release()
        self._ring.release()

    def _add_up(self) -> None:
        """Add the ring, which is full, to the copy of the sums that does not count now."""
        added = self._full - RECORDS
        sums = _sums(self.cells, bytes(self._ring), added, RECORDS)
        self.cells[_COPIES[_copy(self._full)]] = array("d", sums)
        self.cells[_ADDED] = float(self._full)
        self._full += RECORDS


class LockedRegion(Region):
    """A region that the threads of a process write to, each with requests of its own."""

    def resume(self) -> None:
        super().resume()
        self._lock = threading.Lock()  # at the fork, another thread may have held it

    def began(self) -> None:
        self.add(_BEGUN, 1.0)

    def count(self, *facts: Any) -> None:
        with self._lock:
            super().count(*facts)

    def add(self, place: int, amount: float) -> None:
        """Add to one cell that is no sum over requests."""
        with self._lock:
            self.cells[place] += amount

    def add_cells(self, counts: Sequence[Sequence[int]]) -> None:
        """Count cells of a table: for each of `CELLS` a count for each column."""
        with self._lock:
            for at, (kind, columns) in enumerate(zip(CELLS, counts, strict=True)):
                if total := sum(columns):
                    self.cells[PLACE["skserve_cells", kind]] += total
                    for column, count in enumerate(columns[:COLUMNS]):
                        self.cells[BY_COLUMN + column * len(CELLS) + at] += count


def _copy(added: int) -> int:
    """Return which copy of the sums counts, once so many records were added."""
    return added // RECORDS % 2


def _written(ring: bytes, added: int) -> int:
    """Return how many records of a ring are not added to the sums yet."""
    return sum(map(added.__lt__, array("q", ring)[_NUMBER::_FIELDS]))


_STATUS = {int(one): PLACE["skserve_requests", one] for one in STATUSES if one.isdigit()}
_OTHER_STATUS = PLACE["skserve_requests", "other"]
_BOUNDS = (*BUCKETS, inf)
_STAGES = [
    (PLACE["skserve_request_seconds", one], PLACE["skserve_request_seconds_sum", one])
    for one in STAGES
]
_AMOUNTS = [
    PLACE["skserve_rows", ""],
    PLACE["skserve_predictions", ""],
    PLACE["skserve_body_bytes", "in"],
    PLACE["skserve_body_bytes", "out"],
]


def _sums(cells: Sequence[float], ring: bytes, added: int, records: int) -> list[float]:
    """Return the sums over all requests: the copy that counts, and the records of the ring."""
    sums, end = list(cells[_COPIES[_copy(added)]]), records * _FIELDS
    whole, real = (array(kind, ring)[:end] for kind in "qd")
    statuses, models, *columns = (whole[at::_FIELDS] for at in range(_WHOLE))
    for status in set(statuses):
        sums[_STATUS.get(status, _OTHER_STATUS)] += statuses.count(status)
    for place, amounts in zip(_AMOUNTS, columns, strict=True):
        sums[place] += sum(amounts)
    for at, (place, total) in enumerate(_STAGES, _WHOLE):
        seconds = list(filter(None, real[at::_FIELDS]))  # of those that have this stage
        sums[total] += sum(seconds)
        for bucket, bound in enumerate(_BOUNDS, place):
            # Most are below the first bounds, so this is quicker than sorting.
            longer = [one for one in seconds if one > bound]
            sums[bucket] += len(seconds) - len(longer)
            if not longer:
                break
            seconds = longer
    if max(models, default=NO_MODEL) != NO_MODEL:
        totals = real[_NUMBER - 1 :: _FIELDS]
        for model, status, total_seconds in zip(models, statuses, totals, strict=True):
            if model != NO_MODEL:
                place = model * MODEL_NUMBERS
                sums[place] += 1.0
                sums[place + 1] += status >= 400
                sums[place + 2] += total_seconds
    return sums
