"""From the rows that a body spells to the X that the model was fitted on.

A column's dtype comes from the schema, never from the body, so `01234` stays text where the model
learned text and a row's answer does not depend on the rows beside it. Whatever does not fit is a
`BadRequest` that names the row, the column, what was seen and what was expected.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest
from skserve.estimators.columns import NUMBER, TRUTH, Ambiguous, Column
from skserve.estimators.schema import Schema


class Table(NamedTuple):
    """Rows as a body spells them: lists of cells, or an array (n_rows, n_columns) of numbers, or
    a scipy matrix of that shape, CSR.

    `flat` says that the body was one single list, which is one row or one column. `spelled` says
    that every cell is a string (CSV): an empty one is missing, and numbers are to be parsed.
    `first` is the number of the first row, where a long body is cut into several tables.
    """

    rows: Any
    names: tuple[str, ...] | None = None
    flat: bool = False
    spelled: bool = False
    first: int = 1


class Decoded(NamedTuple):
    """What a decoder made of a body; `enveloped` bodies get an enveloped answer."""

    table: Table
    method: str | None = None
    enveloped: bool = False


def conform(table: Table, schema: Schema) -> Any:
    """Make the X of `schema` from `table`.

    Returns (n_rows, n_features) float64, dense or CSR as it came, or an object array or a
    DataFrame of that shape where the model needs one, or a list of n_rows strings for a text model.
    Raises BadRequest for a table that is not this model's.
    """
    sparse = hasattr(table.rows, "tocsr")
    if (table.rows.shape[0] if sparse else len(table.rows)) == 0:
        raise BadRequest("The body holds no rows.", "Send at least one row.")
    if sparse:
        return _sparse(table, schema)
    if schema.text:
        return _documents(table)
    table = _fitted_order(_oriented(table, schema), schema)
    if not isinstance(table.rows, np.ndarray):
        return _from_cells(table, schema)
    _check_width(table.first, table.rows.shape[1], schema)
    if schema.numeric:
        return table.rows.astype(np.float64, copy=False)
    return _from_cells(table._replace(rows=table.rows.tolist()), schema)


def _sparse(table: Table, schema: Schema) -> Any:
    """Leave sparse rows what they are, if they can be rows of this model."""
    if not schema.numeric:
        raise BadRequest(
            "The rows are sparse numbers, but the model takes text.", "Send them as JSON or CSV."
        )
    _check_width(table.first, table.rows.shape[1], schema)
    return table.rows


def joined(tables: Iterator[Table], schema: Schema) -> Table:
    """Put together the tables that a long body of numbers was cut into; a lone one stays itself.

    Each is made what `schema` says before the next one is looked at. Raises BadRequest.
    """
    first, second = next(tables, Table([])), next(tables, None)
    if second is None:
        return first
    done: list[NDArray[np.float64]] = []
    for table in chain((first, second), tables):
        done.append(conform(table, schema))
        if schema.n_features is None:
            schema = replace(schema, n_features=done[0].shape[1])
    return Table(np.concatenate(done), first.names and schema.names)


def _oriented(table: Table, schema: Schema) -> Table:
    """Turn a flat list into one row, or into a column where the model has one feature."""
    if not table.flat:
        return table
    cells = table.rows
    column = schema.n_features == 1
    rows: Sequence[Any] | NDArray[Any]
    if isinstance(cells, np.ndarray):
        rows = cells.reshape((-1, 1) if column else (1, -1))
    else:
        rows = [[cell] for cell in cells] if column else [list(cells)]
    return table._replace(rows=rows, flat=False)


def _fitted_order(table: Table, schema: Schema) -> Table:
    """Match the body's column names, where it has any, to those the model was fitted with."""
    if table.names is None:
        return table
    places = {name: at for at, name in enumerate(table.names)}
    if len(places) < len(table.names):
        twice = sorted(name for name, count in Counter(table.names).items() if count > 1)
        raise BadRequest(f"Columns named more than once: {quoted(twice)}.")
    if schema.names is None:
        raise BadRequest(
            "The body names its columns, but the model was fitted without names.",
            "Send the rows alone, in the order of the columns the model was fitted on.",
        )
    if table.names == schema.names:
        return table
    missing = [name for name in schema.names if name not in places]
    fitted = set(schema.names)  # a tuple would be searched once for each name
    unexpected = [name for name in table.names if name not in fitted]
    if missing or unexpected:
        raise BadRequest(
            "The columns are not those the model was fitted with."
            + (f" Missing: {quoted(missing)}." if missing else "")
            + (f" Unexpected: {quoted(unexpected)}." if unexpected else ""),
            f"The model expects {quoted(schema.names)}.",
        )
    order = [places[name] for name in schema.names]
    if isinstance(table.rows, np.ndarray):
        _check_width(table.first, table.rows.shape[1], schema)
        return table._replace(rows=table.rows.take(order, axis=1), names=schema.names)
    for number, row in enumerate(table.rows, table.first):
        _check_width(number, len(row), schema)
    return table._replace(
        rows=[[row[at] for at in order] for row in table.rows], names=schema.names
    )


def _check_width(number: int, seen: int, schema: Schema) -> None:
    if schema.n_features is None or seen == schema.n_features:
        return
    names = f" ({quoted(schema.names)})" if schema.names else ""
    raise BadRequest(
        f"Row {number} has {_count(seen, 'value')}, expected {schema.n_features}{names}.",
        "Send rows of the columns the model was fitted with; GET / describes them.",
    )


