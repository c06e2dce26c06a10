"""The tables: every figure, and every target beside what was measured.

usage: python -m benchmarks.report RESULT.json      prints the targets as Markdown, for the README
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

BEST_PEER = "best peer"

# Of several rounds the quickest counts, for every server: other work on a machine only slows down.
# Where that would hide a fault, the worst counts.
BETTER = {"rps": max, "cpus": max, "goodput": max}
WORSE = {"share": max, "errors": max, "ping_ms": max, "lost": max, "of_data": max, "pss_mib": max}

UNITS = {
    "rps": "requests/s",
    "p50_ms": "ms, median",
    "p99_ms": "ms, p99",
    "cpu_us": "CPU µs/request",
    "seconds": "s",
    "pss_mib": "MiB",
    "cpus": "CPUs in use",
    "share": "of the CPU time, busiest worker",
    "of_data": "of the data's size",
    "refused_ms": "ms until a 503, median",
    "ping_ms": "ms, the slowest ping",
    "goodput": "of the best throughput",
    "lost": "requests without an answer",
}


@dataclass(frozen=True)
class Pick:
    """Which figure: of a server, in a work, under a load; `value` is one of UNITS."""

    server: str
    work: str
    load: str
    value: str

    def of(self, result: Result) -> tuple[str, float] | None:
        """Return whose figure it is, and the figure; None where it was not measured."""
        servers = result.peers if self.server == BEST_PEER else (self.server,)
        choose = {**BETTER, **WORSE}.get(self.value, min)
        found = []
        for server in servers:
            seen = result.values(server, self.work, self.load, self.value)
            if seen:
                found.append((choose(seen), server))
        if not found:
            return None
        number, server = BETTER.get(self.value, min)(found)
        return server, number


@dataclass(frozen=True)
class Target:
    """Ours must be at least (`least`) or at most a multiple of another figure, `plus` so much."""

    work: str
    ours: Pick
    bound: float
    other: Pick | None = None  # None: the bound is the figure itself
    least: bool = False
    plus: float = 0.0

    def row(self, result: Result) -> list[str]:
        ours, other = self.ours.of(result), self.other and self.other.of(result)
        against = other[1] if other else None if self.other else 1.0
        sign = "≥" if self.least else "≤"
        wanted = f"{sign} {self.bound:g}" + f" ×{f' + {self.plus:g}' if self.plus else ''}" * bool(
            self.other
        )
        reached, ratio = "not measured", "–"
        if ours is not None and against is not None:
            allowed = self.bound * against + self.plus
            held = ours[1] >= allowed if self.least else ours[1] <= allowed
            reached = "yes" if held else "no"
            ratio = f"{ours[1] / against:.2f}" if self.other and against else "–"
        return [
            f"{self.work}, {UNITS[self.ours.value]}",
            shown(ours[1]) if ours else "–",
            f"{shown(other[1])} {other[0]}" if other else "–",
            ratio,
            wanted,
            reached,
        ]


class Result:
    """A run, as it is written to its JSON file."""

    def __init__(self, whole: dict[str, Any]) -> None:
        self.whole = whole
        self.peers: tuple[str, ...] = tuple(whole["run"]["peers"])
        self._by_place: dict[tuple[str, str, str], list[dict[str, float]]] = {}
        for one in whole["figures"]:
            place = one["server"], one["work"], one["load"]
            self._by_place.setdefault(place, []).append(one["values"])

    @property
    def places(self) -> list[tuple[str, str, str]]:
        """The server, work and load of every figure."""
        return list(self._by_place)

    def values(self, server: str, work: str, load: str, value: str) -> list[float]:
        """Return that figure of every round; an answerless round has no latency and no CPU."""
        seen = self._by_place.get((server, work, load), [])
        return [one[value] for one in seen if value in one and one.get("rps", 1) > 0]

    def rows(self) -> list[list[str]]:
        """Return every figure, the best of its rounds."""
        rows = []
        for server, work, load in self._by_place:
            cells = [work, load, server]
            for value in VALUES:
                found = Pick(server, work, load, value).of(self)
                cells.append(shown(found[1]) if found else "")
            rows.append(cells)
        return rows


def shown(number: float) -> str:
    """Write a number with about three digits."""
    if number == 0 or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def _pick(work: str, load: str, value: str, server: str = "skserve") -> Pick:
    return Pick(server, work, load, value)


def _ratios(
    label: str, work: str, load: str, *bounds: tuple[str, str, float, bool], ours: str = "skserve"
) -> list[Target]:
    """Make targets of one load: (value, other server, bound, at least)."""
    return [
        Target(label, _pick(work, load, value, ours), bound, _pick(work, load, value, other), least)
        for value, other, bound, least in bounds
    ]


IRIS, FOREST = "iris, logistic regression, 8 callers", "random forest of 100 trees"
BOOSTING, NEAR = "scaler and boosting", "cosine neighbours, 180,000 × 300"
MANY = "100 iris pipelines in one server"
TARGETS = [
    *_ratios(IRIS, "iris", "8 callers", ("rps", "aws", 3, True), ("rps", "fastapi", 1, True)),
    *_ratios(
        IRIS, "iris", "8 callers", ("cpu_us", "aws", 0.3, False), ("cpu_us", "fastapi", 0.75, False)
    ),
    *_ratios(
        f"{IRIS}, no log in either",
        "iris",
        "8 callers",
        ("rps", "fastapi", 1, True),
        ("cpu_us", "fastapi", 0.75, False),
        ("cpu_us", "empty-flask", 1.35, False),
        ours="skserve-quiet",
    ),
    Target(f"{IRIS}, with its log", _pick("iris", "8 callers", "cpu_us"), 150),
    Target(IRIS, _pick("iris", "8 callers", "share"), 0.6),
    *(
        Target(
            f"iris, 8 callers in turn, {what}",
            _pick("telling", "8 callers, in turn", "cpu_us", ours),
            bound,
            _pick("telling", "8 callers, in turn", "cpu_us", other),
        )
        for what, ours, bound, other in (
            ("metrics, beside the log alone", "skserve", 1.04, "skserve-no-metrics"),
            ("metrics, beside neither", "skserve-quiet", 1.04, "skserve-silent"),
            ("metrics and log, beside neither", "skserve", 1.15, "skserve-silent"),
        )
    ),
    Target("a scrape of /metrics, idle", _pick("telling", "a scrape, idle", "p50_ms"), 50),
    Target("a scrape, 8 callers", _pick("telling", "a scrape, 8 callers", "p50_ms"), 200),
    *(
        Target(
            f"iris, the page beside SKSERVE_PAGE=off, {what}",
            _pick("page", "in turn", value),
            1.03,
            _pick("page", "in turn", value, "skserve-no-page"),
        )
        for what, value in (("start", "seconds"), ("memory", "pss_mib"), ("8 callers", "cpu_us"))
    ),
    *_ratios(f"{FOREST}, 8 callers", "forest", "8 callers", ("rps", "aws", 8, True)),
    *_ratios(f"{FOREST}, 64 callers", "forest", "64 callers", ("rps", "aws", 10, True)),
    *_ratios(f"{FOREST}, 8 callers", "forest", "8 callers", ("cpu_us", "aws", 0.12, False)),
    *_ratios(f"{FOREST}, 64 callers", "forest", "64 callers", ("cpu_us", "aws", 0.12, False)),
    *_ratios(f"{FOREST}, 1 caller", "forest", "1 caller", ("p50_ms", "aws", 0.2, False)),
    *_ratios(f"{BOOSTING}, 8 callers", "boosting", "8 callers", ("rps", BEST_PEER, 1.4, True)),
    *_ratios(f"{BOOSTING}, 64 callers", "boosting", "64 callers", ("rps", BEST_PEER, 1.4, True)),
    *(
        Target(
            f"{BOOSTING}, {load} beside 8",
            _pick("boosting", load, "rps"),
            0.8,
            _pick("boosting", "8 callers", "rps"),
            least=True,
        )
        for load in ("64 callers", "256 callers")
    ),
    Target(
        f"{NEAR}, 1 caller",
        _pick("neighbours", "1 caller", "p50_ms"),
        0.08,
        _pick("in-process", "1 caller", "p50_ms", "in-process scikit-learn"),
    ),
    *_ratios(f"{NEAR}, 8 callers", "neighbours", "8 callers", ("rps", BEST_PEER, 25, True)),
    *_ratios(f"{NEAR}, 64 callers", "neighbours", "64 callers", ("rps", BEST_PEER, 25, True)),
    *(
        Target(
            f"10,000 × 30 in {kind}, linear model",
            _pick("tables", kind, "p50_ms"),
            1.4,
            _pick("tables", kind, "p50_ms", f"in-process {kind.lower()}"),
        )
        for kind in ("CSV", "JSON")
    ),
    Target(
        "start to the first good prediction, iris",
        _pick("start", "start", "seconds"),
        1.1,
        _pick("start", "start", "seconds", "joblib.load alone"),
        plus=0.15,
    ),
    *_ratios("memory, iris, 2 workers", "iris", "memory", ("pss_mib", "aws", 0.45, False)),
    *(
        Target(
            f"memory, {model}, {workers} workers, beyond iris",
            _pick("memory", f"{model}, {workers} workers", "of_data"),
            bound,
        )
        for model, bound in (("neighbours", 1.6), ("neighbours compressed", 2.0))
        for workers in (2, 4)
    ),
    Target(f"{MANY}, each", _pick("many", "each model", "pss_mib", "skserve-many"), 9),
    Target(
        f"{MANY}, load to the first answer, median",
        _pick("many", "each model", "seconds", "skserve-many"),
        0.15,
    ),
    Target(
        f"{MANY}, a call, beside the model alone",
        _pick("many", "1 caller", "p50_ms", "skserve-many"),
        1,
        _pick("many", "1 caller", "p50_ms"),
        plus=0.3,
    ),
    Target(
        "8 hot models of many",
        _pick("many", "8 hot models", "cpus", "skserve-many"),
        1.6,
        least=True,
    ),
]


def targets(result: Result) -> list[list[str]]:
    """Return the rows of the works that were measured, reached or not."""
    measured = {one["work"] for one in result.whole["figures"]}
    return [one.row(result) for one in TARGETS if one.ours.work in measured]


RATIOS_HEAD = ["work", "load", "value", "ours", "older", "ratio", "of the turns"]


def ratios(result: Result) -> list[list[str]]:
    """Return today's server beside an older commit's: medians, and the turns' own ratios."""
    older = result.whole["run"].get("older")
    rows = []
    for server, work, load in result.places if older else ():
        for value in ("cpu_us", "rps") if server == "skserve" else ():
            ours = result.values(server, work, load, value)
            theirs = result.values(older, work, load, value)
            if not ours or not theirs:
                continue
            turns = sorted(one / other for one, other in zip(ours, theirs, strict=False))
            cells = [shown(median(ours)), shown(median(theirs)), f"{median(turns):.3f}"]
            rows.append([work, load, UNITS[value], *cells, f"{turns[0]:.3f} to {turns[-1]:.3f}"])
    return rows


