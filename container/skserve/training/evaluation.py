"""How good a fitted model is: by a validation channel, by cross-validation, or by its own data.

What is measured follows from what the estimator is. The names of the metrics are the same for both
ways, so that one metric definition, or one tuning objective, serves both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.training.dataset import Dataset
from skserve.training.metrics import METRICS, answers_of, measure_predictions

log = logging.getLogger("skserve")

_SAMPLE = 2000  # rows that are looked at where looking at all of them would take squares
_SEED = 0


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, how they were found, and what plots are drawn from.

    `truth`, `predicted` and `score` (of the second of two classes) have one value a row evaluated.
    """

    kind: str
    how: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    truth: NDArray[Any] | None = None
    predicted: NDArray[Any] | None = None
    score: NDArray[Any] | None = None
    measured: NDArray[Any] | None = None  # a number a row: a distance, a cluster, -1 for an outlier


def kind_of(estimator: Any) -> str:
    """Return classifier, regressor, outliers, clusterer, neighbours or other."""
    from sklearn.base import is_classifier, is_outlier_detector, is_regressor

    if is_classifier(estimator):
        return "classifier"
    if is_regressor(estimator):
        return "regressor"
    if is_outlier_detector(estimator):
        return "outliers"
    last = last_step(estimator)
    if hasattr(last, "fit_predict"):
        return "clusterer"
    return "neighbours" if hasattr(last, "kneighbors") else "other"


def last_step(estimator: Any) -> Any:
    """Return what a Pipeline ends in, or the estimator itself."""
    return estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator


def evaluate(
    unfitted: Any, fitted: Any, train: Dataset, validation: Dataset | None, folds: int
) -> Evaluation:
    """Measure `fitted`; `unfitted` is a copy to be fitted on parts of `train`."""
    kind = kind_of(fitted)
    if kind not in METRICS:
        return _by_itself(kind, fitted, train)
    if train.y is None:
        return Evaluation(kind)
    if validation is not None and validation.y is not None:
        return _by_channel(kind, fitted, validation)
    return _by_folds(kind, unfitted, train, folds)


def _by_channel(kind: str, fitted: Any, validation: Dataset) -> Evaluation:
    metrics, predicted, score = measure_predictions(kind, fitted, validation.X, validation.y)
    metrics = {f"validation_{name}": value for name, value in metrics.items()}
    how = f"the validation channel, {len(predicted):,} rows"
    return Evaluation(kind, how, metrics, validation.y, predicted, score)


def _by_folds(kind: str, unfitted: Any, train: Dataset, folds: int) -> Evaluation:
    from sklearn.base import clone

    assert train.y is not None
    splits = list(_splits(kind, train, folds))
    if not splits:
        return Evaluation(kind)
    found, truths, answers, scores = [], [], [], []
    for number, (fitting, testing) in enumerate(splits, 1):
        began = time.monotonic()
        fitted = clone(unfitted).fit(_rows(train.X, fitting), train.y[fitting])
        X, y = _rows(train.X, testing), train.y[testing]
        metrics, predicted, score = measure_predictions(kind, fitted, X, y)
        found.append(metrics)
        truths.append(y)
        answers.append(predicted)
        scores.append(score)
        said = " ".join(f"{name}={value:.6g}" for name, value in metrics.items())
        seconds = time.monotonic() - began
        log.info("fold %d of %d: %s in %.1f s", number, len(splits), said, seconds)
    names = [name for name in found[0] if all(name in one for one in found)]
    means = {f"validation_{name}": float(np.mean([one[name] for one in found])) for name in names}
    kept = [one for one in scores if one is not None]
    return Evaluation(
        kind,
        f"cross-validation, {len(splits)} folds of {len(train.y):,} rows, shuffled",
        means,
        np.concatenate(truths),
        np.concatenate(answers),
        np.concatenate(kept) if len(kept) == len(scores) else None,
    )


