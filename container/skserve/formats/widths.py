"""How many values each row of a body has, and how many the model takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from skserve.errors import BadRequest
from skserve.estimators.schema import Schema
from skserve.formats.cells import count, kind_of, listed
from skserve.formats.table import Columns, Table


def check_width(number: int, seen: int, schema: Schema, cells: Sequence[Any] = ()) -> None:
    if schema.n_features is None or seen == schema.n_features:
        return
    check_separators(f"Row {number}", "values", cells)
    names = f" ({listed(schema.names)})" if schema.names else ""
    raise BadRequest(
        f"Row {number} has {count(seen, 'value')}, expected {schema.n_features}{names}.",
        "Send rows of the columns the model was fitted with; GET / describes them.",
    )


_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def check_separators(line: str, what: str, cells: Iterable[Any]) -> None:
    """Raise BadRequest where a line whose cells do not fit has other signs than commas in them."""
    for sign, called in _SEPARATORS.items():
        if any(isinstance(cell, str) and sign in cell for cell in cells):
            raise BadRequest(f"{line} has {called} between its {what}.", "Separate them by commas.")


def row_width(table: Table, schema: Schema) -> int:
    """Check that all rows are lists of one length, the model's where it says, and return it."""
    first = table.rows[0]
    if isinstance(table.rows, Columns) and schema.n_features in (None, len(first)):
        return len(first)
    width = schema.n_features or (len(first) if isinstance(first, list) else 0)
    if set(map(type, table.rows)) == {list} and set(map(len, table.rows)) == {width}:
        return width
    expected = replace(schema, n_features=width)
    for number, row in enumerate(table.rows, table.first):
        if not isinstance(row, list):
            raise BadRequest(
                f"Row {number} is {kind_of(row)}, expected a list of values.",
                "Send a list of rows, such as [[1, 2], [3, 4]].",
            )
        check_width(number, len(row), expected, row if table.spelled else ())
    return width
