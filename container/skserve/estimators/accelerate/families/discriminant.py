"""Discriminant analysis: linear as a linear model and a projection, quadratic by distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skserve.estimators.accelerate.families.bayes import log_shares
from skserve.estimators.accelerate.families.linear import Product, classifier, probabilities
from skserve.estimators.accelerate.kernel import Builder, Floats, Kernel, finite
from skserve.estimators.accelerate.links import Apply, Pick, Softmax
from skserve.estimators.methods import look


def _linear(estimator: Any, method: str) -> Kernel | None:
    if method == "transform":
        return _projection(estimator)
    if method in ("predict_proba", "predict_log_proba"):
        p = probabilities(estimator, len(estimator.classes_) == 2, "predict_proba")
        return p if p is None or method == "predict_proba" else Apply(p, _logarithms)
    return classifier(estimator, method)


def _logarithms(p: Floats) -> Floats:
    """Return logarithms, with the smallest positive number in the place of zero."""
    p[p == 0.0] += np.finfo(np.float64).smallest_normal
    return np.log(p)


def _projection(estimator: Any) -> Kernel | None:
    scalings, middle = look(estimator, "scalings_"), look(estimator, "xbar_")
    count = look(estimator, "_max_components")
    if scalings is None or count is None or estimator.solver not in ("svd", "eigen"):
        return None
    weights = scalings[:, :count]
    offset = -(middle @ weights) if estimator.solver == "svd" else np.zeros(weights.shape[1])
    return Product(weights, offset)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """How near each class is, in its own directions and lengths: (n_rows, n_classes)."""

    means: Floats  # (n_classes, n_features)
    turns: tuple[Floats, ...]  # of each class (n_features, n)
    constant: Floats  # (n_classes,)

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for rows that are not finite."""
        rows = finite(X)
        squares = []
        for mean, turn in zip(self.means, self.turns, strict=True):
            rest = (rows - mean) @ turn
            squares.append(np.einsum("ij,ij->i", rest, rest))
        return self.constant - 0.5 * np.stack(squares, axis=1)


def _second_less_first(values: Floats) -> Floats:
    return values[:, 1] - values[:, 0] if values.shape[1] == 2 else values


def _quadratic(estimator: Any, method: str) -> Kernel | None:
    lengths = estimator.scalings_
    turns = tuple(
        turn * length**-0.5 for turn, length in zip(estimator.rotations_, lengths, strict=True)
    )
    spread = np.array([np.log(length).sum() for length in lengths])
    constant = np.log(estimator.priors_) - 0.5 * spread
    values = Quadratic(np.asarray(estimator.means_), turns, constant)
    p = Softmax(values)
    # Older versions take the logarithm of the probabilities, which may be zero.
    stable = "Mixin" in look(look(estimator, "predict_log_proba"), "__qualname__")
    kernels: dict[str, Kernel] = {
        "predict": Pick(values, estimator.classes_),
        "predict_proba": p,
        "predict_log_proba": Apply(values, log_shares) if stable else Apply(p, np.log),
        "decision_function": Apply(values, _second_less_first),
    }
    return kernels.get(method)


KERNELS: dict[str, Builder] = {
    "LinearDiscriminantAnalysis": _linear,
    "QuadraticDiscriminantAnalysis": _quadratic,
}
