"""Rows to send: made from what the server says of its model, or read from the user's file."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skserve.formats.media_types import CSV, JSON, JSON_LINES, NPY, NPZ

ROWS = 16

# Numbers that float32 holds exactly, of several sizes, so that a column's place is seen in answers.
_SPREAD = (0.25, 0.5, 1.0, 1.5, 2.0, 3.5, 5.0, 6.5, 9.0, 14.0, 40.0, 150.0, -0.5, -2.0, -7.0, -30.0)
_WORDS = ("good", "bad", "fine wine", "a longer text, with a comma", 'a "quoted" one', "ähnlich")

# Suffixes of the user's files.
MEDIA_TYPES = {
    ".json": JSON,
    ".csv": CSV,
    ".jsonl": JSON_LINES,
    ".npy": NPY,
    ".npz": NPZ,
}


@dataclass(frozen=True)
class Table:
    """Rows of cells as JSON has them; rows of a `text` model hold one text each."""

    rows: list[list[Any]]
    names: tuple[str, ...] | None = None
    text: bool = False

    @property
    def numeric(self) -> bool:
        """Whether every cell is a number."""
        return all(
            isinstance(cell, int | float) and not isinstance(cell, bool)
            for row in self.rows
            for cell in row
        )

    def at(self, row: int) -> Table:
        """Return one row as a table."""
        return replace(self, rows=[self.rows[row]])

    def with_rows(self, rows: list[list[Any]]) -> Table:
        return replace(self, rows=rows)


def made(about: dict[str, Any]) -> Iterator[Table]:
    """Yield tables that the model may take, the most telling first; none where it does not say.

    `about` is the answer of `GET /`. Some models refuse negative numbers, and some all but a few.
    """
    if about["input"] == "list of texts":
        yield Table([[_WORDS[at % len(_WORDS)]] for at in range(ROWS)], text=True)
        return
    columns = about["columns"]
    if not columns:
        return
    names = tuple(column["name"] for column in columns)
    named = None if None in names else names
    for numbers in (_SPREAD, tuple(map(abs, _SPREAD)), (0.25, 0.5, 1.0), (1.0,)):
        chance = random.Random(16)
        rows = [[_cell(column, numbers, chance) for column in columns] for _ in range(ROWS)]
        yield Table(rows, named)


def _cell(column: dict[str, Any], numbers: tuple[float, ...], chance: random.Random) -> Any:
    choices: dict[str, tuple[Any, ...]] = {
        "number": numbers,
        "integer": (0, 1, 2, 3, 5, 8),
        "boolean": (True, False),
        "text": ("text",),
        "category": (0, 1),
    }
    return chance.choice(column.get("values") or choices.get(column["type"], numbers))


def read(path: Path, about: dict[str, Any]) -> Table | None:
    """Read a table from the user's file; None where it is no list of rows, which a script may take.

    Raises ValueError where its suffix is not known, or its text is not what the suffix says.
    """
    kind = media_type(path)
    if kind in (NPY, NPZ):
        return None
    text = path.read_text("utf-8")
    if kind == CSV:
        return _of_csv(list(csv.reader(io.StringIO(text))), about)
    lines = text.splitlines() if kind == JSON_LINES else []
    document = [json.loads(line) for line in lines] if kind == JSON_LINES else json.loads(text)
    if not isinstance(document, list) or not document:
        return None
    if all(isinstance(row, str) for row in document):
        return Table([[row] for row in document], text=True)
    if all(isinstance(row, dict) and set(row) == set(document[0]) for row in document):
        return Table([[row[name] for name in document[0]] for row in document], tuple(document[0]))
    if all(isinstance(row, list) for row in document):
        names = tuple(column["name"] for column in about["columns"])
        return Table(document, None if None in names or not names else names)
    return None


def media_type(path: Path) -> str:
    """Return the media type of a file. Raises ValueError where its suffix is not known."""
    kind = MEDIA_TYPES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path.name} has none of the suffixes {', '.join(MEDIA_TYPES)}")
    return kind


def _of_csv(lines: list[list[str]], about: dict[str, Any]) -> Table | None:
    """Make a table of CSV; its first line is a header where it holds the names of the model."""
    names = tuple(column["name"] for column in about["columns"])
    header = bool(lines) and None not in names and set(names) <= set(lines[0])
    rows = lines[1:] if header else lines
    titles = tuple(lines[0]) if header else None if None in names or not names else names
    kinds = {column["name"]: column["type"] for column in about["columns"]}
    types = (
        [kinds.get(name, "any") for name in titles]
        if titles
        else [column["type"] for column in about["columns"]]
    )
    if about["input"] == "list of texts":
        return Table(rows, text=True)
    if not rows or any(len(row) != len(types) for row in rows):
        return None
    cells = [[_typed(cell, kind) for cell, kind in zip(row, types, strict=True)] for row in rows]
    return Table(cells, titles)


def _typed(cell: str, kind: str) -> Any:
    """Read a cell of CSV as JSON would spell it in a column of that type."""
    if not cell:
        return None
    if kind in ("text", "category"):
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        return cell
