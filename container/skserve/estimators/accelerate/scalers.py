"""Transformers that treat each column by itself: scalers, imputers, pass-through.

Only `transform`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Kernel, finite, without_infinity
from skserve.estimators.methods import look


def _transformer(*steps: tuple[np.ufunc, str, str | None]) -> Builder:
    """Make the builder of a chain such as X - mean_, / scale_.

    Each step is an operation, the fitted attribute it takes, and the parameter that switches it.
    """

    def build(estimator: Any, method: str) -> Kernel | None:
        if method != "transform":
            return None
        chain = []
        for operation, attribute, switch in steps:
            if switch is not None and not look(estimator, switch):
                continue
            values = look(estimator, attribute)
            if not isinstance(values, np.ndarray):
                return None
            chain.append((operation, values.astype(np.float64)))
        low, high = look(estimator, "feature_range") or (-1.0, 1.0)
        clipped = bool(look(estimator, "clip"))

        def transform(X: NDArray[np.float64]) -> NDArray[np.float64]:
            X = without_infinity(X)
            for operation, values in chain:
                X = operation(X, values)
            return np.clip(X, low, high) if clipped else X

        return transform

    return build


def _imputer(estimator: Any, method: str) -> Kernel | None:
    """SimpleImputer of numbers: the learned statistic in place of NaN."""
    statistics = look(estimator, "statistics_")
    plain = (
        method == "transform"
        and not look(estimator, "add_indicator")
        and _is_nan(look(estimator, "missing_values"))
        and isinstance(statistics, np.ndarray)
        and statistics.dtype == np.float64
        and not np.isnan(statistics).any()  # such a column is dropped
    )
    if not plain:
        return None

    def transform(X: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(np.isnan(without_infinity(X)), statistics, X)

    return transform


def _normalizer(estimator: Any, method: str) -> Kernel | None:
    if method != "transform" or look(estimator, "norm") != "l2":
        return None

    def transform(X: NDArray[np.float64]) -> NDArray[np.float64]:
        X = finite(X)
        norms: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", X, X))
        norms[norms < 10 * np.finfo(np.float64).eps] = 1.0  # as scikit-learn treats zero vectors
        return X / norms[:, None]

    return transform


def _function(estimator: Any, method: str) -> Kernel | None:
    """FunctionTransformer without a function: what a ColumnTransformer makes of "passthrough"."""
    same = (
        method == "transform"
        and look(estimator, "func") is None
        and not look(estimator, "validate")
    )
    return (lambda X: X) if same else None


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


KERNELS: dict[str, Builder] = {
    "FunctionTransformer": _function,
    "MaxAbsScaler": _transformer((np.divide, "scale_", None)),
    "MinMaxScaler": _transformer((np.multiply, "scale_", None), (np.add, "min_", None)),
    "Normalizer": _normalizer,
    "RobustScaler": _transformer(
        (np.subtract, "center_", "with_centering"), (np.divide, "scale_", "with_scaling")
    ),
    "SimpleImputer": _imputer,
    "StandardScaler": _transformer(
        (np.subtract, "mean_", "with_mean"), (np.divide, "scale_", "with_std")
    ),
}
