"""From one cell of a body to the value that its column takes, or the words for one it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from skserve.errors import BadRequest, quote
from skserve.estimators.columns import Ambiguous, Column, meaning, to_number
from skserve.estimators.schema import Schema
from skserve.formats.table import Columns, Table


def converted(table: Table, schema: Schema, at: int, column: Column) -> list[Any]:
    """Convert one column: a list of n_rows values."""
    cells = _converted(table, schema, at, column)
    return column.rounded(np.array(cells)).tolist() if column.precision else cells


def _converted(table: Table, schema: Schema, at: int, column: Column) -> list[Any]:
    rows = table.rows
    cells = rows.columns[at] if isinstance(rows, Columns) else [row[at] for row in rows]
    plain = _plainly(cells, column, table.spelled)
    if plain is not None:
        return plain
    convert = _CONVERTERS[column.kind]
    values = []
    for number, row in enumerate(table.rows, table.first):
        try:
            values.append(convert(row[at], column, table.spelled))
        except Ambiguous as error:
            why, way_out = error.args
            raise BadRequest(
                f"Row {number}, column {place(schema.names, at)}: {kind_of(row[at])} can be a "
                f"text or another value; {why}.",
                way_out,
            ) from None
        except OverflowError:
            where = f"Row {number}, column {place(schema.names, at)}"
            raise BadRequest(f"{where}: {kind_of(row[at])} is too large.") from None
        except (ValueError, TypeError):
            where = f"Row {number}, column {place(schema.names, at)}"
            raise BadRequest(
                f"{where}: expected {_a(column.kind)}, got {kind_of(row[at])}.",
                column.refusal or _hint(row, at, column, table, number, schema),
            ) from None
    return values


def one_row(table: Table, schema: Schema) -> list[Any] | None:
    """Convert a table of one row, of a model whose `listed` columns are known; None for others."""
    rows, columns = table.rows, schema.columns
    if len(rows) != 1 or type(rows[0]) is not list or len(rows[0]) != len(columns):
        return None
    cells = rows[0].copy()
    taken = schema.taken if not table.spelled else (None,) * len(columns)
    for at, (cell, kind) in enumerate(zip(cells, taken, strict=True)):
        if type(cell) is not kind:
            (cells[at],) = converted(table, schema, at, columns[at])
    return cells


def _a(kind: str) -> str:
    """Name a kind of column with its article."""
    words = {"integer": "a whole number", "boolean": "true or false"}
    return words.get(kind, f"a {kind}")


def _plainly(cells: list[Any], column: Column, spelled: bool) -> list[Any] | None:
    """Convert cells that are alike, all at once; None where some have to be looked at one by one.

    It gives what `_number` and `_text` would; a test compares them.
    """
    kinds = set(map(type, cells))
    if column.kind == "number":
        if kinds == {float}:
            return cells
        try:
            if kinds <= {float, int, type(None)}:
                return [math.nan if cell is None else float(cell) for cell in cells]
            if not spelled or "_" in "".join(cells):
                return None
            return [float(cell) if cell else math.nan for cell in cells]
        except (ValueError, OverflowError):  # a word, or only spaces, or too large
            return None
    if column.kind != "text" or column.others:
        return None
    if kinds == {str}:
        return [cell or column.blank for cell in cells] if spelled and "" in cells else cells
    if kinds == {str, type(None)}:
        return [column.missing if cell is None else cell for cell in cells]
    return None


def place(names: Sequence[str] | None, at: int) -> str:
    """Say which column of a table is meant: by its name, or its number."""
    return repr(names[at]) if names else str(at + 1)


def _number(cell: Any, column: Column, spelled: bool) -> float:
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        if not (spelled or cell.strip()):
            raise ValueError  # an empty text of JSON is not a missing number
        return to_number(cell)
    return float(cell)


def _text(cell: Any, column: Column, spelled: bool) -> Any:
    """Return the learned value that a cell is or means, or the cell as it is."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return column.missing
    if spelled and not cell:
        return column.blank
    return column.learned(cell, spelled)


def _integer(cell: Any, column: Column, spelled: bool) -> Any:
    """Return a whole number, exactly, or NaN for a missing one."""
    if isinstance(cell, str):
        cell = meaning(cell) if cell.strip() else None
    if cell is None or cell != cell:
        return math.nan
    if not isinstance(cell, int | float) or cell != int(cell):
        raise ValueError
    return int(cell)


