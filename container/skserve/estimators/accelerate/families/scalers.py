"""Transformers that treat each number by itself: scalers, Normalizer, Binarizer, functions.

Only `transform`, and its inverse of scalers, which targets are scaled back by.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
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
    dense,
    finite,
    without_infinity,
)
from skserve.estimators.methods import look


@dataclass(frozen=True, eq=False)
class Scaler:
    """A chain of operations with one value a column, such as X - mean_, / scale_."""

    chain: tuple[tuple[np.ufunc, Floats], ...]
    clip: tuple[float, float] | None = None

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for infinity."""
        rows = without_infinity(X)
        for operation, values in self.chain:
            rows = operation(rows, values)
        return np.clip(rows, *self.clip) if self.clip else rows

    def for_one(self) -> OneRow | None:
        """Return the same operations of Python."""
        chain = [(PLAIN[operation], values.tolist()) for operation, values in self.chain]
        if self.clip:
            return None

        def row(cells: Sequence[Any]) -> list[Any]:
            if inf in cells or -inf in cells:
                raise Declined
            made = cells
            for operation, values in chain:
                made = list(map(operation, made, values))
            return list(made)

        return row


PLAIN: dict[np.ufunc, Callable[[Any, Any], Any]] = {
    np.subtract: operator.sub,
    np.add: operator.add,
    np.divide: operator.truediv,
    np.multiply: operator.mul,
}

INVERSE: dict[np.ufunc, np.ufunc] = {
    np.subtract: np.add,
    np.add: np.subtract,
    np.divide: np.multiply,
    np.multiply: np.divide,
}


def _scaler(*steps: tuple[np.ufunc, str, str | None]) -> Builder:
    """Make the builder of a chain.

    Each step is an operation, the fitted attribute it takes, and the parameter that switches it.
    """

    def build(estimator: Any, method: str) -> Kernel | None:
        if method not in ("transform", "inverse_transform"):
            return None
        chain = []
        for operation, attribute, switch in steps:
            if switch is not None and not look(estimator, switch):
                continue
            values = look(estimator, attribute)
            if not isinstance(values, np.ndarray):
                return None
            chain.append((operation, values.astype(np.float64)))
        if method == "inverse_transform":
            return Scaler(tuple((INVERSE[one], values) for one, values in reversed(chain)))
        low, high = look(estimator, "feature_range") or (-1.0, 1.0)
        return Scaler(tuple(chain), (low, high) if look(estimator, "clip") else None)

    return build


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Each row divided by its norm: l1, l2 or max."""

    norm: str

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for rows that are not finite."""
        rows = finite(X)
        norms: NDArray[np.float64]
        if self.norm == "l2":
            norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        else:
            sizes = np.abs(rows)
            norms = sizes.sum(axis=1) if self.norm == "l1" else sizes.max(axis=1)
        norms[norms < 10 * np.finfo(np.float64).eps] = 1.0  # as scikit-learn treats zero vectors
        return rows / norms[:, None]


def _normalizer(estimator: Any, method: str) -> Kernel | None:
    return Normalizer(estimator.norm) if method == "transform" else None


@dataclass(frozen=True, eq=False)
class Binarizer:
    """A one where a value is above the threshold."""

    threshold: float

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for rows that are not finite."""
        return (finite(X) > self.threshold).astype(np.float64)


def _binarizer(estimator: Any, method: str) -> Kernel | None:
    return Binarizer(estimator.threshold) if method == "transform" else None


class Same:
    """The rows as they are: what "passthrough" means."""

    def __call__(self, X: Any) -> Any:
        """Return X itself."""
        return X

    def for_one(self) -> OneRow:
        """Return the cells themselves."""
        return list


@dataclass(frozen=True, eq=False)
class Function:
    """A function of numpy for each number."""

    function: np.ufunc
    checked: bool  # scikit-learn refuses what is not finite

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for what would be refused."""
        return self.function(finite(X) if self.checked else dense(X))  # type: ignore[no-any-return]


def _function(estimator: Any, method: str) -> Kernel | None:
    """FunctionTransformer with a function of numpy for one number, or without any."""
    function, checked = look(estimator, "func"), bool(look(estimator, "validate"))
    if method != "transform" or look(estimator, "kw_args"):
        return None
    if function is None and not checked:  # what "passthrough" is in a fitted ColumnTransformer
        return Same()
    if look(estimator, "accept_sparse"):
        return None
    one = isinstance(function, np.ufunc) and (function.nin, function.nout) == (1, 1)
    return Function(function, checked) if one else None


KERNELS: dict[str, Builder] = {
    "Binarizer": _binarizer,
    "FunctionTransformer": _function,
    "MaxAbsScaler": _scaler((np.divide, "scale_", None)),
    "MinMaxScaler": _scaler((np.multiply, "scale_", None), (np.add, "min_", None)),
    "Normalizer": _normalizer,
    "RobustScaler": _scaler(
        (np.subtract, "center_", "with_centering"), (np.divide, "scale_", "with_scaling")
    ),
    "StandardScaler": _scaler(
        (np.subtract, "mean_", "with_mean"), (np.divide, "scale_", "with_std")
    ),
}
