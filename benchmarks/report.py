"""The tables: every figure, and every target beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

BEST_PEER = "best peer"

# Of several peers the best counts. Of several rounds the median does, for every server; where that
# would hide a fault, the worst.
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
    "sent_p99_ms": "ms, p99 since it was sent",
    "refused_ms": "ms until a 503, median",
    "ping_ms": "ms, the slowest ping",
    "goodput": "of the best throughput",
    "lost": "requests without an answer",
    "loop_ms": "ms, the fixed loop",
}

# The server of the fixed loop's figures, and how much slower than the quickest a quiet one may be.
MACHINE, QUIET = "the machine", 1.1


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
        choose = WORSE.get(self.value, median)
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

    @property
    def noise(self) -> str:
        """Say how long the fixed loop of work took before and after each round."""
        took = self._loops()
        if not took:
            return "The machine's noise was not measured."
        said = "quiet" if self.quiet else "noisy: its figures are no measure"
        loops = ", ".join(f"{one:.1f}" for one in took)
        return f"A fixed loop of work took {loops} ms before and after the rounds: {said}."

    @property
    def quiet(self) -> bool:
        """Whether the fixed loop took as long each time, and was not held up by other work."""
        took = self._loops()
        return bool(took) and max(took) <= QUIET * min(took)

    def _loops(self) -> list[float]:
        return [
            one["values"]["loop_ms"] for one in self.whole["figures"] if one["server"] == MACHINE
        ]

    def rows(self) -> list[list[str]]:
        """Return every figure, of its rounds the one that counts."""
        rows = []
        for server, work, load in self._by_place:
            if server == MACHINE:
                continue
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


RATIOS_HEAD = ["work", "load", "value", "ours", "older", "ratio", "of the turns"]


def ratios(result: Result) -> list[list[str]]:
    """Return today's server beside an older commit's: medians, and the turns' own ratios."""
    older = result.whole["run"].get("older")
    rows = []
    for server, work, load in result.places if older else ():
        for value in ("cpu_us", "rps", "seconds", "pss_mib") if server == "skserve" else ():
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
    "sent_p99_ms": "sent p99 ms",
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


def text(result: Result, targets: Iterable[Sequence[str]]) -> str:
    """Return the whole report, with the rows of the targets."""
    run = result.whole["run"]
    parts = [
        f"{run['machine']}; commit {run['commit']}; {run['when']}\n{result.noise}",
        table(FIGURES_HEAD, result.rows()),
        table(TARGETS_HEAD, targets),
    ]
    if beside := ratios(result):
        parts[2] = table(RATIOS_HEAD, beside)
    failures = result.whole["failures"]
    if failures:
        lines = (f"{one['work']}, {one['server']}: {one['why']}" for one in failures)
        parts.append("Failed:\n" + "\n".join(lines))
    return "\n\n".join(parts)