def _from_cells(table: Table, schema: Schema) -> Any:
    """Convert cell by cell, so that one that does not fit is named by row and column."""
    width = _width(table, schema)
    columns = schema.columns or (NUMBER,) * width
    cells = [_converted(table, schema, at, column) for at, column in enumerate(columns)]
    if schema.numeric:
        return np.array(cells, dtype=np.float64).T.copy()
    if schema.names is not None:
        import pandas as pd

        return pd.DataFrame(
            {
                name: pd.Series(values, dtype=object if column.kind == "text" else np.float64)
                for name, values, column in zip(schema.names, cells, columns, strict=True)
            }
        )
    values = np.empty((len(table.rows), width), dtype=object)
    for at, column_cells in enumerate(cells):
        values[:, at] = column_cells
    return values


def _width(table: Table, schema: Schema) -> int:
    """Check that all rows are lists of one length, the model's where it says, and return it."""
    first = table.rows[0]
    width = schema.n_features or (len(first) if isinstance(first, list) else 0)
    expected = replace(schema, n_features=width)
    for number, row in enumerate(table.rows, table.first):
        if not isinstance(row, list):
            raise BadRequest(
                f"Row {number} is {_kind(row)}, expected a list of values.",
                "Send a list of rows, such as [[1, 2], [3, 4]].",
            )
        _check_width(number, len(row), expected)
    return width


def _documents(table: Table) -> list[str]:
    """Read the one column of a text model."""
    texts = []
    for number, row in enumerate(table.rows, table.first):
        if isinstance(row, np.ndarray):
            row = row.tolist()  # numbers, which cannot be compared with a text
        cells = row if isinstance(row, list) else [row]
        if len(cells) != 1:
            raise BadRequest(
                f"Row {number} has {_count(len(cells), 'value')}, expected one text.",
                "Put a text that holds commas between double quotes."
                if table.spelled
                else 'Send a list of strings, such as ["first text", "second text"].',
            )
        text = cells[0]
        if not isinstance(text, str) or (table.spelled and not text):
            seen = "missing" if text is None or text == "" else _kind(text)
            raise BadRequest(f"Row {number} is {seen}, expected a text.")
        texts.append(text)
    return texts


def _converted(table: Table, schema: Schema, at: int, column: Column) -> list[Any]:
    """Convert one column: a list of n_rows values."""
    convert = _CONVERTERS[column.kind]
    values = []
    for number, row in enumerate(table.rows, table.first):
        try:
            values.append(convert(row[at], column, table.spelled))
        except Ambiguous:
            raise BadRequest(
                f"Row {number}, column {_place(schema.names, at)}: {_kind(row[at])} can be a "
                "text or another value; the model learned both.",
                "Send JSON, where a text is quoted and a number, true or false is not.",
            ) from None
        except (ValueError, TypeError, OverflowError):
            where = _place(schema.names, at)
            raise BadRequest(
                f"Row {number}, column {where}: expected a {column.kind}, got {_kind(row[at])}.",
                _hint(row[at], column, table, number, schema),
            ) from None
    return values


def _place(names: Sequence[str] | None, at: int) -> str:
    return repr(names[at]) if names else str(at + 1)


def _number(cell: Any, column: Column, spelled: bool) -> float:
    if cell is None or (spelled and not cell.strip()):
        return math.nan
    if isinstance(cell, str):
        if "_" in cell:
            raise ValueError  # Python reads 1_000, no file format does
        cell = TRUTH.get(cell.strip(), cell)
    return float(cell)


def _text(cell: Any, column: Column, spelled: bool) -> Any:
    """Return the learned value that a cell is or means, or the cell as it is."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return column.missing
    if spelled and not cell:
        return column.blank
    return column.learned(cell, spelled)


def _unused(cell: Any, column: Column, spelled: bool) -> float:
    """Keep a number, in case a step reads the column after all; make anything else missing."""
    try:
        return _number(cell, column, spelled)
    except (ValueError, TypeError, OverflowError):
        return math.nan


def _date(cell: Any, column: Column, spelled: bool) -> float:
    raise TypeError


_CONVERTERS: dict[str, Callable[[Any, Column, bool], Any]] = {
    "number": _number,
    "text": _text,
    "unused": _unused,
    "date": _date,
}


def _hint(cell: Any, column: Column, table: Table, number: int, schema: Schema) -> str:
    if column.kind == "date":
        return "Columns of dates are not supported: fit the model on numbers or text instead."
    if column.kind == "text":
        return "The model learned text here: send a string, so that 007 stays 007."
    if not (table.spelled and number == 1):
        return "A missing value is null or NaN in JSON, an empty cell in CSV."
    if ";" in cell or "\t" in cell:
        return "Cells are separated by commas."
    return (
        "If this line is a header, it must name the fitted columns"
        + (f" ({quoted(schema.names)})" if schema.names else "")
        + ", or be announced: Content-Type: text/csv; header=present."
    )


def _kind(value: Any) -> str:
    """Say in a few words what a cell holds."""
    if isinstance(value, str):
        return f"{value[:40]!r}" + ("..." if len(value) > 40 else "")
    names = {bool: "true or false", type(None): "null", list: "a list", dict: "an object"}
    return names.get(type(value), f"{value}"[:40])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def quoted(names: Sequence[str], most: int = 20) -> str:
    """List names in quotes, cut where there are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def missing_values(X: Any, names: Sequence[str] | None) -> str:
    """Name the first cell of X that holds none, as a sentence to put before scikit-learn's own."""
    values = X.to_numpy() if hasattr(X, "to_numpy") else X
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.ndim != 2:
        return ""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad) == 0:
        return ""
    row, at = (int(place) for place in bad[0])
    column = _place(names, at)
    kind = "missing" if np.isnan(values[row, at]) else "infinite"
    return f"Row {row + 1}, column {column} is {kind}. "
