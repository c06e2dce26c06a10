"""From the rows that a body spells to the X that the model was fitted on.

A column's dtype comes from the schema, never from the body, so `01234` stays text where the model
learned text and a row's answer does not depend on the rows beside it. Whatever does not fit is a
`BadRequest` that names the row, the column, what was seen and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest
from skserve.estimators.columns import ANY, EXACT, NUMBER, Column
from skserve.estimators.frame import Frame
from skserve.estimators.schema import Schema
from skserve.formats.cells import converted, count, kind_of, one_row
from skserve.formats.column_names import fitted_order
from skserve.formats.table import Table
from skserve.formats.widths import check_width, row_width


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
    if schema.records:
        return _records(table, schema)
    if schema.text and table.names is None:
        return _documents(table, schema.open)
    table = fitted_order(_oriented(table, schema), schema)
    if not isinstance(table.rows, np.ndarray):
        return _from_cells(table, schema)
    check_width(table.first, table.rows.shape[1], schema)
    if schema.numeric:
        return _rounded(table.rows.astype(np.float64, copy=False), schema)
    return _from_cells(table._replace(rows=table.rows.tolist()), schema)


def _rounded(X: NDArray[np.float64], schema: Schema) -> NDArray[np.float64]:
    """Round the columns in which narrower numbers than float64 were learned."""
    if schema.narrow:
        X = X.copy()
        for at, column in schema.narrow:
            X[:, at] = column.rounded(X[:, at])
    return X


_SPARSE = ("number", "unused", "any")  # kinds of columns that sparse rows can hold


def _sparse(table: Table, schema: Schema) -> Any:
    """Leave sparse rows what they are, if they can be rows of this model."""
    if schema.text or schema.records or any(one.kind not in _SPARSE for one in schema.columns):
        takes = "objects" if schema.records else "text"
        raise BadRequest(
            f"The rows are sparse numbers, but the model takes {takes}.",
            "Send them as JSON or CSV.",
        )
    check_width(table.first, table.rows.shape[1], schema)
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


def _from_cells(table: Table, schema: Schema) -> Any:
    """Convert cell by cell, so that one that does not fit is named by row and column."""
    if schema.listed is not None and (cells := one_row(table, schema)) is not None:
        return Frame.of_row(cells, schema.listed, schema.names)
    width = row_width(table, schema)
    columns = schema.columns or (NUMBER,) * width
    if schema.open:
        columns = tuple(schema.later.get(name, ANY) for name in table.names or [""] * width)
    cells = [converted(table, schema, at, column) for at, column in enumerate(columns)]
    if schema.numeric:
        return np.array(cells, dtype=np.float64).T.copy()
    if schema.listed is not None:
        pairs = zip(cells, schema.listed, strict=True)
        made = [values if listed else np.array(values, np.float64) for values, listed in pairs]
        return Frame(made, schema.names, len(table.rows))
    arrays = [_array(values, column) for values, column in zip(cells, columns, strict=True)]
    names = schema.names or table.names
    if not schema.open and all(map(_fits_frame, arrays, columns)):
        of_any = [cells[at] if one.dtype == object else one for at, one in enumerate(arrays)]
        return Frame(of_any, names, len(table.rows))
    if names is not None:
        return _data_frame(names, arrays, columns)
    if {one.kind for one in columns} == {"date"}:
        return np.array(cells, "datetime64[us]").T
    if all(values.dtype == np.float64 for values in arrays):
        return np.stack(arrays, axis=1)
    X = np.empty((len(table.rows), width), dtype=object)
    for at, values in enumerate(arrays):
        X[:, at] = values
    return X


def _data_frame(names: Sequence[str], arrays: list[NDArray[Any]], columns: Sequence[Column]) -> Any:
    """Make a DataFrame, with the categories that were learned."""
    import pandas as pd

    def series(values: NDArray[Any], column: Column) -> Any:
        if column.kind == "category" and column.values:
            return pd.Categorical(values, column.values)
        if column.kind == "date":
            return pd.to_datetime(values)
        return values if column.kind == "any" else pd.Series(values, dtype=values.dtype)

    return pd.DataFrame(
        {
            name: series(values, column)
            for name, values, column in zip(names, arrays, columns, strict=True)
        }
    )


def _fits_frame(values: NDArray[Any], column: Column) -> bool:
    """Whether a Frame makes of a column what pandas would: of objects, it knows only text."""
    return column.kind != "category" and (column.kind == "text" or values.dtype != object)


def _array(cells: list[Any], column: Column) -> NDArray[Any]:
    """Make the array of one column: of objects, or of numbers.

    Where the model says nothing, numbers are an array of numbers, as in a DataFrame of the cells.
    """
    if column.kind in ("number", "unused"):
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


BY_NAME = (
    "Steps of the model may read columns by name, and the body has no names: send records, columns "
    "beside data, or CSV with its header and Content-Type: text/csv; header=present."
)
_TEXTS = {
    True: "Put a text that holds commas between double quotes.",
    False: 'Send a list of strings, such as ["first text", "second text"].',
}


def _records(table: Table, schema: Schema) -> list[dict[str, Any]]:
    """Return a dict for each row, of a model that looks its values up by name."""
    if table.names is not None:
        names = fitted_order(table, schema).names or ()
        columns = [schema.later.get(name, ANY) for name in names]
        cells = [converted(table, schema, at, column) for at, column in enumerate(columns)]
        return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
    for number, row in enumerate(table.rows, table.first):
        if not isinstance(row, dict):
            seen = kind_of(row.tolist() if isinstance(row, np.ndarray) else row)
            raise BadRequest(
                f"Row {number} is {seen}, expected an object of values by their names.",
                'Send a list of objects, such as [{"name": 1}], or CSV with a header.',
            )
    return list(table.rows)


def _documents(table: Table, reads_names: bool) -> list[str]:
    """Read the one column of a text model; another of its steps may read columns by name."""
    texts = []
    for number, row in enumerate(table.rows, table.first):
        if isinstance(row, np.ndarray):
            row = row.tolist()  # numbers, which cannot be compared with a text
        cells = row if isinstance(row, list) else [row]
        if len(cells) != 1:
            raise BadRequest(
                f"Row {number} has {count(len(cells), 'value')}, expected one text.",
                BY_NAME if reads_names else _TEXTS[table.spelled],
            )
        text = cells[0]
        if not isinstance(text, str) or (table.spelled and not text):
            seen = "missing" if text is None or text == "" else kind_of(text)
            raise BadRequest(f"Row {number} is {seen}, expected a text.")
        texts.append(text)
    return texts
