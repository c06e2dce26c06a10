"""What a run of checks prints: its progress, then the table or JSON."""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

from skserve.selftest.verdict import WORDS, Verdict


class Row(NamedTuple):
    """A check that applied, and what it said."""

    check: str
    verdict: Verdict


def progress(text: str) -> None:
    """Say what is done now: on one line that is written over on a terminal, else on a line each."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(f"selftest: {text}", file=sys.stderr, flush=True)


def _counted(rows: list[Row]) -> dict[str, int]:
    return {word: sum(row.verdict.word == word for row in rows) for word in WORDS}


def as_data(rows: list[Row], took: float) -> dict[str, Any]:
    """Return how often each word came, the seconds of the run, and each check."""
    checks = [{"check": row.check, **row.verdict._asdict()} for row in rows]
    return {**_counted(rows), "seconds": round(took, 1), "checks": checks}


def as_json(rows: list[Row], took: float) -> str:
    return json.dumps(as_data(rows, took), indent=1)


def as_text(rows: list[Row], took: float) -> str:
    width = max(len(row.check) for row in rows)
    lines = []
    for check, (word, sentence, way_out) in rows:
        lines.append(f"{word}  {check:<{width}}  {sentence}")
        if way_out:
            lines.append(f"{'':{width + 8}}{way_out}")
    counts = ", ".join(f"{count} {word}" for word, count in _counted(rows).items())
    return "\n".join([*lines, f"{len(rows)} checks in {took:.0f} s: {counts}"])
