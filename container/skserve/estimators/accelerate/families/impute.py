"""SimpleImputer and MissingIndicator: what stands in for a missing cell, and where one was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import (
    Builder,
    Declined,
    Floats,
    Kernel,
    OneRow,
    finite,
    without_infinity,
)
from skserve.estimators.frame import Cells, Frame
from skserve.estimators.methods import look


def is_nan(value: Any) -> bool:
    """Whether a cell is NaN."""
    return isinstance(value, float) and value != value


@dataclass(frozen=True, eq=False)
class Missing:
    """Which cells are missing."""

    value: Any  # NaN, None, a number or a string

    @property
    def nan(self) -> bool:
        return is_nan(self.value)

    def among(self, X: Floats) -> NDArray[np.bool_]:
        """Return where numbers are missing. Raises Declined for what scikit-learn refuses."""
        if self.nan:
            return np.isnan(without_infinity(X))
        finite(X)
        number = isinstance(self.value, int | float)
        return self.value == X if number else np.zeros(X.shape, bool)

    def among_cells(self, cells: Cells) -> list[bool]:
        """Return where cells of a column are missing."""
        some = cells if isinstance(cells, list) else cells.tolist()
        if self.nan:
            return [cell != cell for cell in some]
        if self.value is None:
            return [cell is None for cell in some]
        return [cell == self.value for cell in some]


@dataclass(frozen=True, eq=False)
class Imputer:
    """The learned statistic of each column in the place of what is missing.

    A column without a statistic is dropped: `kept` are the others. `marked` are the columns of
    which an indicator tells, after all others, where a cell was missing.
    """

    missing: Missing
    statistics: tuple[Any, ...]  # of the columns that are kept
    numbers: Floats | None  # the same, where all are numbers
    kept: tuple[int, ...]
    all_kept: bool
    marked: NDArray[np.intp] | None

    def __call__(self, X: Any) -> Any:
        """Return an array for numbers, else a Frame."""
        if isinstance(X, Frame):
            numbers = X.numbers()
            if numbers is None:
                return self._cells(X)
            X = numbers
        if self.numbers is None or not isinstance(X, np.ndarray) or X.dtype != np.float64:
            raise Declined
        absent = self.missing.among(X)
        marks = None if self.marked is None else absent[:, self.marked].astype(np.float64)
        if not self.all_kept:
            X, absent = X[:, self.kept], absent[:, self.kept]
        X = np.where(absent, self.numbers, X)
        return X if marks is None else np.concatenate([X, marks], axis=1)

    def _cells(self, X: Frame) -> Frame:
        columns: list[Cells] = []
        for at, statistic in zip(self.kept, self.statistics, strict=True):
            cells = X.columns[at]
            if not self.missing.nan:
                _refuse_nan(cells)
            absent = self.missing.among_cells(cells)
            if True in absent:
                some = cells if isinstance(cells, list) else cells.tolist()
                cells = [
                    statistic if gone else cell for cell, gone in zip(some, absent, strict=True)
                ]
            columns.append(cells)
        if self.marked is not None:
            columns += [
                np.array(self.missing.among_cells(X.columns[at]), np.float64) for at in self.marked
            ]
        return Frame(columns, None, len(X))

    def for_one(self) -> OneRow:
        """Return the same for one row."""
        kept, statistics, missing = self.kept, self.statistics, self.missing.value
        marked = [] if self.marked is None else self.marked.tolist()

        def row(cells: Sequence[Any]) -> list[Any]:
            if inf in cells or -inf in cells:
                raise Declined
            absent = [cell != cell for cell in cells]
            if missing == missing:
                if True in absent:
                    raise Declined
                absent = [cell == missing for cell in cells]
            made = [
                statistic if absent[at] else cells[at]
                for at, statistic in zip(kept, statistics, strict=True)
            ]
            return made + [float(absent[at]) for at in marked] if marked else made

        return row


def _refuse_nan(cells: Cells) -> None:
    """Raise Declined for a number that scikit-learn would refuse, where NaN is no missing value."""
    some = cells if isinstance(cells, list) else cells.tolist()
    if any(is_nan(cell) for cell in some):
        raise Declined


def _imputer(estimator: Any, method: str) -> Kernel | None:
    statistics, missing = look(estimator, "statistics_"), look(estimator, "missing_values")
    known = missing is None or isinstance(missing, int | float | str)
    if method != "transform" or not isinstance(statistics, np.ndarray) or not known:
        return None
    values = statistics.tolist()
    gone = [] if look(estimator, "keep_empty_features") else [is_nan(one) for one in values]
    kept = [at for at in range(len(values)) if not (gone and gone[at])]
    if any(values[at] is None or is_nan(values[at]) for at in kept):
        return None
    numeric = all(isinstance(values[at], int | float) for at in kept)
    marked = look(look(estimator, "indicator_"), "features_")
    return Imputer(
        Missing(missing),
        tuple(values[at] for at in kept),
        np.array([values[at] for at in kept], np.float64) if numeric else None,
        tuple(kept),
        len(kept) == len(values),
        np.asarray(marked) if look(estimator, "add_indicator") else None,
    )


@dataclass(frozen=True, eq=False)
class Indicator:
    """Where cells of some columns are missing: bool (n_rows, n)."""

    missing: Missing
    marked: NDArray[np.intp]

    def __call__(self, X: Any) -> NDArray[np.bool_]:
        """Raise Declined for what scikit-learn refuses."""
        numbers = X.numbers() if isinstance(X, Frame) else X
        if isinstance(numbers, np.ndarray):
            return self.missing.among(numbers)[:, self.marked]
        if numbers is not None:
            raise Declined
        columns = [self.missing.among_cells(X.columns[at]) for at in self.marked]
        return np.array(columns, bool).T.copy()


def _indicator(estimator: Any, method: str) -> Kernel | None:
    missing, marked = look(estimator, "missing_values"), look(estimator, "features_")
    # With "missing-only", something missing elsewhere is an error unless it is told not to be.
    strict = look(estimator, "features") == "missing-only" and look(estimator, "error_on_new")
    if method != "transform" or not is_nan(missing) or look(estimator, "sparse") is True or strict:
        return None
    return Indicator(Missing(missing), np.asarray(marked))


KERNELS: dict[str, Builder] = {"MissingIndicator": _indicator, "SimpleImputer": _imputer}
