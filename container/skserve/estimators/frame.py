"""A table of columns without pandas: what mixed models take, decoded and in fitted order.

A DataFrame of a few cells costs more to make and to ask than most models cost to answer, so one is
made only for an estimator that is asked itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[Any] | list[Any]


def plain(X: Any) -> Any:
    """Return rows as scikit-learn takes them: X itself, or what a Frame or its like makes."""
    return X.plain() if type(X) is not np.ndarray and hasattr(type(X), "plain") else X


class Frame:
    """Columns of equal length, each an array (n_rows,) of numbers or a list of n_rows objects.

    A list holds strings, other learned values, and what stands for a missing one there. `names` is
    None for a model that was fitted without names.
    """

    __slots__ = ("_cells", "_columns", "_listed", "names", "shape")

    def __init__(self, columns: Sequence[Cells], names: Sequence[str] | None, n_rows: int) -> None:
        """Take columns as they are: none is copied."""
        self._columns: Sequence[Cells] | None = columns
        self._cells: Sequence[Any] | None = None
        self._listed: Sequence[bool] = ()
        self.names = names
        self.shape = (n_rows, len(columns))

    @classmethod
    def of_row(
        cls, cells: Sequence[Any], listed: Sequence[bool], names: Sequence[str] | None
    ) -> Frame:
        """Make a frame of one row, whose columns are lists where `listed`, else arrays of float64.

        They are made where one asks for them: an array of one number costs as much as a prediction.
        """
        frame = cls((), names, 1)
        frame._columns, frame._cells, frame._listed = None, cells, listed
        frame.shape = (1, len(cells))
        return frame

    @property
    def columns(self) -> Sequence[Cells]:
        """All columns in their order."""
        if self._columns is None:
            pairs = zip(self._cells or (), self._listed, strict=True)
            self._columns = [[cell] if listed else np.array([cell]) for cell, listed in pairs]
        return self._columns

    @property
    def cells(self) -> Sequence[Any]:
        """The cells of the first row, numbers as Python's own."""
        if self._cells is None:
            self._cells = [
                one[0] if isinstance(one, list) else one[0].item() for one in self.columns
            ]
        return self._cells

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Frame:
        """Return some of the rows."""
        start, stop, step = rows.indices(len(self))
        n_rows = len(range(start, stop, step))
        return Frame([cells[rows] for cells in self.columns], self.names, n_rows)

    def take(self, places: Sequence[int], names: Sequence[str] | None) -> Frame:
        """Return the columns at `places`, under these names."""
        columns = self.columns
        return Frame([columns[at] for at in places], names, len(self))

    def kinds(self) -> tuple[Any, ...]:
        """Return what frames have in common that can be joined."""
        return tuple(type(cells) for cells in self.columns)

    def numbers(self) -> NDArray[np.float64] | None:
        """Return numbers (n_rows, n_columns), C-contiguous; None where a column holds objects."""
        columns = self.columns
        for cells in columns:
            if type(cells) is list:
                return None
        if not columns:
            return np.empty(self.shape)
        flat = np.concatenate(columns)
        return flat.reshape(self.shape[::-1]).T.copy() if len(self) > 1 else flat.reshape(1, -1)

    def plain(self) -> Any:
        """Return what scikit-learn takes: a DataFrame, or an object array where it has no names."""
        if self.names is not None:
            import pandas as pd  # half a second and 40 MB: only for models that need it

            columns = zip(self.names, self.columns, strict=True)
            return pd.DataFrame(
                {
                    name: pd.Series(cells, dtype=object if isinstance(cells, list) else cells.dtype)
                    for name, cells in columns
                }
            )
        numbers = [cells for cells in self.columns if not isinstance(cells, list)]
        if len(numbers) == self.shape[1] and {one.dtype for one in numbers} == {np.dtype(float)}:
            return np.stack(numbers, axis=1)
        return self.objects()

    def objects(self) -> NDArray[Any]:
        """Return all cells as one array of objects."""
        values = np.empty(self.shape, dtype=object)
        for at, cells in enumerate(self.columns):
            values[:, at] = cells
        return values

    @classmethod
    def joined(cls, frames: Sequence[Frame]) -> Frame:
        """Put frames of the same columns one below the other."""
        first = frames[0]
        columns: list[Cells] = []
        for parts in zip(*(frame.columns for frame in frames), strict=True):
            if isinstance(parts[0], list):
                columns.append([cell for part in parts for cell in part])
            else:
                columns.append(np.concatenate(parts))
        return cls(columns, first.names, sum(map(len, frames)))
