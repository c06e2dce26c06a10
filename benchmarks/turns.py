"""Several servers that are asked in turn, again and again, and so can be compared."""

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


def cpu_in_turn(
    running: Sequence[Running], bench: Bench, turns: int = TURNS
) -> list[dict[str, float]]:
    """Return what a request of each server by its name has cost in each turn, in microseconds."""
    found: list[dict[str, float]] = []
    for one in running:
        one.check()
    for order in in_turn(running, SHORT if bench.quick else turns):
        found.append({})
        for one in order:
            before = one.tree()
            outcome = load.run(one.order(), Load(8), bench.seconds / 3, bench.wrk)
            found[-1][one.server.name] = cost(outcome, before, one.tree())["cpu_us"]
    return found


def compared(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return one cost of each server, by the medians of its part of what all cost in a turn.

    The machine may be half as fast in one turn as in the next, but then for all of them.
    """
    means = [statistics.fmean(turn.values()) for turn in turns]
    return {
        name: statistics.median(means)
        * statistics.median(turn[name] / mean for turn, mean in zip(turns, means, strict=True))
        for name in turns[0]
    }


def in_turn(servers: Sequence[T], turns: int) -> list[Sequence[T]]:
    """Return them once for each turn, each time another one first."""
    places = [turn % len(servers) for turn in range(turns)]
    return [[*servers[place:], *servers[:place]] for place in places]