VALUES = {
    "rps": "req/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "cpu_us": "CPU µs/req",
    "pss_mib": "PSS MiB",
    "seconds": "s",
    "cpus": "CPUs",
    "refused_ms": "503 ms",
    "ping_ms": "ping ms",
    "goodput": "of best",
    "lost": "lost",
    "errors": "errors",
}
FIGURES_HEAD = ["work", "load", "server", *VALUES.values()]
TARGETS_HEAD = ["work", "ours", "compared with", "ratio", "target", "reached"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out for a terminal; columns of numbers stand right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    right = [column for column in range(len(head)) if _numbers(line[column] for line in lines[1:])]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _numbers(cells: Iterable[str]) -> bool:
    return all(not cell.strip("–") or cell[0].isdecimal() for cell in cells)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text(result: Result) -> str:
    """Return the whole report."""
    run = result.whole["run"]
    parts = [
        f"{run['machine']}; commit {run['commit']}; {run['when']}",
        table(FIGURES_HEAD, result.rows()),
        table(TARGETS_HEAD, targets(result)),
    ]
    if beside := ratios(result):
        parts[2] = table(RATIOS_HEAD, beside)
    failures = result.whole["failures"]
    if failures:
        lines = (f"{one['work']}, {one['server']}: {one['why']}" for one in failures)
        parts.append("Failed:\n" + "\n".join(lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(markdown(TARGETS_HEAD, targets(Result(json.loads(Path(sys.argv[1]).read_text())))))
