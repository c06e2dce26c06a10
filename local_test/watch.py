"""What `watch.sh` shows: the difference between two scrapes of /metrics, once a second.

usage: watch.py [--once] [URL]
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

try:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError:
    sys.exit("watch.sh: rich is missing; pip install --require-hashes -r requirements/deploy.txt")

PAUSE = 1.0  # seconds between two scrapes
STAGES = ("decode", "queue", "predict", "encode", "total")

_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Scrape:
    """The numbers of one scrape, by name and labels, and when it was taken, in seconds."""

    at: float
    numbers: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @classmethod
    def take(cls, url: str) -> Scrape:
        """Raises OSError where the server does not answer."""
        with urllib.request.urlopen(url + "/metrics", timeout=5) as answer:
            text = answer.read().decode()
        numbers = {}
        for line in text.splitlines():
            if (sample := _SAMPLE.fullmatch(line)) is not None:
                labels = frozenset(_LABEL.findall(sample[2] or ""))
                numbers[sample[1], labels] = float(sample[3])
        return cls(time.monotonic(), numbers)

    def of(self, name: str, **labels: str) -> float:
        """Return one number; 0 where there is none."""
        return self.numbers.get((name, frozenset(labels.items())), 0.0)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the numbers of one metric by the value of its label."""
        return {
            dict(labels)[label]: one for (at, labels), one in self.numbers.items() if at == name
        }


def quantile(share: float, before: Scrape, after: Scrape, stage: str) -> float | None:
    """Return the seconds below which that share of the requests stayed between two scrapes.

    Within a bucket, times are taken to be spread evenly; None where there was no request.
    """
    name = "skserve_request_seconds_bucket"
    bounds = sorted(
        (float(dict(labels)["le"]), number - before.numbers.get((at, labels), 0.0))
        for (at, labels), number in after.numbers.items()
        if at == name and dict(labels)["stage"] == stage
    )
    if not bounds or bounds[-1][1] <= 0:
        return None
    rank, lower, below = share * bounds[-1][1], 0.0, 0.0
    for bound, count in bounds:
        if count >= rank:
            inside = (rank - below) / (count - below) if count > below else 0.0
            return lower if bound == float("inf") else lower + (bound - lower) * inside
        lower, below = bound, count
    return lower


def shown(before: Scrape, after: Scrape) -> Group:
    """Lay out what happened between two scrapes, and what is so at the second."""
    seconds = max(after.at - before.at, 1e-9)
    now, then = (one.by("skserve_requests_total", "status") for one in (after, before))
    rates = {status: (count - then.get(status, 0.0)) / seconds for status, count in now.items()}
    said = "  ".join(f"{status}: {rate:,.1f}" for status, rate in rates.items() if rate)
    memory = after.by("skserve_memory_bytes", "kind")
    ends = after.by("skserve_worker_ends_total", "reason")
    lines = [
        f"requests/s  {sum(rates.values()):,.1f}   {said}",
        f"in progress {after.of('skserve_requests_in_progress'):.0f}, "
        f"waiting {after.of('skserve_requests_waiting'):.0f}",
        f"memory      {sum(memory.values()) / 2**20:,.0f} MiB, of which shared "
        f"{memory.get('shared', 0) / 2**20:,.0f}",
        f"workers     {after.of('skserve_workers'):.0f}, "
        f"{'ready' if after.of('skserve_ready') else 'not ready'}   "
        + "  ".join(f"{reason}: {count:.0f}" for reason, count in ends.items() if count),
    ]
    table = Table("stage", "p50 ms", "p99 ms")
    for stage in STAGES:
        figures = [quantile(share, before, after, stage) for share in (0.5, 0.99)]
        table.add_row(stage, *("-" if one is None else f"{one * 1e3:,.2f}" for one in figures))
    return Group(*map(Text, lines), table)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="watch.sh")
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
    parser.add_argument("--once", action="store_true", help="print one second and end")
    given = parser.parse_args(arguments)
    console, url = Console(), given.url.rstrip("/")
    try:
        before = Scrape.take(url)
        if given.once:
            time.sleep(PAUSE)
            console.print(shown(before, Scrape.take(url)))
            return 0
        with Live(console=console, auto_refresh=False) as live:
            while True:
                time.sleep(PAUSE)
                after = Scrape.take(url)
                live.update(shown(before, after), refresh=True)
                before = after
    except (OSError, urllib.error.URLError) as error:
        print(f"watch.sh: {url}/metrics does not answer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
