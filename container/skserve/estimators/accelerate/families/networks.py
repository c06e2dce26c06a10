"""Multi-layer perceptrons: a product and a curve for each layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.families.linear import Product
from skserve.estimators.accelerate.kernel import Builder, Floats, Kernel
from skserve.estimators.accelerate.links import Apply, Pick, sigmoid, softmax
from skserve.estimators.methods import look


def _relu(values: Floats) -> Floats:
    return np.maximum(values, 0)


def _identity(values: Floats) -> Floats:
    return values


CURVES: dict[str, Callable[[Floats], Floats]] = {
    "exp": np.exp,
    "identity": _identity,
    "logistic": sigmoid,
    "relu": _relu,
    "softmax": softmax,
    "tanh": np.tanh,
}


@dataclass(frozen=True, eq=False)
class Layers:
    """The last layer's values, (n_rows, n_outputs)."""

    first: Product
    others: tuple[tuple[NDArray[Any], NDArray[Any]], ...]  # weights and intercepts
    hidden: str
    last: str

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for rows that are not finite."""
        hidden, values = CURVES[self.hidden], self.first(X)
        for weights, intercepts in self.others:
            values = hidden(values) @ weights + intercepts
        return CURVES[self.last](values)


def _layers(estimator: Any) -> Layers | None:
    coefs, intercepts = estimator.coefs_, estimator.intercepts_
    hidden, last = estimator.activation, estimator.out_activation_
    if hidden not in CURVES or last not in CURVES or coefs[0].dtype != np.float64:
        return None
    others = tuple(zip(coefs[1:], intercepts[1:], strict=True))
    return Layers(Product(coefs[0], intercepts[0]), others, hidden, last)


def _flat(values: Floats) -> Floats:
    return values.ravel() if values.shape[1] == 1 else values


def _two(values: Floats) -> Floats:
    if values.shape[1] == 1:
        second = values.ravel()
        return np.stack([1 - second, second], axis=1)
    return values


def _above_half(values: Floats) -> Floats:
    return values.ravel() - 0.5 if values.shape[1] == 1 else values


def _classifier(estimator: Any, method: str) -> Kernel | None:
    layers, kind = _layers(estimator), look(estimator._label_binarizer, "y_type_")
    if layers is None or kind not in ("binary", "multiclass"):
        return None
    p = Apply(layers, _two)
    kernels: dict[str, Kernel] = {
        "predict": Pick(Apply(layers, _above_half), estimator.classes_),
        "predict_proba": p,
        "predict_log_proba": Apply(p, np.log),
    }
    return kernels.get(method)


def _regressor(estimator: Any, method: str) -> Kernel | None:
    layers = _layers(estimator)
    return Apply(layers, _flat) if layers and method == "predict" else None


KERNELS: dict[str, Builder] = {"MLPClassifier": _classifier, "MLPRegressor": _regressor}
