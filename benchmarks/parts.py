"""Where the CPU time of one request goes, by the part of the server that spends it.

usage: python -m benchmarks.parts [--cache DIR]

Serves iris with one worker under cProfile, 8 callers, and adds up the time that each function took
itself. A profiler makes many small calls look dearer than they are, so the shares count, not the
seconds.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from benchmarks import load
from benchmarks.bench import Bench
from benchmarks.load import Load
from benchmarks.ours import OURS
from benchmarks.servers import Setup

OUT = "BENCH_PROFILE"  # the folder that a profiled worker writes to

# The first that is in a function's name, as pstats has it, says whose time it was.
PARTS = {
    "'poll'": "waiting in epoll, and its system call",
    "'recv'": "reading and writing the socket",
    "'send'": "reading and writing the socket",
    "posix.write": "writing the line of the log",
    "skserve/telemetry": "making the line of the log",
    "skserve/logs": "making the line of the log",
    "skserve/region": "counting for /metrics",
    "httptools": "the head of the request",
    "serving/connection": "the head of the request",
    "serving/head": "the head of the request",
    "serving/responses": "the head of the answer",
    "serving/inline": "skserve: the call",
    "skserve/serving": "skserve: the worker",
    "flask": "flask",
    "werkzeug": "flask",
    "skserve/scheduling": "skserve: the call",
    "skserve/inference": "skserve: the call",
    "estimators/accelerate": "skserve: the prediction",
    "numpy": "skserve: the prediction",
    "skserve": "skserve: from JSON to X, from y to JSON",
    "orjson": "skserve: from JSON to X, from y to JSON",
}
OTHERS = "Python's own modules"


def serve() -> None:
    """Serve as ever, each worker under a profiler."""
    from skserve import __main__
    from skserve.serving import worker

    run = worker.Worker.run

    def profiled(self: worker.Worker) -> None:
        profile = cProfile.Profile(time.thread_time)
        profile.enable()
        try:
            run(self)
        finally:
            profile.disable()
            profile.dump_stats(Path(os.environ[OUT]) / str(os.getpid()))

    worker.Worker.run = profiled  # type: ignore[method-assign]
    __main__.end(__main__.main(sys.argv[1:], os.environ))


def measured(cache: Path, seconds: float = 5) -> tuple[Counter[str], int]:
    """Return the seconds of each part, and the requests."""
    found: Counter[str] = Counter()

    def command(setup: Setup) -> list[str]:
        return [sys.executable, "-m", "benchmarks.parts", "serve"]

    bench = Bench(cache)
    out = cache / "profile"
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    server = replace(OURS["skserve"], start=command)
    case = bench.case("iris")
    with bench.serving(server, case, workers=1, environ={OUT: str(out)}) as running:
        requests = load.run(running.order(), Load(8), seconds).requests
        running.process.terminate()
        running.process.wait(30)
    (written,) = out.iterdir()
    for function, (*_, own, _, callers) in pstats.Stats(str(written)).stats.items():  # type: ignore[attr-defined]
        if whose := part_of(function):
            found[whose] += own
        else:  # a function in C, or of Python's library: the time of those that call it
            for caller, (*_, for_it, _) in callers.items():
                found[part_of(caller) or OTHERS] += for_it
    return found, requests


def part_of(function: tuple[str, int, str]) -> str | None:
    path, _, name = function
    return next((part for word, part in PARTS.items() if word in f"{path} {name}"), None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the CPU time of one request goes.")
    parser.add_argument("--cache", type=Path, default=Path("build"))
    found, requests = measured(parser.parse_args().cache.resolve())
    total = sum(found.values())
    print(f"{requests:,} requests, {1e6 * total / requests:.0f} µs each under the profiler\n")
    for part, seconds in found.most_common():
        print(f"{part:40}{100 * seconds / total:5.1f} %")


if __name__ == "__main__":
    serve() if sys.argv[1:2] == ["serve"] else main()
