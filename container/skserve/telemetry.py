"""What a request cost: counted for `/metrics`, and said in one line of the log.

`stage` times a part of the current request, wherever in the program that part runs; the code that
began the `Record` says when the answer is known.
"""

from __future__ import annotations

import contextvars
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import add
from pathlib import Path
from typing import Any, Protocol

from skserve import logs
from skserve.counters import Counters
from skserve.log_sink import sink
from skserve.region import NO_MODEL
from skserve.series import REJECTED, STAGES

_STAGE = {name: at for at, name in enumerate(STAGES)}
_QUEUE, _TOTAL = _STAGE["queue"], _STAGE["total"]

log = logging.getLogger("skserve")
_requests = logging.getLogger("skserve.requests")

counters = Counters()
sink.dropped = lambda lines: counters.add("skserve_log_lines_dropped", amount=lines)

# Whether there are metrics, and whether this process counts requests for them.
_on = _counts = True


class Response(Protocol):
    """What is said of an answer."""

    @property
    def status_code(self) -> int: ...

    @property
    def content_length(self) -> int | None: ...


class Record:
    """The facts of one request: of each of `STAGES` the seconds, `facts` that only the log shows.

    `model` is the place of its model among those that are counted apart, if there are many; `cells`
    is what `LockedRegion.add_cells` takes. What is not `counted` is no invocation.
    """

    __slots__ = (
        *("_region", "_since", "began", "bytes_in", "cells", "counts", "facts"),
        *("model", "predictions", "request_id", "rows", "stages"),
    )

    def __init__(self, request_id: str, counted: bool = True, in_poller: bool = False) -> None:
        self.request_id = request_id
        self.counts = counted and _counts
        self._region = counters.poller if in_poller else counters.threads
        if self.counts:
            self._region.began()
        self.began = time.perf_counter()
        self.stages = [0.0] * len(STAGES)
        self.facts: dict[str, Any] = {}
        self.bytes_in = self.rows = self.predictions = 0
        self.cells: list[list[int]] | None = None
        self.model = NO_MODEL
        self._since: float | None = None  # when it began to wait for a slot

    def wait(self) -> None:
        """Begin to wait for a slot, unless it does already."""
        if self._since is None:
            self._since = time.perf_counter()
            if self.counts:
                counters.add("skserve_requests_waiting")

    def waited(self) -> None:
        """Wait no more, if it did."""
        since, self._since = self._since, None
        if since is not None:
            self.stages[_QUEUE] += time.perf_counter() - since
            if self.counts:
                counters.add("skserve_requests_waiting", amount=-1)

    def leave_poller(self) -> None:
        """Go on in a thread, with an answer in parts."""
        if self.counts:
            self._region.hand_on(counters.threads)
        self._region = counters.threads

    def write(self, response: Response, hold: bool = False) -> None:
        """Count the request and write its line, or `hold` that: its answer is known."""
        self.waited()
        status, size = response.status_code, response.content_length
        self.stages[_TOTAL] = time.perf_counter() - self.began
        if self.counts:
            self._region.count(
                status,
                self.model,
                self.rows if self.predictions else 0,
                self.predictions,
                self.bytes_in,
                size or 0,
                self.stages,
            )
            if self.cells is not None:
                counters.threads.add_cells(self.cells)
        if _requests.isEnabledFor(logging.INFO):
            logs.line(status, size, self, hold)
        _current.set(None)


_current: contextvars.ContextVar[Record | None] = contextvars.ContextVar("record", default=None)


def begin(request_id: str, counted: bool = True, in_poller: bool = False) -> Record:
    """Start the record of the request that this thread, or context, now serves."""
    record = Record(request_id, counted, in_poller)
    _current.set(record)
    logs.served = True
    return record


def current() -> Record | None:
    """Return the record of the request that this thread serves, if it serves one."""
    return _current.get()


def _request_id() -> str:
    record = _current.get()
    return record.request_id if record else ""


logs.request_id = _request_id


def note(**facts: Any) -> None:
    """Add facts to the current request's line, if there is a request."""
    record = _current.get()
    if record is not None:
        record.facts.update(facts)


def note_rows(count: int) -> None:
    """Say how many rows the current request has, if there is a request."""
    record = _current.get()
    if record is not None:
        record.rows = count


def spent(name: str, seconds: float) -> None:
    """Say how long a part of the current request took, if there is a request."""
    record = _current.get()
    if record is not None:
        record.stages[_STAGE[name]] += seconds


def predicted() -> None:
    """Count a call of the model for the current request, and perhaps for others with it."""
    record = _current.get()
    if record is not None:
        record.predictions += 1


class stage:  # noqa: N801 - it reads as the function it would be if that were not slower
    """Time a part of the current request, all together where it runs several times."""

    __slots__ = ("_at", "_began")

    def __init__(self, name: str) -> None:
        self._at = _STAGE[name]

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if (record := _current.get()) is not None:
            record.stages[self._at] += time.perf_counter() - self._began


def look_at_cells(count: Callable[[Any], list[list[int]] | None], X: Any) -> None:
    """Add to the current request what `count` says of a table, for `Record.cells`."""
    if not _on or (found := count(X)) is None or (record := _current.get()) is None:
        return
    before = record.cells or [[0] * len(one) for one in found]
    record.cells = [list(map(add, one, more)) for one, more in zip(before, found, strict=True)]


def rejected(reason: str) -> None:
    """Count a request that was refused because of the load."""
    if _counts:
        counters.add("skserve_rejected", reason if reason in REJECTED else "other")


def ends(reason: str) -> None:
    """Say why this process is about to end; see `series.ENDS`."""
    counters.end(reason)


def share(workers: int, counts: bool) -> None:
    """Make the numbers visible to all processes. Called in the master, before it forks."""
    global _on, _counts
    _on = _counts = counts
    counters.share(workers)
    for name, seconds in phases.items():
        counters.put("skserve_start_seconds", name, seconds)


def alone() -> None:
    """Count nothing here: the process of one model of many, whose worker counts its requests."""
    global _counts
    _counts = False
    counters.alone()


# Seconds of each part of the start, as far as it went in this process.
phases: dict[str, float] = {}


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Time a part of the start."""
    began = time.perf_counter()
    try:
        yield
    finally:
        took(name, time.perf_counter() - began)


def took(name: str, seconds: float) -> None:
    """Say how long a part of the start took."""
    seconds = phases[name] = round(seconds, 3)
    counters.put("skserve_start_seconds", name, seconds)


def process_age() -> float:
    """Return the seconds since this process was started; 0 where the kernel does not say."""
    try:
        since_boot = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return 0.0
    began = int(since_boot) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)


configure = logs.configure
