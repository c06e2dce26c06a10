"""What is measured: one work per name, each a function from a `Bench` to figures.

A new work is a function here, its line in `WORKS`, and the targets in `report.TARGETS` that read
its figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from benchmarks import floors, load, measure, models, report
from benchmarks.bench import Bench, Figure, closed, cost
from benchmarks.load import Load
from benchmarks.many import many
from benchmarks.ours import OURS
from benchmarks.overload import overload
from benchmarks.page import page
from benchmarks.peers import PEERS
from benchmarks.servers import ROOT, Failed, Running, good, post
from benchmarks.telling import telling

STARTS = 5  # times that a start is measured
FEW = 16  # rows that a slow server is checked with
SETTLE = 20  # seconds in which a server may finish requests whose callers have gone

# Requests a second for the picture, until a server falls behind.
RATES = (250, 500, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 8000, 10000)
BEHIND = 0.95  # of the rate is answered, or the server is behind


@dataclass(frozen=True)
class Requests:
    """Requests of one row to a model, under some loads."""

    model: str
    loads: tuple[Load, ...]
    ours: tuple[str, ...] = ("skserve",)
    peer_loads: tuple[Load, ...] = ()
    peer_environ: Mapping[str, str] = field(default_factory=dict)
    slow: bool = False  # an answer of a peer takes so long that one round and few checks must do
    sweep: tuple[str, ...] = ()  # servers whose latency is measured against the load

    def __call__(self, name: str, bench: Bench) -> Iterator[Figure]:
        case = bench.case(self.model)
        checked, longer = (FEW, 2.0) if self.slow else (models.ASKED, 1.0)
        for server in bench.servers(self.ours, case.named):
            peer = server.name in PEERS
            if peer and not self.peer_loads:
                continue
            if peer and self.slow and not bench.first:
                continue
            try:
                with bench.serving(
                    server, case, environ=self.peer_environ if peer else None
                ) as running:
                    yield Figure(name, server.name, "start", {"seconds": running.ready})
                    running.check(checked)
                    for one in self.peer_loads if peer else self.loads:
                        values = closed(running, one, bench, longer)
                        yield Figure(name, server.name, str(one), values)
                        measure.settle(running.process.pid, SETTLE)
                    if bench.first and server.name in self.sweep:
                        yield from _sweep(name, running, bench)
                    running.check(checked)
                    pss = measure.pss(running.tree())
                    yield Figure(name, server.name, "memory", {"pss_mib": pss})
            except (Failed, OSError, subprocess.SubprocessError) as error:
                bench.failed(name, server.name, error)


def _sweep(name: str, running: Running, bench: Bench) -> Iterator[Figure]:
    """Offer more and more requests a second until they are not answered any more."""
    for rate in RATES[:3] if bench.quick else RATES:
        one = Load(load.OPEN_CALLERS, rate)
        outcome = load.run(running.order(), one, bench.seconds)
        values = {
            "rate": rate,
            "rps": outcome.requests / outcome.seconds,
            "p50_ms": outcome.p50_ms,
            "p99_ms": outcome.p99_ms,
            "errors": outcome.errors,
        }
        yield Figure(name, running.server.name, str(one), values)
        measure.settle(running.process.pid, SETTLE)
        if outcome.requests < BEHIND * rate * outcome.seconds:
            return


def tables(name: str, bench: Bench) -> Iterator[Figure]:
    """10,000 rows in one request, beside parsing the same bytes without a server."""
    case = bench.case("linear")
    bodies = {
        "CSV": ("csv", "text/csv", _csv(case.rows)),
        "JSON": ("json", "application/json", json.dumps(case.rows.tolist()).encode()),
    }
    with bench.serving(OURS["skserve"], case) as running:
        for label, (kind, content_type, body) in bodies.items():
            _whole_table(running, body, content_type)
            before = running.tree()
            order = running.order([body], content_type)
            outcome = load.run(order, Load(1), bench.seconds, bench.wrk)
            yield Figure(name, "skserve", label, cost(outcome, before, running.tree()))
            _whole_table(running, body, content_type)
            file = case.folder / f"body.{kind}"
            file.write_bytes(body)
            parsed = floors.measured(kind, file, bench.seconds)
            yield Figure(name, f"in-process {kind}", label, parsed)


def _csv(rows: np.ndarray) -> bytes:
    return "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist()).encode()


def _whole_table(running: Running, body: bytes, content_type: str) -> None:
    status, answer = post(running.port, running.server.path, body, content_type)
    if status != 200 or not good(running.server, answer, running.case, slice(None)):
        raise Failed(f"{status} {answer[:300]!r}")


def in_process(name: str, bench: Bench) -> Iterator[Figure]:
    """scikit-learn alone, asked for the neighbours of one row."""
    found = floors.measured("neighbours", bench.case("neighbours").file, bench.seconds)
    yield Figure(name, "in-process scikit-learn", "1 caller", found)


def families(name: str, bench: Bench) -> Iterator[Figure]:
    """Fast paths in a process of their own, beside scikit-learn, pandas and sums of parts."""
    command = [sys.executable, "-m", "benchmarks.mixed", "--json", "--rounds"]
    done = subprocess.run(
        [*command, "1" if bench.quick else "5"],
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": f"{ROOT / 'container'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        server, what, values = json.loads(line)
        yield Figure(name, server, what, values)


def start(name: str, bench: Bench) -> Iterator[Figure]:
    """From the start of the process to the first good prediction, beside a bare load."""
    if not bench.first:
        return
    case = bench.case("iris")
    bare = [sys.executable, "-c", f"import joblib; joblib.load({str(case.file)!r})"]
    for _ in range(2 if bench.quick else STARTS):
        began = time.perf_counter()
        subprocess.run(bare, check=True)
        seconds = {"seconds": time.perf_counter() - began}
        yield Figure(name, "joblib.load alone", "start", seconds)
        with bench.serving(OURS["skserve"], case) as running:
            yield Figure(name, "skserve", "start", {"seconds": running.ready})


def memory(name: str, bench: Bench) -> Iterator[Figure]:
    """What a large model adds to a tiny one, in multiples of its data."""
    if not bench.first:
        return
    for workers in (2, 4):
        held = {}
        for model in ("iris", "neighbours", "neighbours compressed"):
            case = bench.case(model)
            with bench.serving(OURS["skserve"], case, workers=workers) as running:
                for _ in range(4):  # so that every worker has answered
                    running.check(callers=4 * workers)
                held[model] = measure.pss(running.tree())
            values = {"pss_mib": held[model]}
            if model != "iris":
                values["of_data"] = (held[model] - held["iris"]) * 2**20 / case.data
            yield Figure(name, "skserve", f"{model}, {workers} workers", values)


ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
C1, C8, C64, C256 = Load(1), Load(8), Load(64), Load(256)

WORKS: dict[str, Callable[[str, Bench], Iterator[Figure]]] = {
    "iris": Requests(
        "iris",
        loads=(C8,),
        ours=("skserve", "skserve-quiet", "empty-flask"),
        peer_loads=(C8,),
        sweep=("skserve", "aws", "fastapi"),
    ),
    "forest": Requests("forest", loads=(C1, C8, C64), peer_loads=(C1, C8, C64)),
    "boosting": Requests(
        "boosting", loads=(C8, C64, C256), peer_loads=(C8, C64), peer_environ=ONE_THREAD
    ),
    "neighbours": Requests("neighbours", loads=(C1, C8, C64), peer_loads=(C8, C64), slow=True),
    "mixed": Requests("mixed", loads=(C8, C64), peer_loads=(C8, C64)),
    "mixed forest": Requests("mixed forest", loads=(C8,)),
    "numbers forest": Requests("numbers forest", loads=(C8,)),
    "mixed boosting": Requests("mixed boosting", loads=(C8,)),
    "numbers boosting": Requests("numbers boosting", loads=(C8,)),
    "text": Requests("text", loads=(C8,)),
    "families": families,
    "in-process": in_process,
    "tables": tables,
    "start": start,
    "memory": memory,
    "many": many,
    "overload": overload,
    "telling": telling,
    "page": page,
}


def run(bench: Bench, names: tuple[str, ...], rounds: int) -> Iterator[tuple[int, Figure]]:
    """Measure the works, all servers of one after another, round by round."""
    for number in range(1, rounds + 1):
        bench.first = number == 1
        yield number, _noise("before")
        for name in names:
            print(f"round {number}: {name}", file=sys.stderr, flush=True)
            try:
                yield from map(partial(_numbered, number), WORKS[name](name, bench))
            except Exception as error:  # say a model that cannot be fitted: the others are measured
                bench.failed(name, "skserve", error)
        yield number, _noise("after")


def _noise(when: str) -> Figure:
    """Measure how long a fixed loop takes: other work on the machine shows in it."""
    return Figure("noise", report.MACHINE, f"{when} the round", {"loop_ms": measure.loop()})


def _numbered(number: int, figure: Figure) -> tuple[int, Figure]:
    return number, figure
