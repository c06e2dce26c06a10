"""Sparse rows: what a body says of them is checked before anything believes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest, quote

Numbers = NDArray[Any]

_WIDEST = 2**31 - 1  # columns: scikit-learn's compiled parts count them in 32 bits


def rows_of(values: Numbers, columns: Numbers, starts: Numbers, width: int) -> Any:
    """Make a matrix (n_rows, width), CSR of float64, of which row i has `starts[i]:starts[i + 1]`.

    Columns need not be in order; values for the same place add up. Raises BadRequest.
    """
    from scipy.sparse import csr_matrix  # with scikit-learn it is there already

    _check_all(values, columns, starts)
    if len(values) != len(columns):
        raise BadRequest(f"The body has {len(values)} values for {len(columns)} places.")
    if len(starts) == 0 or starts[0] != 0 or starts[-1] != len(values) or _falls(starts):
        raise BadRequest("The starts of the rows are not in order.", "Send canonical CSR.")
    width = _checked_width(width)
    wrong = np.flatnonzero((columns < 0) | (columns >= width))
    if len(wrong):
        row = int(np.searchsorted(starts, wrong[0], side="right"))
        raise BadRequest(
            f"Row {row} has a value for column number {quote(columns[wrong[0]])} of {width}.",
            "Column numbers start at 0.",
        )
    shape = len(starts) - 1, width
    matrix = csr_matrix((values.astype(np.float64), columns, starts), shape)
    matrix.sum_duplicates()
    return matrix


def rows_of_places(values: Numbers, rows: Numbers, columns: Numbers, shape: tuple[int, int]) -> Any:
    """Make a matrix of values and the row and column of each, in any order; see `rows_of`."""
    _check_all(values, rows, columns)
    if not len(values) == len(rows) == len(columns):
        raise BadRequest("The values and their places differ in number.")
    if len(rows) and (rows.min() < 0 or rows.max() >= shape[0]):
        raise BadRequest(f"A value lies outside of the {shape[0]} rows.")
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.arange(shape[0] + 1))
    return rows_of(values[order], columns[order], starts, shape[1])


def spread(starts: Numbers, count: int) -> Numbers:
    """Return the number of the column that each of `count` values belongs to, by CSC's starts."""
    _check_all(starts, starts)
    if len(starts) == 0 or starts[0] != 0 or starts[-1] != count or _falls(starts):
        raise BadRequest("The starts of the columns are not in order.", "Send canonical CSC.")
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def _check_all(values: Numbers, *places: Numbers) -> None:
    kinds = {array.dtype.kind for array in places}
    if values.dtype.kind not in "biuf" or not kinds <= {"i", "u"}:
        raise BadRequest("A sparse table has numbers, at places that are whole numbers.")
    if {array.ndim for array in (values, *places)} != {1}:
        raise BadRequest("The parts of a sparse table are lists.")


def _checked_width(width: int) -> int:
    if not 0 < width <= _WIDEST:
        raise BadRequest(f"A table cannot have {quote(width)} columns.")
    return width


def _falls(starts: Numbers) -> bool:
    return bool((starts[1:] < starts[:-1]).any())
