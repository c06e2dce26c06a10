"""What stands around one model: another target, another threshold, or nothing at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Kernel
from skserve.estimators.accelerate.links import Second
from skserve.estimators.accelerate.registry import Part, kernel, part
from skserve.estimators.methods import look


@dataclass(frozen=True, eq=False)
class Untransformed:
    """A regressor whose target was transformed: the inverse of what it says."""

    regressor: Part
    inverse: Kernel
    flat: bool  # the target had one dimension

    def __call__(self, X: Any) -> Any:
        """Return (n_rows,) or (n_rows, n_targets)."""
        said = self.regressor(X)
        values = self.inverse(said.reshape(-1, 1) if said.ndim == 1 else said)
        return values.squeeze(axis=1) if self.flat and values.shape[1] == 1 else values


def _transformed_target(estimator: Any, method: str) -> Kernel | None:
    regressor, transformer = part(estimator.regressor_, "predict"), estimator.transformer_
    back = look(transformer, "inverse_func")
    plain = type(transformer).__name__ == "FunctionTransformer" and isinstance(back, np.ufunc)
    inverse = back if plain else part(transformer, "inverse_transform")
    if method != "predict" or regressor is None or regressor.fast is None or inverse is None:
        return None
    return Untransformed(regressor, inverse, look(estimator, "_training_dim") == 1)


@dataclass(frozen=True, eq=False)
class Threshold:
    """One label from a score up, the other below it."""

    scores: Kernel
    threshold: float
    labels: NDArray[Any]  # (2,): below, from the threshold up

    def __call__(self, X: Any) -> NDArray[Any]:
        """Return the labels (n_rows,)."""
        labels: NDArray[Any] = self.labels[(self.scores(X) >= self.threshold).astype(int)]
        return labels


def _threshold(estimator: Any, method: str) -> Kernel | None:
    inner = look(estimator, "estimator_") or estimator.estimator
    if method != "predict":
        return kernel(inner, method)
    asked = look(estimator, "response_method")
    names = ("predict_proba", "decision_function") if asked == "auto" else (asked,)
    name = next(one for one in names if callable(look(inner, one)))
    scores, classes = part(inner, name), estimator.classes_
    threshold, label = look(estimator, "best_threshold_"), look(estimator, "pos_label")
    if threshold is None:
        threshold = estimator.threshold
        if threshold == "auto":
            threshold = 0.5 if name == "predict_proba" else 0.0
    else:
        label = estimator._curve_scorer._get_pos_label()
    if scores is None or scores.fast is None or len(classes) != 2:
        return None
    at = 1 if label is None else int(np.flatnonzero(classes == label)[0])
    order = np.array([1 - at, at])
    return Threshold(Second(scores, at, 1 if at else -1), float(threshold), classes[order])


def _frozen(estimator: Any, method: str) -> Kernel | None:
    return kernel(estimator.estimator, method)


KERNELS: dict[str, Builder] = {
    "FixedThresholdClassifier": _threshold,
    "FrozenEstimator": _frozen,
    "TransformedTargetRegressor": _transformed_target,
    "TunedThresholdClassifierCV": _threshold,
}
