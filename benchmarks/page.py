"""What the page costs where nothing asks for it: start, memory, and CPU time of a request."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import measure
from benchmarks.bench import Bench, Figure
from benchmarks.ours import OURS
from benchmarks.turns import cpu_in_turn, in_turn

SERVERS = (OURS["skserve"], OURS["skserve-no-page"])
STARTS, FEW = 15, 2


def page(name: str, bench: Bench) -> Iterator[Figure]:
    """Compare a server with its page and one without, by medians of turns."""
    if not bench.first:
        return
    case = bench.case("iris")
    starts: dict[str, list[float]] = {one.name: [] for one in SERVERS}
    held: dict[str, list[float]] = {one.name: [] for one in SERVERS}
    for order in in_turn(SERVERS, FEW if bench.quick else STARTS):
        for server in order:
            with bench.serving(server, case) as running:
                starts[server.name].append(running.ready)
                running.check()
                held[server.name].append(measure.pss(running.tree()))
    with ExitStack() as all_of_them:
        running_both = [all_of_them.enter_context(bench.serving(one, case)) for one in SERVERS]
        spent = cpu_in_turn(running_both, bench)
    for which, cpu in spent.items():
        seconds, pss = statistics.median(starts[which]), statistics.median(held[which])
        values = {"seconds": seconds, "pss_mib": pss, "cpu_us": cpu}
        yield Figure(name, which, "in turn", values)
