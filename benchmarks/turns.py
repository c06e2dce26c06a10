"""Several servers that are asked in turn, again and again: their medians can then be compared."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypeVar

from benchmarks import load
from benchmarks.bench import Bench, cost
from benchmarks.load import Load
from benchmarks.servers import Running

T = TypeVar("T")

TURNS, SHORT = 15, 3  # in which each of them is asked for a part of the time


def cpu_in_turn(running: Sequence[Running], bench: Bench, turns: int = TURNS) -> dict[str, float]:
    """Return the median CPU time of a request of each server by its name, in microseconds."""
    found: dict[str, list[float]] = {one.server.name: [] for one in running}
    for one in running:
        one.check()
    for order in in_turn(running, SHORT if bench.quick else turns):
        for one in order:
            before = one.tree()
            outcome = load.run(one.order(), Load(8), bench.seconds / 3, bench.wrk)
            found[one.server.name].append(cost(outcome, before, one.tree())["cpu_us"])
    return {name: statistics.median(costs) for name, costs in found.items()}


def in_turn(servers: Sequence[T], turns: int) -> list[Sequence[T]]:
    """Return them once for each turn, each time another one first."""
    places = [turn % len(servers) for turn in range(turns)]
    return [[*servers[place:], *servers[:place]] for place in places]
