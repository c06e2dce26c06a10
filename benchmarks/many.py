"""Many models in one server: what each holds, how soon it answers, what a call of it costs."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from benchmarks import load, measure
from benchmarks.bench import Bench, Figure, cost
from benchmarks.load import Load, Outcome
from benchmarks.ours import OURS
from benchmarks.peers import MANY
from benchmarks.servers import Failed, Running, add, good, post

MODELS, PEER_MODELS, FEW = 100, 20, 10  # a peer's take so much memory that fewer must do
TURNS = 5  # in which the model alone and one of many are asked
HOT, CALLERS = 8, 2  # models called at once, and callers of each


def many(name: str, bench: Bench) -> Iterator[Figure]:
    """The same pipeline under many names, beside the server that has it alone."""
    case = bench.case("iris pipeline")
    with (
        bench.serving(OURS["skserve"], case) as alone,
        bench.serving(OURS["skserve-many"], case) as ours,
    ):
        alone.check()
        yield _each(name, ours, FEW if bench.quick else MODELS)
        for _ in range(TURNS):
            yield _one(name, alone, bench)
            yield _one(name, ours, bench)
        yield _hot(name, ours, bench)
    for peer in filter(MANY.get, bench.peers):
        try:
            with bench.serving(MANY[peer], case) as theirs:
                yield _each(name, theirs, FEW if bench.quick else PEER_MODELS)
                yield _one(name, theirs, bench)
                yield _hot(name, theirs, bench)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            bench.failed(name, peer, error)


def _each(name: str, running: Running, count: int) -> Figure:
    """Load models beside the first, call each once, and see what they hold."""
    assert running.server.url is not None
    url, before, firsts = running.server.url(running.case), measure.pss(running.tree()), []
    for number in range(1, count + 1):
        began = time.perf_counter()
        add(running.port, f"m{number}", url)
        _call(running, number)
        firsts.append(time.perf_counter() - began)
    running.check()
    each = (measure.pss(running.tree()) - before) / count
    values = {"pss_mib": each, "seconds": statistics.median(firsts)}
    return Figure(name, running.server.name, "each model", values)


def _one(name: str, running: Running, bench: Bench) -> Figure:
    """Call one model over and over."""
    before = running.tree()
    outcome = load.run(running.order(), Load(1), bench.seconds / TURNS, bench.wrk)
    return Figure(name, running.server.name, "1 caller", cost(outcome, before, running.tree()))


def _hot(name: str, running: Running, bench: Bench) -> Figure:
    """Call some models at once, each from a generator of its own."""

    def drive(number: int) -> Outcome:
        order = replace(running.order(), path=_path(running, number))
        return load.run(order, Load(CALLERS), bench.seconds, bench.wrk)

    before, began = running.tree(), time.perf_counter()
    with ThreadPoolExecutor(HOT) as pool:
        outcomes = list(pool.map(drive, range(HOT)))
    after, passed = running.tree(), time.perf_counter() - began
    whole = Outcome(
        sum(one.requests for one in outcomes),
        bench.seconds,
        statistics.median(one.p50_ms for one in outcomes),
        max(one.p99_ms for one in outcomes),
        sum(one.errors for one in outcomes),
    )
    used = (measure.cpu_seconds(after) - measure.cpu_seconds(before)) / passed
    values = {**cost(whole, before, after), "cpus": used}
    return Figure(name, running.server.name, f"{HOT} hot models", values)


def _call(running: Running, number: int) -> None:
    row = slice(0, 1)
    body = running.server.ask(running.case.rows[row])
    status, answer = post(running.port, _path(running, number), body)
    if status != 200 or not good(running.server, answer, running.case, row):
        raise Failed(f"model m{number}: {status} {answer[:300]!r}")


def _path(running: Running, number: int) -> str:
    return running.server.path.replace("m0", f"m{number}")
