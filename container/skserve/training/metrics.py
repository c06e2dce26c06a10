"""The numbers that say how good predictions are, by what the estimator is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def measure_predictions(
    kind: str, fitted: Any, X: Any, y: Any
) -> tuple[dict[str, float], NDArray[Any], NDArray[Any] | None]:
    """Return the metrics of predictions for X, the predictions, and the score of two classes."""
    predicted = np.asarray(fitted.predict(X))
    shares = score = None
    if kind == "classifier":
        shares = answers_of(fitted, "predict_proba", X)
        score = shares[:, 1] if shares is not None else answers_of(fitted, "decision_function", X)
        if score is not None and (score.ndim != 1 or len(fitted.classes_) != 2):
            score = None
    metrics = {}
    for name, measure in METRICS[kind].items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of classes that a small part has no rows of
                value = measure(y, predicted, shares, score, fitted)
        except ValueError:
            continue  # this metric is not defined for this data
        if value is not None and np.isfinite(value):
            metrics[name] = float(value)
    return metrics, predicted, score


def answers_of(fitted: Any, method: str, X: Any) -> NDArray[Any] | None:
    try:
        return np.asarray(getattr(fitted, method)(X))
    except (AttributeError, NotImplementedError):
        return None


def _metric(name: str, **more: Any) -> Callable[..., Any]:
    def measure(y: Any, predicted: Any, shares: Any, score: Any, fitted: Any) -> Any:
        import sklearn.metrics

        return getattr(sklearn.metrics, name)(y, predicted, **more)

    return measure


def _log_loss(y: Any, predicted: Any, shares: Any, score: Any, fitted: Any) -> Any:
    from sklearn.metrics import log_loss

    return None if shares is None else log_loss(y, shares, labels=fitted.classes_)


def _roc_auc(y: Any, predicted: Any, shares: Any, score: Any, fitted: Any) -> Any:
    from sklearn.metrics import roc_auc_score

    if score is not None:
        return roc_auc_score(y == fitted.classes_[1], score)
    if shares is None:
        return None
    return roc_auc_score(y, shares, multi_class="ovr", labels=fitted.classes_)


def _rmse(y: Any, predicted: Any, shares: Any, score: Any, fitted: Any) -> Any:
    return np.sqrt(np.mean((y - predicted) ** 2))


METRICS: dict[str, dict[str, Callable[..., Any]]] = {
    "classifier": {
        "accuracy": _metric("accuracy_score"),
        "balanced_accuracy": _metric("balanced_accuracy_score"),
        "f1": _metric("f1_score", average="macro"),
        "roc_auc": _roc_auc,
        "log_loss": _log_loss,
    },
    "regressor": {
        "rmse": _rmse,
        "mae": _metric("mean_absolute_error"),
        "r2": _metric("r2_score"),
    },
}
