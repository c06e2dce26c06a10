"""Which cells of a table are not as the fitted model learned them: a first sign of data drift.

Only what the model itself keeps is compared: the categories of encoders, and the limits that
MinMaxScaler, MaxAbsScaler, QuantileTransformer and KBinsDiscretizer store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.columns import Column
from skserve.estimators.frame import Frame
from skserve.estimators.kept import places
from skserve.estimators.methods import fitted_steps, look
from skserve.estimators.schema import Schema

Limits = list[tuple[float, float]]
ANY = (-math.inf, math.inf)


class Learned:
    """What one fitted model knows of its columns."""

    def __init__(self, estimator: object, schema: Schema) -> None:
        self._columns = schema.columns
        self._known = [_known(column) for column in schema.columns]
        self._used = np.array([column.kind != "unused" for column in schema.columns])
        limits = limits_of(estimator, len(schema.columns), schema.names)
        self._low, self._high = np.array(limits or [ANY]).T
        self._limited = any(one != ANY for one in limits)
        self._plain = schema.numeric and not (self._limited or any(self._known))

    def count(self, X: Any) -> list[list[int]] | None:
        """Count for each column of X (n_rows, n_features) the cells that are missing, unseen as a
        category, and out of range. None where X is no table of this model, or nothing is to count.
        """
        numbers = isinstance(X, np.ndarray) and X.dtype.kind == "f"
        if self._plain and numbers and (squares := np.vdot(X, X)) == squares:
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
            X = X.objects()
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

    def _of_objects(self, X: NDArray[Any]) -> list[list[int]]:
        counts: list[list[int]] = [[], [], []]
        for at, column in enumerate(self._columns):
            cells, known = X[:, at].tolist() if self._used[at] else [], self._known[at]
            there = [cell for cell in cells if not _is_missing(cell, column)]
            unseen = sum(cell not in known for cell in there) if known else 0
            outside = 0
            if (self._low[at], self._high[at]) != ANY:
                outside = sum(
                    isinstance(cell, float) and not self._low[at] <= cell <= self._high[at]
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


def limits_of(estimator: object, count: int, names: tuple[str, ...] | None) -> Limits:
    """Return the least and the greatest value that a model keeps of each of its columns."""
    found = [ANY] * count
    routes = look(estimator, "transformers_")
    if isinstance(routes, list):
        for _, step, chosen in routes:
            if not isinstance(step, str):
                at = places(chosen, count, names)
                own = tuple(names[place] for place in at) if names else None
                for place, one in zip(at, limits_of(step, len(at), own), strict=True):
                    found[place] = _narrower(found[place], one)
        return found
    steps = fitted_steps(estimator)
    inner = look(estimator, "best_estimator_")
    for step in steps if inner is None else [inner]:
        if look(step, "n_features_in_") not in (count, None):
            break
        found = list(map(_narrower, found, limits_of(step, count, names)))
        if not _keeps_values(step):
            break
    return list(map(_narrower, found, _stored(estimator, count)))


def _keeps_values(step: object) -> bool:
    """Whether the step after this one meets the same values in the same columns."""
    if type(step).__name__ == "FunctionTransformer":
        return look(step, "func") is None
    return isinstance(look(step, "statistics_"), np.ndarray)


def _stored(step: object, count: int) -> Limits:
    greatest, edges = look(step, "max_abs_"), look(step, "bin_edges_")
    quantiles = look(step, "quantiles_")
    pairs: Sequence[Any] = [look(step, "data_min_"), look(step, "data_max_")]
    if isinstance(greatest, np.ndarray):
        pairs = [-greatest, greatest]
    elif isinstance(quantiles, np.ndarray) and quantiles.ndim == 2:
        pairs = [quantiles[0], quantiles[-1]]
    elif isinstance(edges, np.ndarray):
        pairs = [[one[0] for one in edges], [one[-1] for one in edges]]
    if any(one is None or len(one) != count for one in pairs):
        return [ANY] * count
    return [
        (float(low), float(high)) if low <= high else ANY
        for low, high in zip(*pairs, strict=True)  # NaN is a column without values
    ]


def _narrower(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return max(one[0], other[0]), min(one[1], other[1])
