"""What the page costs where nothing asks for it: start, memory, and CPU time of a request."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import Bench, Figure, started
from benchmarks.ours import OURS
from benchmarks.turns import compared, cpu_in_turn, in_turn

SERVERS = (OURS["skserve"], OURS["skserve-no-page"])
STARTS, FEW = 15, 2


def page(name: str, bench: Bench) -> Iterator[Figure]:
    """Compare a server with its page and one without, by medians of turns."""
    if not bench.first:
        return
    case = bench.case("iris")
    found: dict[str, list[dict[str, float]]] = {one.name: [] for one in SERVERS}
    for order in in_turn(SERVERS, FEW if bench.quick else STARTS):
        for server in order:
            with bench.serving(server, case) as running:
                found[server.name].append(started(running))
    with ExitStack() as all_of_them:
        running_both = [all_of_them.enter_context(bench.serving(one, case)) for one in SERVERS]
        spent = compared(cpu_in_turn(running_both, bench))
    for which, cpu in spent.items():
        starts = {
            value: statistics.median(one[value] for one in found[which])
            for value in ("seconds", "pss_mib")
        }
        yield Figure(name, which, "in turn", starts | {"cpu_us": cpu})