def _boolean(cell: Any, column: Column, spelled: bool) -> Any:
    """Return a bool, or NaN for a missing one. 0 and 1 are bools too."""
    whole = _integer(cell, column, spelled)
    if whole == whole and whole not in (0, 1):
        raise ValueError
    return bool(whole) if whole == whole else whole


def _unused(cell: Any, column: Column, spelled: bool) -> float:
    """Keep a number, in case a step reads the column after all; make anything else missing."""
    try:
        return _number(cell, column, spelled)
    except (ValueError, TypeError, OverflowError):
        return math.nan


def _any(cell: Any, column: Column, spelled: bool) -> Any:
    """Return the cell as it was sent; a missing one is NaN."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return column.missing
    if spelled and not cell:
        return column.blank
    return column.as_sent(cell, spelled)


def _category(cell: Any, column: Column, spelled: bool) -> Any:
    """Return the learned category that a cell is or means; what is unknown counts as missing."""
    if column.refusal:
        raise TypeError
    if not column.values:
        return _label(cell, column, spelled)
    found = _text(cell, column, spelled)
    if found in column.known:
        return found
    if column.closed and found == found:
        raise TypeError
    return math.nan


def _label(cell: Any, column: Column, spelled: bool) -> Any:
    """Return a category of a booster that keeps no list of them."""
    cell = _any(cell, column, False)
    missing = cell is None or cell != cell
    return cell if missing or column.label is None else column.label(cell, spelled)


def _date(cell: Any, column: Column, spelled: bool) -> datetime | None:
    """Return a date as ISO 8601 or pandas' JSON spell it; one with an offset is in UTC then."""
    if cell is None or cell != cell or (spelled and not cell.strip()):
        return None
    if isinstance(cell, str):
        at = datetime.fromisoformat(cell.strip())
        return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
    if isinstance(cell, bool):
        raise TypeError
    return _EPOCH + timedelta(milliseconds=cell)


_EPOCH = datetime(1970, 1, 1)


_CONVERTERS: dict[str, Callable[[Any, Column, bool], Any]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "text": _text,
    "unused": _unused,
    "any": _any,
    "category": _category,
    "date": _date,
}


# How tables say that a value is missing, where they have a word for it.
_NOTHING = {"na", "n/a", "#n/a", "<na>", "null", "none", "-", "--", "?", "."}

_NUMERAL = re.compile(r"\W*\d")  # "$5", "5 kg", "1.234,50"


def _hint(
    row: Sequence[Any], at: int, column: Column, table: Table, number: int, schema: Schema
) -> str:
    cell = row[at]
    if column.kind == "date":
        return "Write it as 2024-01-31 or 2024-01-31T12:30:00, or as milliseconds since 1970."
    if column.kind == "category":
        return f"The model learned {listed(column.values)}."
    if column.kind == "text":
        return "The model learned text here: send a string, so that 007 stays 007."
    if table.spelled and isinstance(cell, str) and (";" in cell or "\t" in cell):
        return "Separate values by commas, not by semicolons or tabs."
    word = cell.strip().lower() if isinstance(cell, str) else ""
    if word not in _NOTHING and _NUMERAL.match(word):
        return "A number is digits alone, such as 1234.5, without a unit, a currency or a comma."
    named = table.spelled and number == 1 and not any(map(is_number, row))
    if word in _NOTHING or not named:
        return "A missing value is null or NaN in JSON, an empty cell in CSV."
    return (
        "If this line is a header, it must name the fitted columns"
        + (f" ({listed(schema.names)})" if schema.names else "")
        + ", or be announced: Content-Type: text/csv; header=present."
    )


def is_number(cell: str) -> bool:
    """Whether a cell of CSV is a number, or empty."""
    try:
        to_number(cell)
    except ValueError:
        return False
    return True


def kind_of(value: Any) -> str:
    """Say in a few words what a cell holds."""
    if isinstance(value, str):
        return quote(f"{value[:40]!r}" + ("..." if len(value) > 40 else ""))
    names = {bool: "true or false", type(None): "null", list: "a list", dict: "an object"}
    return names.get(type(value)) or quote(f"{value}"[:40])


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def quoted(names: Sequence[str]) -> str:
    """List names that a body holds; see `errors.quote`."""
    return quote(listed(names))


def listed(names: Sequence[str], most: int = 20) -> str:
    """List names in quotes, cut where there are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
