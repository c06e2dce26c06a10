"""Which cells of a table are not as the fitted model learned them: a first sign of data drift.

Only what the model itself keeps is compared: the categories of encoders, and the ranges that some
steps store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import total
from skserve.estimators.columns import Column
from skserve.estimators.frame import Frame
from skserve.estimators.schema import Schema


class Learned:
    """What one fitted model knows of its columns."""

    def __init__(self, schema: Schema) -> None:
        self._columns = schema.columns
        self._known = [_known(column) for column in schema.columns]
        self._used = np.array([column.kind != "unused" for column in schema.columns])
        self._low = np.array([column.low for column in schema.columns])
        self._high = np.array([column.high for column in schema.columns])
        self._limited = any(column.limited for column in schema.columns)
        # Whether missing cells are all that there may be to count.
        self.only_missing = schema.numeric and not (self._limited or any(self._known))
        self._read = [
            (at, column, known, (column.low, column.high) if column.limited else None)
            for at, (column, known) in enumerate(zip(schema.columns, self._known, strict=True))
            if column.kind != "unused"
        ]

    def count(self, X: Any) -> list[list[int]] | None:
        """Count for each column of X (n_rows, n_features) the cells that are missing, unseen as a
        category, and out of range. None where X is no table of this model, or nothing is to count.
        """
        numbers = isinstance(X, np.ndarray) and X.dtype.kind == "f"
        if self.only_missing and numbers and (found := total(X)) == found:
            return None  # no NaN is among them, and nothing else is known
        width = len(self._columns)
        if numbers and X.ndim == 2 and X.shape[1] == width:
            return self._of_numbers(X)
        if getattr(X, "shape", ())[1:] != (width,):
            return None
        if hasattr(X, "tocsr"):
            places = X.indices[X.data != X.data]
            return [np.bincount(places, minlength=width).tolist(), [0] * width, [0] * width]
        if isinstance(X, Frame):
            return self._of_row(X.cells) if len(X) == 1 else self._of_frame(X)
        cells = X.to_numpy(object) if hasattr(X, "to_numpy") else X
        return self._of_objects(cells)

    def _of_numbers(self, X: NDArray[Any]) -> list[list[int]]:
        width = X.shape[1]
        missing = (X != X) & self._used  # what no step reads has been made missing
        unseen, outside = [0] * width, [0] * width
        for at, known in enumerate(self._known):
            if known:
                unseen[at] = sum(cell == cell and cell not in known for cell in X[:, at].tolist())
        if self._limited:
            beyond = np.less(X, self._low) | np.greater(X, self._high)
            outside = np.count_nonzero(beyond, axis=0).tolist()
        return [np.count_nonzero(missing, axis=0).tolist(), unseen, outside]

    def _of_row(self, cells: Sequence[Any]) -> list[list[int]] | None:
        """Count one row, cell by cell; None where all is as learned, as it mostly is."""
        found = []
        for at, column, known, limits in self._read:
            cell = cells[at]
            if cell is None or cell != cell or cell is column.missing:
                found.append((0, at))
                continue
            if known and cell not in known:
                found.append((1, at))
            if limits and type(cell) is float and not limits[0] <= cell <= limits[1]:
                found.append((2, at))
        if not found:
            return None
        counts = [[0] * len(cells) for _ in range(3)]
        for kind, at in found:
            counts[kind][at] = 1
        return counts

    def _of_frame(self, X: Frame) -> list[list[int]]:
        """Count column by column; only cells that are no known category are looked at closely."""
        counts = [[0] * X.shape[1] for _ in range(3)]
        for at, column, known, limits in self._read:
            cells = X.columns[at]
            numbers = cells if isinstance(cells, np.ndarray) else None
            if numbers is not None and not known:
                strange = numbers[numbers != numbers].tolist()
            elif known:
                strange = [cell for cell in list(cells) if cell not in known]
            else:
                strange = [cell for cell in cells if type(cell) is not str]
            missing = sum(_is_missing(cell, column) for cell in strange)
            counts[0][at] = missing
            counts[1][at] = len(strange) - missing if known else 0
            if limits:
                if numbers is None:
                    numbers = np.array([cell for cell in cells if isinstance(cell, float)])
                beyond = np.less(numbers, limits[0]) | np.greater(numbers, limits[1])
                counts[2][at] = int(np.count_nonzero(beyond))
        return counts

    def _of_objects(self, X: NDArray[Any]) -> list[list[int]]:
        counts: list[list[int]] = [[], [], []]
        for at, column in enumerate(self._columns):
            cells, known = X[:, at].tolist() if self._used[at] else [], self._known[at]
            there = [cell for cell in cells if not _is_missing(cell, column)]
            unseen = sum(cell not in known for cell in there) if known else 0
            outside = 0
            if column.limited:
                outside = sum(
                    isinstance(cell, float) and not column.low <= cell <= column.high
                    for cell in there
                )
            for kind, count in zip(counts, (len(cells) - len(there), unseen, outside), strict=True):
                kind.append(int(count))
        return counts


def _known(column: Column) -> frozenset[Any]:
    try:
        return frozenset(column.values)
    except TypeError:  # a category that cannot be looked up
        return frozenset()


def _is_missing(cell: Any, column: Column) -> bool:
    if cell is None or cell is column.missing:
        return True
    try:
        return bool(cell != cell)
    except (TypeError, ValueError):  # pandas.NA
        return True
