"""Encoders of categories: one-hot, ordinal, by the target. A dict from the cell to its code.

Python's own equality is scikit-learn's here: True, 1 and 1.0 are one category, and only NaN, which
equals nothing, has a place of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skserve.estimators.accelerate.blocks import Blocks, Picked, Terms
from skserve.estimators.accelerate.families.impute import is_nan
from skserve.estimators.accelerate.kernel import Builder, Declined, Kernel, OneRow
from skserve.estimators.frame import Cells, Frame
from skserve.estimators.methods import look


@dataclass(frozen=True, eq=False)
class Codes:
    """What becomes of each cell of one column; None of `missing` (NaN) or `unknown` is refused."""

    known: dict[Any, Any]
    missing: Any
    unknown: Any

    def __call__(self, cells: Cells) -> list[Any]:
        """Return the code of each cell. Raises Declined for what scikit-learn refuses."""
        some = cells if isinstance(cells, list) else cells.tolist()
        codes = list(map(self.known.get, some))
        if None in codes:
            for at, code in enumerate(codes):
                if code is None:
                    codes[at] = self.refused(some[at])
        return codes

    def refused(self, cell: Any) -> Any:
        """Return the code of a cell that is no known category. Raises Declined."""
        code = self.missing if cell != cell else self.unknown
        if code is None:
            raise Declined
        return code

    @classmethod
    def of(cls, categories: Iterable[Any], codes: Iterable[Any], unknown: Any) -> Codes:
        """Make the table of one column, in which NaN may be a category."""
        known, missing = {}, unknown
        for category, code in zip(categories, codes, strict=True):
            if is_nan(category):
                missing = code
            else:
                known[category] = code
        return cls(known, missing, unknown)


def columns_of(X: Any) -> Sequence[Cells]:
    """Return the columns of a Frame or of an array. Raises Declined for anything else."""
    if isinstance(X, Frame):
        return X.columns
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return X.T.tolist()  # type: ignore[no-any-return]
    raise Declined


def coded(tables: Sequence[Codes], X: Any) -> list[list[Any]]:
    """Return the codes of each column: one list a column."""
    return [codes(cells) for codes, cells in zip(tables, columns_of(X), strict=True)]


def coded_row(tables: Sequence[Codes]) -> Callable[[Sequence[Any]], list[Any]]:
    """Return a function from the cells of one row to their codes."""
    find = [(table.known.get, table.refused) for table in tables]

    def row(cells: Sequence[Any]) -> list[Any]:
        codes = []
        for (known, refused), cell in zip(find, cells, strict=True):
            code = known(cell)
            codes.append(refused(cell) if code is None else code)
        return codes

    return row


@dataclass(frozen=True, eq=False)
class OneHot:
    """The column of each cell's category, out of those of all columns side by side."""

    tables: tuple[Codes, ...]
    width: int
    sparse: bool
    dtype: DTypeLike

    def __call__(self, X: Any) -> Blocks:
        """Return the picked columns, (n_rows, width)."""
        codes = np.array(coded(self.tables, X), np.intp)
        return Blocks([Picked(codes.T, self.width)], len(X), self.sparse, self.dtype)

    def for_one(self) -> OneRow:
        """Return a one for each column that is picked."""
        codes_of, width = coded_row(self.tables), self.width

        def row(cells: Sequence[Any]) -> Terms:
            codes = codes_of(cells)
            if -1 in codes:
                codes = [code for code in codes if code >= 0]
            return Terms(codes, [1.0] * len(codes), width)

        return row


def _one_hot(estimator: Any, method: str) -> Kernel | None:
    categories, unknown = look(estimator, "categories_"), look(estimator, "handle_unknown")
    dtype = np.dtype(estimator.dtype)
    if method != "transform" or unknown not in ("error", "ignore", "infrequent_if_exist"):
        return None
    if dtype.kind not in "biuf" or dtype in (np.float16, np.float32):
        return None  # what comes after it would reckon in that precision
    rare = look(estimator, "infrequent_categories_") or [None] * len(categories)
    dropped = look(estimator, "drop_idx_")
    tables, width = [], 0
    for at, some in enumerate(categories):
        drop = None if dropped is None else dropped[at]
        codes, count, other = _positions(some.tolist(), rare[at], drop)
        other = other if unknown == "infrequent_if_exist" else -1
        spread = [-1 if code < 0 else width + code for code in codes]
        nowhere = None if unknown == "error" else -1 if other < 0 else width + other
        tables.append(Codes.of(some.tolist(), spread, nowhere))
        width += count
    return OneHot(tuple(tables), width, bool(estimator.sparse_output), dtype)


