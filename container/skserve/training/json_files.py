"""JSON Lines files of a channel: lists, or objects that name the columns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skserve.errors import StartError
from skserve.training.cells import Rows, gathered
from skserve.training.dataset import Channel


def read_json_lines(
    paths: list[Path], channel: Channel, target: Any
) -> tuple[Any, list[str] | None]:
    _, first = next(_json_rows(paths), ("", []))
    names = [str(name) for name in first] if isinstance(first, dict) else None
    return gathered(lambda: _listed(_json_rows(paths), names), names, _typed)


def _json_rows(paths: list[Path]) -> Iterator[tuple[str, Any]]:
    for path in paths:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path.name}, line {number}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise StartError(f"{where} is not JSON: {error}.") from error
                if not isinstance(row, list | dict):
                    raise StartError(f"{where} is no list and no object.")
                yield where, row


def _listed(rows: Iterator[tuple[str, Any]], names: list[str] | None) -> Rows:
    """Put the values of objects into the order of the first one; what it lacks is missing."""
    for where, row in rows:
        if isinstance(row, list) != (names is None):
            raise StartError(f"{where}: lists and objects are mixed.")
        if names is not None:
            if unknown := sorted(row.keys() - set(names)):
                raise StartError(
                    f"{where} has {', '.join(unknown[:5])}, which the first object has not."
                )
            row = [row.get(name) for name in names]
        yield where, row


def _typed(cell: Any) -> float:
    """Read a JSON value as a number: null is missing, and a string is never a number."""
    if cell is None:
        return math.nan
    if isinstance(cell, str | list | dict):
        raise ValueError
    return float(cell)