def _splits(kind: str, train: Dataset, folds: int) -> Iterator[tuple[Any, Any]]:
    """Split the rows; fewer folds, or none, where the data does not have enough rows of a class."""
    from sklearn.model_selection import KFold, StratifiedKFold

    assert train.y is not None
    most = len(train.y)
    if kind == "classifier":
        most = int(np.unique(_plain(train.y), return_counts=True)[1].min())
    if min(folds, most) < 2:
        if folds:
            log.info("Too few rows for cross-validation; give a validation channel.")
        return
    if most < folds:
        log.info("%d folds, because the smallest class has %d rows", most, most)
    split = StratifiedKFold if kind == "classifier" else KFold
    folded = split(min(folds, most), shuffle=True, random_state=_SEED)
    yield from folded.split(np.zeros(len(train.y)), _plain(train.y))


def _plain(y: NDArray[Any]) -> NDArray[Any]:
    return y.astype(str) if y.dtype == object else y


def _rows(X: Any, places: NDArray[Any]) -> Any:
    if hasattr(X, "iloc"):
        return X.iloc[places]
    return [X[at] for at in places] if isinstance(X, list) else X[places]


# ---- without a target


def _by_itself(kind: str, fitted: Any, train: Dataset) -> Evaluation:
    """Describe a model that has nothing to compare with, by the data it was fitted on."""
    metrics, measured = _OWN.get(kind, _of_other)(fitted, train)
    how = "the training data itself" if metrics else ""
    named = {f"train_{name}": float(value) for name, value in metrics.items()}
    return Evaluation(kind, how, named, measured=measured)


def _sampled(X: Any) -> Any:
    count = len(X)
    if count <= _SAMPLE:
        return X
    return _rows(X, np.sort(np.random.default_rng(_SEED).choice(count, _SAMPLE, replace=False)))


def _reach(fitted: Any, X: Any) -> Any:
    """Take X through all but the last step of a Pipeline."""
    return fitted[:-1].transform(X) if hasattr(fitted, "steps") and len(fitted.steps) > 1 else X


def _of_neighbours(fitted: Any, train: Dataset) -> tuple[dict[str, float], NDArray[Any] | None]:
    if len(train.X) < 2:
        return {}, None
    sample = _reach(fitted, _sampled(train.X))
    nearest = last_step(fitted).kneighbors(sample, n_neighbors=2)[0][:, 1]  # the first is itself
    found = {"nearest_distance": float(np.mean(nearest))}
    return found | {"nearest_distance_median": float(np.median(nearest))}, nearest


def _of_clusters(fitted: Any, train: Dataset) -> tuple[dict[str, float], NDArray[Any] | None]:
    from sklearn.metrics import silhouette_score

    labels = getattr(last_step(fitted), "labels_", None)
    if labels is None:
        labels = fitted.predict(train.X)
    found = {"clusters": float(len(set(labels.tolist()) - {-1}))}
    if 2 <= len(set(labels.tolist())) < min(len(labels), _SAMPLE):
        X = _reach(fitted, train.X)
        found["silhouette"] = silhouette_score(
            X, labels, sample_size=min(_SAMPLE, len(labels)), random_state=_SEED
        )
    return found, labels


def _of_outliers(fitted: Any, train: Dataset) -> tuple[dict[str, float], NDArray[Any] | None]:
    predicted = answers_of(fitted, "predict", _sampled(train.X))
    if predicted is None:
        return {}, None
    return {"outliers": float(np.mean(predicted == -1))}, predicted


def _of_other(fitted: Any, train: Dataset) -> tuple[dict[str, float], NDArray[Any] | None]:
    explained = getattr(last_step(fitted), "explained_variance_ratio_", None)
    if explained is None:
        return {}, None
    return {"explained_variance": float(np.sum(explained))}, np.asarray(explained)


_OWN = {"neighbours": _of_neighbours, "clusterer": _of_clusters, "outliers": _of_outliers}
