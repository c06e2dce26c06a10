"""An older commit of ours as a server of its own, and today's beside it.

Each of the two is first started by itself, in turn: how soon it answers, and what it holds. Then
both run at the same time and are asked in turn, so that what else the machine does hits both
alike. What counts is the median of the turns' ratios.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import measure
from benchmarks.bench import Bench, Figure, closed, started
from benchmarks.environments import environment
from benchmarks.load import Load
from benchmarks.ours import OURS
from benchmarks.servers import ROOT, Failed, Server, serving
from benchmarks.turns import in_turn

LOAD = Load(8)
TURNS = 5
WORKS = ("iris", "forest", "boosting", "mixed")


@dataclass(frozen=True)
class Older:
    """A server of an older commit, and the Python of its environment and of today's."""

    server: Server
    python: Path
    todays: Path


def prepare(commit: str, cache: Path) -> Older:
    """Unpack a commit, and install what its lock and today's name. Raises Failed."""
    full = _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").decode().strip()
    if not full:
        raise Failed(f"{commit} is no commit of this repository; a shallow clone lacks the older")
    tree = cache / "older" / full[:12]
    if not (tree / "complete").exists():
        with tarfile.open(fileobj=io.BytesIO(_git("archive", full))) as packed:
            packed.extractall(tree, filter="data")
        (tree / "complete").touch()
    lock, ours = Path("requirements", "serve-1.9.txt"), OURS["skserve"]
    python = environment(tree / ".venv", tree / lock)
    todays = environment(cache / "today" / ".venv", ROOT / lock)
    server = replace(
        ours,
        name=f"skserve-{commit}",
        environ=lambda setup: {**ours.environ(setup), "PYTHONPATH": str(tree / "container")},
    )
    return Older(server, python, todays)


def _git(*words: str) -> bytes:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, check=False).stdout


def run(bench: Bench, older: Older, works: tuple[str, ...]) -> Iterator[tuple[int, Figure]]:
    """Measure the works on both servers, turn by turn; yield the turn and its figures."""
    for work in works:
        try:
            yield from _compared(bench, older, work)
        except Exception as error:
            bench.failed(work, "skserve", error)


def _compared(bench: Bench, older: Older, work: str) -> Iterator[tuple[int, Figure]]:
    case = bench.case(work)
    turns = 1 if bench.quick else TURNS
    servers = (OURS["skserve"], older.todays), (older.server, older.python)
    logs = bench.cache / "logs"
    for turn, order in enumerate(in_turn(servers, turns), 1):
        for server, python in order:
            with serving(server, case, logs, python=python) as running:
                yield turn, Figure(work, server.name, "a start", started(running))
    with ExitStack() as stack:
        pair = [
            stack.enter_context(serving(server, case, logs, python=python))
            for server, python in servers
        ]
        for running in pair:
            running.check()
        for turn, asked in enumerate(in_turn(pair, turns), 1):
            for running in asked:
                figure = Figure(work, running.server.name, str(LOAD), closed(running, LOAD, bench))
                measure.settle(running.process.pid, 5)
                yield turn, figure
        for running in pair:
            running.check()