def _positions(categories: list[Any], rare: Any, drop: int | None) -> tuple[list[int], int, int]:
    """Return the column of each category, how many there are, and that of infrequent ones.

    The infrequent ones share the last column. A dropped one has none: -1.
    """
    few = set() if rare is None else {_key(one) for one in rare.tolist()}
    codes, count = [], 0
    for category in categories:
        codes.append(-1 if _key(category) in few else count)
        count += codes[-1] >= 0
    other = count if few else -1
    codes = [other if code < 0 else code for code in codes]
    count += bool(few)
    if drop is not None:
        gone = codes[drop]
        codes = [-1 if code == gone else code - (code > gone) for code in codes]
        other = -1 if other == gone else other - (other > gone)
        count -= 1
    return codes, count, other


def _key(category: Any) -> Any:
    return "NaN", is_nan(category) or category


@dataclass(frozen=True, eq=False)
class Ordinal:
    """The number of each cell's category."""

    tables: tuple[Codes, ...]
    dtype: DTypeLike

    def __call__(self, X: Any) -> NDArray[Any]:
        """Return the numbers, (n_rows, n_columns)."""
        numbers = np.array(coded(self.tables, X), self.dtype)
        return np.ascontiguousarray(numbers.T)

    def for_one(self) -> OneRow:
        """Return the numbers as a list."""
        return coded_row(self.tables)


def _ordinal(estimator: Any, method: str) -> Kernel | None:
    """What each category becomes is asked of the encoder: infrequent and missing ones differ."""
    categories, unknown = look(estimator, "categories_"), look(estimator, "handle_unknown")
    dtype = np.dtype(estimator.dtype)
    if method != "transform" or dtype.kind not in "iuf" or dtype in (np.float16, np.float32):
        return None
    longest = max(map(len, categories))
    asked = [(some.tolist() * (longest // len(some) + 1))[:longest] for some in categories]
    names = look(estimator, "feature_names_in_")
    codes = estimator.transform(Frame(asked, names, longest).plain()).T.tolist()
    other = dtype.type(estimator.unknown_value).item() if unknown == "use_encoded_value" else None
    tables = [
        Codes.of(some.tolist(), made[: len(some)], other)
        for some, made in zip(categories, codes, strict=True)
    ]
    return Ordinal(tuple(tables), dtype)


@dataclass(frozen=True, eq=False)
class Target:
    """What the target was for each cell's category: one number, or one for each class."""

    tables: tuple[Codes, ...]
    values: tuple[NDArray[np.float64], ...]  # of each column (n_categories + 1, n), unknown last

    def __call__(self, X: Any) -> NDArray[np.float64]:
        """Return the numbers, (n_rows, n_columns or n_columns * n_classes)."""
        codes = coded(self.tables, X)
        found = [values[some] for values, some in zip(self.values, codes, strict=True)]
        return np.concatenate(found, axis=1)

    def for_one(self) -> OneRow:
        """Return the numbers as a list."""
        codes_of, values = coded_row(self.tables), [one.tolist() for one in self.values]

        def row(cells: Sequence[Any]) -> list[float]:
            made: list[float] = []
            for code, rows in zip(codes_of(cells), values, strict=True):
                made += rows[code]
            return made

        return row


def _target(estimator: Any, method: str) -> Kernel | None:
    categories, encodings = look(estimator, "categories_"), look(estimator, "encodings_")
    if method != "transform" or not encodings:
        return None
    each = len(encodings) // len(categories)
    means = np.atleast_1d(estimator.target_mean_)
    tables, values = [], []
    for at, some in enumerate(categories):
        mine = np.column_stack(encodings[at * each : (at + 1) * each])
        tables.append(Codes.of(some.tolist(), range(len(some)), len(some)))
        values.append(np.vstack([mine, means]))
    return Target(tuple(tables), tuple(values))


KERNELS: dict[str, Builder] = {
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "TargetEncoder": _target,
}
