"""What the metrics and the log cost a request, and how long a scrape of /metrics takes."""

from __future__ import annotations

import statistics
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks import load
from benchmarks.bench import Bench, Figure
from benchmarks.load import Load
from benchmarks.ours import OURS
from benchmarks.servers import Running
from benchmarks.turns import compared, cpu_in_turn, in_turn

# With both, without one of them, and without either.
SERVERS = ("skserve", "skserve-no-metrics", "skserve-quiet", "skserve-silent")
SCRAPES = 50

# A process is up to 6 % slower or quicker for as long as it lives, by where its memory lies: many
# starts tell more than many turns.
STARTS, FEW, TURNS = 24, 1, 3


def telling(name: str, bench: Bench) -> Iterator[Figure]:
    """Ask all of them in turn, start by start, then scrape the first."""
    if not bench.first:
        return
    case = bench.case("iris")
    turns: list[dict[str, float]] = []
    for order in in_turn(SERVERS, FEW if bench.quick else STARTS):
        with ExitStack() as held:
            running = [held.enter_context(bench.serving(OURS[one], case)) for one in order]
            turns += cpu_in_turn(running, bench, TURNS)
    for server, cpu in compared(turns).items():
        yield Figure(name, server, "8 callers, in turn", {"cpu_us": cpu})
    with bench.serving(OURS["skserve"], case) as running:
        yield Figure(name, "skserve", "a scrape, idle", _scraped(running))
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(load.run, running.order(), Load(8), bench.seconds, bench.wrk)
            yield Figure(name, "skserve", "a scrape, 8 callers", _scraped(running))
            busy.result()


def _scraped(running: Running) -> dict[str, float]:
    """Scrape now and then, each time over a connection of its own as a collector would."""
    times = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics") as answer:
            answer.read()
        times.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.02)
    return {"p50_ms": statistics.median(times), "p99_ms": max(times)}
