"""usage: python -m benchmarks [--peers NAMES] [--works NAMES] [--out FILE] ...

Measures our server, and the peers where told to, in one run on a machine that has nothing else to
do. Prints every figure and every target; writes them as JSON too. Exits with 1 if our own server
failed or answered wrongly, 0 otherwise: a target that is missed is a result.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import load, older, report, targets
from benchmarks.bench import Bench
from benchmarks.peers import PEERS, install
from benchmarks.servers import ROOT, Failed
from benchmarks.works import WORKS, run

PACKAGES = ("scikit-learn", "numpy", "scipy", "flask", "gunicorn", "orjson", "pandas")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--peers", default="", help=f"some of {','.join(PEERS)}; or all")
    parser.add_argument("--works", default="", help=f"some of {','.join(WORKS)}")
    parser.add_argument("--older", default="", help="a commit, to run beside today's server")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--cache", type=Path, default=Path("build"), help="models, peers, logs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="one round of a second: no figures")
    given = parser.parse_args(arguments)
    peers = _names(parser, ",".join(PEERS) if given.peers == "all" else given.peers, PEERS)
    every = dict.fromkeys(older.WORKS) if given.older else WORKS
    works = _names(parser, given.works or ",".join(every), every)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every server is ended
    rounds = 1 if given.quick else given.rounds
    bench = Bench(
        given.cache.resolve(), seconds=min(1, given.seconds) if given.quick else given.seconds
    )
    bench.quick = given.quick
    if lacking := _lacking(peers):
        parser.error(lacking)
    if not load.WRK:
        print("wrk is not installed: the Python generator asks instead, less quickly.")
    bench.peers = tuple(name for name in peers if _installed(bench, name))
    beside = older.prepare(given.older, bench.cache) if given.older else None
    figures = []
    turns = older.run(bench, beside, works) if beside else run(bench, works, rounds)
    for number, figure in turns:
        figures.append(asdict(figure) | {"round": number})
        print(f"  {_line(figure.server, figure.load, figure.values)}", file=sys.stderr, flush=True)
    described = describe(bench, rounds) | ({"older": beside.server.name} if beside else {})
    result = report.Result({"run": described, "figures": figures, "failures": bench.failures})
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result.whole, indent=1) + "\n")
    print(report.text(result, targets.rows(result)))
    return int(any(one["server"] not in PEERS for one in bench.failures))


def _lacking(peers: Sequence[str]) -> str:
    """Say which programs of this machine the peers need and do not find; nothing if all are."""
    needs = {name: [one for one in PEERS[name].needs if not shutil.which(one)] for name in peers}
    lacking = [f"{' and '.join(needs[name])} (for {name})" for name in peers if needs[name]]
    found = ",".join(name for name in peers if not needs[name])
    way_out = f", or leave these out: PEERS={found}" if found else ""
    return f"install {', '.join(lacking)}{way_out}" if lacking else ""


def _names(parser: argparse.ArgumentParser, text: str, known: dict[str, Any]) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    for name in names:
        if name not in known:
            parser.error(f"{name!r} is none of {', '.join(known)}")
    return names


def _installed(bench: Bench, name: str) -> bool:
    """Install a peer before anything is measured; one that cannot be is left out."""
    try:
        install(name, bench.cache)
    except (Failed, OSError) as error:
        bench.failed("install", name, error)
        return False
    return True


def _line(server: str, under: str, values: Any) -> str:
    numbers = (f"{name} {report.shown(number)}" for name, number in values.items())
    return f"{server:16} {under:12} {', '.join(numbers)}"


def describe(bench: Bench, rounds: int) -> dict[str, Any]:
    """Return what a figure depends on: machine, versions, commit, and how it was measured."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return {
        "machine": f"{model}, {cores} cores, {memory:.0f} GiB, Linux {platform.release()}",
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "generator": "wrk" if bench.wrk else "benchmarks.load",
        "peers": bench.peers,
        "rounds": rounds,
        "seconds": bench.seconds,
        "quick": bench.quick,
    }


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
