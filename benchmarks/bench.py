"""One run of the benchmarks, and what it finds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load, measure, models
from benchmarks.load import Load
from benchmarks.ours import OURS, PYTHON
from benchmarks.peers import PEERS, install
from benchmarks.servers import Running, Server, serving


@dataclass(frozen=True)
class Figure:
    """What one server did under one load; `values` by the names that `report` knows."""

    work: str
    server: str
    load: str
    values: Mapping[str, float]


@dataclass
class Bench:
    """One run: how long, where things are kept, which peers, and what has failed so far."""

    cache: Path
    peers: tuple[str, ...] = ()
    seconds: float = 3.0
    quick: bool = False
    first: bool = True  # the first round; some works need no second
    wrk: str | None = load.WRK
    failures: list[dict[str, str]] = field(default_factory=list)

    def case(self, name: str) -> models.Case:
        return models.case(name, self.cache, self.quick)

    def servers(self, ours: tuple[str, ...], named: bool) -> list[Server]:
        """Return our own servers and the peers, of `named` columns those that take them."""
        peers = [PEERS[name] for name in self.peers]
        return [OURS[name] for name in ours] + [one for one in peers if one.named or not named]

    def serving(self, server: Server, case: models.Case, **more: object):
        peer = server.name.removesuffix("-many")
        python = install(peer, self.cache) if peer in PEERS else PYTHON
        return serving(server, case, self.cache / "logs", python=python, **more)  # type: ignore[arg-type]

    def failed(self, work: str, server: str, error: Exception) -> None:
        self.failures.append({"work": work, "server": server, "why": str(error)})
        print(f"  {work}: {server} failed: {error}", file=sys.stderr, flush=True)


def closed(running: Running, one: Load, bench: Bench, longer: float = 1.0) -> dict[str, float]:
    """Drive a server, and say what came of it and what it cost."""
    seconds = bench.seconds * longer
    before = running.tree()
    outcome = load.run(running.order(), one, seconds, bench.wrk)
    after = running.tree()
    return cost(outcome, before, after) | {
        "share": max(measure.shares(before, after, running.process.pid), default=1.0)
    }


def cost(
    outcome: load.Outcome, before: list[measure.Process], after: list[measure.Process]
) -> dict[str, float]:
    """Return an outcome's figures, and the CPU time of each request between two looks."""
    spent = measure.cpu_seconds(after) - measure.cpu_seconds(before)
    return {
        "rps": outcome.requests / outcome.seconds,
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "cpu_us": 1e6 * spent / max(1, outcome.requests),
        "errors": outcome.errors,
    }


def started(running: Running) -> dict[str, float]:
    """Return how soon a server has answered, and what it holds once every worker has."""
    running.check()
    return {"seconds": running.ready, "pss_mib": measure.pss(running.tree())}
