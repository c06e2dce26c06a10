"""More requests than a server can answer, in an open loop: what it does, and how it refuses."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from benchmarks import load, measure
from benchmarks.bench import Bench, Figure
from benchmarks.load import Load
from benchmarks.ours import OURS
from benchmarks.servers import Running

SECONDS = 60  # of overload
BEST = 10  # seconds in which the best throughput is looked for, before and after
CALLERS = 64  # that reach it, in a closed loop
CONNECTIONS = 1000  # of the open loop
PAUSE = 0.1  # seconds between two pings


@dataclass(frozen=True)
class Case:
    """A model, and how many times as much is asked of it as it can answer."""

    model: str
    times: float


CASES = (Case("script", 10), Case("iris", 2), Case("mixed", 2))


def overload(name: str, bench: Bench) -> Iterator[Figure]:
    """The best throughput, the same server under overload, and its throughput afterwards."""
    if not bench.first:
        return
    for case in CASES:
        with bench.serving(OURS["skserve"], bench.case(case.model)) as running:
            running.check()
            best = _best(running, bench)
            yield Figure(name, "skserve", f"{case.model}, best", {"rps": best})
            values = _overloaded(running, best * case.times, bench)
            label = f"{case.model}, {case.times:g} times"
            yield Figure(name, "skserve", label, values | {"goodput": values["rps"] / best})
            measure.settle(running.process.pid, SECONDS)
            running.check()
            after = _best(running, bench)
            values = {"rps": after, "goodput": after / best}
            yield Figure(name, "skserve", f"{case.model}, afterwards", values)


def _best(running: Running, bench: Bench) -> float:
    seconds = bench.seconds if bench.quick else BEST
    outcome = load.run(running.order(), Load(CALLERS), seconds, None)
    return outcome.requests / outcome.seconds


def _overloaded(running: Running, rate: float, bench: Bench) -> dict[str, float]:
    seconds = bench.seconds if bench.quick else SECONDS
    with _pings(running.port) as pings:
        outcome = load.run(running.order(), Load(CONNECTIONS, rate), seconds, None)
    return {
        "rps": outcome.requests / outcome.seconds,
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "sent_p99_ms": outcome.sent_p99_ms,
        "refused_ms": outcome.refused_ms,
        "ping_ms": 1e3 * max(pings, default=0.0),
        "lost": outcome.lost,
        "errors": outcome.errors,
    }


@contextmanager
def _pings(port: int) -> Iterator[list[float]]:
    """Ping all the while, each time on a new connection; one that fails counts as endless."""
    took: list[float] = []
    over = threading.Event()

    def ping() -> None:
        while not over.wait(PAUSE):
            began, good = time.perf_counter(), False
            with suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/ping")
                good = connection.getresponse().status == 200
                connection.close()
            took.append(time.perf_counter() - began if good else float("inf"))

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()
