"""From the rows that a body spells to the X that the model was fitted on.

A column's dtype comes from the schema, never from the body, so `01234` stays text where the model
learned text and a row's answer does not depend on the rows beside it. Whatever does not fit is a
`BadRequest` that names the row, the column, what was seen and what was expected.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest
from skserve.estimators.columns import ANY, EXACT, NUMBER, Column
from skserve.estimators.frame import Frame
from skserve.estimators.schema import Schema
from skserve.formats.cells import converted, count, kind_of, listed, quoted
from skserve.formats.table import Table
from skserve.telemetry import log


def conform(table: Table, schema: Schema) -> Any:
    """Make the X of `schema` from `table`.

    Returns (n_rows, n_features) float64, dense or CSR as it came, or a Frame of that shape where
    the model learned more than numbers, or a list of n_rows strings for a text model.
    Raises BadRequest for a table that is not this model's.
    """
    sparse = hasattr(table.rows, "tocsr")
    if (table.rows.shape[0] if sparse else len(table.rows)) == 0:
        raise BadRequest("The body holds no rows.", "Send at least one row.")
    if sparse:
        return _sparse(table, schema)
    if schema.text and table.names is None:
        return _documents(table)
    table = _fitted_order(_oriented(table, schema), schema)
    if not isinstance(table.rows, np.ndarray):
        return _from_cells(table, schema)
    _check_width(table.first, table.rows.shape[1], schema)
    if schema.numeric:
        return table.rows.astype(np.float64, copy=False)
    return _from_cells(table._replace(rows=table.rows.tolist()), schema)


_COMMON = {"number", "text", "unused"}  # kinds of columns whose cells say what they are

_SPARSE = ("number", "unused", "any")  # kinds of columns that sparse rows can hold


def _sparse(table: Table, schema: Schema) -> Any:
    """Leave sparse rows what they are, if they can be rows of this model."""
    if schema.text or any(one.kind not in _SPARSE for one in schema.columns):
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
        if schema.open:
            return table
        raise BadRequest(
            "The body names its columns, but the model was fitted without names.",
            "Send the rows alone, in the order of the columns the model was fitted on.",
        )
    if table.names == schema.names:
        return table
    _check_names(table.names, schema)
    _check_lengths(table, len(table.names))
    order = [places.get(name, -1) for name in schema.names]
    return table._replace(rows=_reordered(table.rows, order), names=schema.names)


def _check_names(sent: tuple[str, ...], schema: Schema) -> None:
    """Raise BadRequest unless the body names every column that the model reads, and no other.

    A column that the model drops may be missing. Others are ignored where the estimator does so.
    """
    assert schema.names is not None
    columns = schema.columns or (NUMBER,) * len(schema.names)
    dropped = {n for n, one in zip(schema.names, columns, strict=True) if one.kind == "unused"}
    known, fitted = set(sent), set(schema.names)  # a tuple would be searched once for each name
    missing = [name for name in schema.names if name not in known and name not in dropped]
    extra = [name for name in sent if name not in fitted]
    unexpected = [] if schema.ignores_extra else extra
    if missing or unexpected:
        raise BadRequest(
            "The columns are not those the model was fitted with."
            + (f" Missing: {listed(missing)}." if missing else "")
            + (f" Unexpected: {quoted(unexpected)}." if unexpected else ""),
            f"The model expects {listed(schema.names)}.",
        )
    if filled := [name for name in schema.names if name not in known]:
        _say_once(
            f"Bodies leave out columns that the model drops ({listed(filled)}); served without."
        )
    if extra:
        _say_once("Bodies have columns that the model was not fitted on; those are ignored.")


@lru_cache(64)
def _say_once(sentence: str) -> None:
    log.info(sentence)


def _reordered(rows: Any, order: list[int]) -> Any:
    """Take the columns of `rows` at the places `order`; at -1 all values are missing."""
    if isinstance(rows, np.ndarray):
        taken = rows.take(order, axis=1)
        absent = [at for at, place in enumerate(order) if place < 0]
        if absent:
            taken = taken.astype(np.float64)
            taken[:, absent] = math.nan
        return taken
    return [[row[at] if at >= 0 else None for at in order] for row in rows]


def _check_lengths(table: Table, width: int) -> None:
    """Raise BadRequest unless each row has a value for each of `width` names."""
    expected = Schema(n_features=width, names=table.names)
    if isinstance(table.rows, np.ndarray):
        _check_width(table.first, table.rows.shape[1], expected)
    else:
        _width(table, expected)


def _check_width(number: int, seen: int, schema: Schema, cells: Sequence[Any] = ()) -> None:
    if schema.n_features is None or seen == schema.n_features:
        return
    for sign, called in ((";", "semicolons"), ("\t", "tabs")):
        if any(isinstance(cell, str) and sign in cell for cell in cells):
            raise BadRequest(
                f"Row {number} has {called} between its values.", "Separate them by commas."
            )
    names = f" ({listed(schema.names)})" if schema.names else ""
    raise BadRequest(
        f"Row {number} has {count(seen, 'value')}, expected {schema.n_features}{names}.",
        "Send rows of the columns the model was fitted with; GET / describes them.",
    )


def _from_cells(table: Table, schema: Schema) -> Any:
    """Convert cell by cell, so that one that does not fit is named by row and column."""
    width = _width(table, schema)
    columns = schema.columns or (NUMBER,) * width
    if schema.open:
        columns = tuple(schema.later.get(name, ANY) for name in table.names or [""] * width)
    cells = [converted(table, schema, at, column) for at, column in enumerate(columns)]
    if schema.numeric:
        return np.array(cells, dtype=np.float64).T.copy()
    if not schema.open and {one.kind for one in columns} <= _COMMON:
        made = [
            values if column.kind == "text" else np.array(values, np.float64)
            for values, column in zip(cells, columns, strict=True)
        ]
        return Frame(made, schema.names, len(table.rows))
    arrays = [_array(values, column) for values, column in zip(cells, columns, strict=True)]
    names = schema.names or table.names
    if not schema.open and all(map(_fits_frame, arrays, columns)):
        of_any = [cells[at] if one.dtype == object else one for at, one in enumerate(arrays)]
        return Frame(of_any, names, len(table.rows))
    if names is not None:
        import pandas as pd

        def series(values: NDArray[Any], column: Column) -> Any:
            if column.kind == "category" and column.values:
                return pd.Categorical(values, column.values)
            return values if column.kind == "any" else pd.Series(values, dtype=values.dtype)

        return pd.DataFrame(
            {
                name: series(values, column)
                for name, values, column in zip(names, arrays, columns, strict=True)
            }
        )
    if all(values.dtype == np.float64 for values in arrays):
        return np.stack(arrays, axis=1)
    X = np.empty((len(table.rows), width), dtype=object)
    for at, values in enumerate(arrays):
        X[:, at] = values
    return X


def _fits_frame(values: NDArray[Any], column: Column) -> bool:
    """Whether a Frame makes of a column what pandas would: of objects, it knows only text."""
    return column.kind != "category" and (column.kind == "text" or values.dtype != object)


def _array(cells: list[Any], column: Column) -> NDArray[Any]:
    """Make the array of one column: of objects, or of numbers.

    Where the model says nothing, numbers are an array of numbers, as in a DataFrame of the cells.
    """
    if column.kind in ("number", "unused", "date"):
        return np.array(cells, dtype=np.float64)
    free = column.kind in ("integer", "boolean") or (column.kind == "any" and not column.values)
    kinds = set(map(type, cells)) if free else {object}
    if kinds == {bool}:
        return np.array(cells)
    if kinds <= {int, float} and not any(abs(cell) >= EXACT for cell in cells if type(cell) is int):
        return np.array(cells, dtype=np.int64 if kinds == {int} else np.float64)
    values = np.empty(len(cells), dtype=object)
    values[:] = cells
    return values


def _width(table: Table, schema: Schema) -> int:
    """Check that all rows are lists of one length, the model's where it says, and return it."""
    first = table.rows[0]
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
        _check_width(number, len(row), expected, row if table.spelled else ())
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
                f"Row {number} has {count(len(cells), 'value')}, expected one text.",
                "Put a text that holds commas between double quotes."
                if table.spelled
                else 'Send a list of strings, such as ["first text", "second text"].',
            )
        text = cells[0]
        if not isinstance(text, str) or (table.spelled and not text):
            seen = "missing" if text is None or text == "" else kind_of(text)
            raise BadRequest(f"Row {number} is {seen}, expected a text.")
        texts.append(text)
    return texts
