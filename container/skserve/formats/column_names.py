"""The names that a body gives its columns, matched to those that the model was fitted with."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np

from skserve.errors import BadRequest
from skserve.estimators.columns import NUMBER
from skserve.estimators.schema import Schema
from skserve.formats.cells import listed, quoted
from skserve.formats.table import Columns, Table
from skserve.formats.widths import check_separators, check_width, row_width
from skserve.telemetry import log


def fitted_order(table: Table, schema: Schema) -> Table:
    """Match the body's column names, where it has any, to those the model was fitted with."""
    if table.names is None or table.names == schema.names:
        return table
    names = schema.own(table.names)
    table = table._replace(names=names)
    places = {name: at for at, name in enumerate(names)}
    if len(places) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise BadRequest(f"Columns named more than once: {quoted(twice)}.")
    if schema.names is None:
        if schema.open or schema.records:
            _check_lengths(table, len(names))
            return table
        if list(names) == [str(at) for at in range(len(names))]:
            _check_lengths(table, len(names))
            return table._replace(names=None)
        # Numbers in another order may mean two things: scikit-learn itself goes by the places.
        raise BadRequest(
            "The body names its columns, but the model was fitted without names.",
            "Send the rows alone, in the order of the columns the model was fitted on.",
        )
    if names == schema.names:
        return table
    if table.spelled:
        check_separators("The header", "names", set(names) - set(schema.names))
    _check_names(names, schema)
    _check_lengths(table, len(names))
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
    if isinstance(rows, Columns):
        nothing: list[Any] = [None] * len(rows)
        return Columns([rows.columns[at] if at >= 0 else nothing for at in order])
    return [[row[at] if at >= 0 else None for at in order] for row in rows]


def _check_lengths(table: Table, width: int) -> None:
    """Raise BadRequest unless each row has a value for each of `width` names."""
    expected = Schema(n_features=width, names=table.names)
    if isinstance(table.rows, np.ndarray):
        check_width(table.first, table.rows.shape[1], expected)
    else:
        row_width(table, expected)
