"""Nearest neighbours: by brute force, or by the tree that scikit-learn has built.

By brute force `neighbour_search.py` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.distances import BLURRED_WEIGHT, METRICS, Metric
from skserve.estimators.accelerate.kernel import Builder, Declined, Floats, Kernel, finite
from skserve.estimators.accelerate.neighbour_search import QUERIES, SCORES, Indices, search
from skserve.estimators.methods import look

# Kernels of one estimator share what is packed, which lives as long as one of them.
_made: WeakValueDictionary[tuple[str, int], Metric] = WeakValueDictionary()


def _metric(estimator: Any) -> Metric | None:
    """Return the packed index of an estimator that searches by brute force, or None."""
    fitted, name = look(estimator, "_fit_X"), look(estimator, "effective_metric_")
    asked, p = look(estimator, "metric"), look(estimator, "p")
    if (
        look(estimator, "_fit_method") != "brute"
        or name not in METRICS
        or (asked != name and (asked, p) != ("minkowski", 2))
        or look(estimator, "effective_metric_params_")
        or not isinstance(fitted, np.ndarray)
        or fitted.ndim != 2
        or fitted.dtype.kind not in "fiu"
        or fitted.dtype.itemsize > 8
        or not 0 < fitted.shape[1] < 10**5
    ):
        return None
    key = (name, id(fitted))
    metric = _made.get(key)
    if metric is None:
        try:
            metric = _made[key] = METRICS[name](fitted)
        except Declined:
            return None
    return metric


@dataclass(frozen=True, eq=False)
class Nearest:
    """The distances and indices of the nearest neighbours, each (n_rows, k).

    Declines where a distance is no more than the part `blurred` of what it is the difference of.
    """

    metric: Metric
    k: int
    blurred: float

    def __call__(self, X: Any) -> tuple[Floats, Indices]:
        """Raise Declined for rows that are not finite, or where nothing is sure."""
        X, few = finite(X), max(QUERIES, SCORES // len(self.metric.fitted))
        with np.errstate(all="ignore"):
            some = [search(self.metric, X[at : at + few], self.k) for at in range(0, len(X), few)]
            distances, indices = map(np.concatenate, zip(*some, strict=True))
            if self.blurred and self.metric.lost(distances, X, self.blurred):
                raise Declined
        return distances, indices


@dataclass(frozen=True, eq=False)
class InTree:
    """The same out of a tree of scikit-learn's; what it leaves out is the threads around it."""

    tree: Any
    k: int

    def __call__(self, X: Any) -> tuple[Floats, Indices]:
        """Raise Declined for rows that are not finite."""
        distances, indices = self.tree.query(finite(X), self.k, return_distance=True)
        return distances, indices


def _nearest(estimator: Any, part: float | None = None) -> Kernel | None:
    """Return the search; `part` stands in for what is blurred in the distances themselves."""
    k, fitted = look(estimator, "n_neighbors"), look(estimator, "_fit_X")
    if look(estimator, "_fit_method") in ("kd_tree", "ball_tree"):
        plain = isinstance(look(estimator, "effective_metric_"), str)
        double = isinstance(fitted, np.ndarray) and fitted.dtype == np.float64
        return InTree(look(estimator, "_tree"), int(k)) if plain and double else None
    metric = _metric(estimator)
    if metric is None or not isinstance(k, int | np.integer) or not 0 < k <= len(metric.fitted):
        return None
    return Nearest(metric, int(k), metric.blurred if part is None else part)


@dataclass(frozen=True, eq=False)
class Weighted:
    """The weights of the neighbours, None where all are equal, and their indices."""

    nearest: Kernel
    by_distance: bool
    cosine: bool

    def __call__(self, X: Any) -> tuple[Floats | None, Indices]:
        """Raise Declined where what is near is not sure."""
        X = finite(X)
        if self.cosine and not X.any(axis=1).all():
            raise Declined  # all are as near to zero: the answer is which ones the estimator takes
        distances, indices = self.nearest(X)
        if self.by_distance and not distances.all():
            raise Declined  # a row that was fitted: its weight is infinite
        return (1.0 / distances if self.by_distance else None), indices


def _weighted(estimator: Any) -> Weighted | None:
    weights = look(estimator, "weights")
    if weights not in ("uniform", "distance", None):
        return None
    by_distance = weights == "distance"
    nearest = _nearest(estimator, BLURRED_WEIGHT if by_distance else 0.0)
    cosine = look(estimator, "effective_metric_") == "cosine"
    return None if nearest is None else Weighted(nearest, by_distance, cosine)


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of what the neighbours were fitted with."""

    weighted: Kernel
    columns: NDArray[Any]  # (n_fitted, n_outputs)
    flat: bool

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows,) or (n_rows, n_outputs)."""
        weights, indices = self.weighted(X)
        near, values = self.columns[indices], np.empty((len(indices), self.columns.shape[1]))
        if weights is None:
            values = near.mean(axis=1)
        else:
            for output in range(self.columns.shape[1]):
                # By column, as scikit-learn adds them: the order decides the last bits.
                values[:, output] = np.sum(near[:, :, output] * weights, axis=1)
            values /= weights.sum(axis=1)[:, None]
        return values.reshape(-1) if self.flat else values


@dataclass(frozen=True, eq=False)
class Votes:
    """The sum of weights by class, (n_rows, n_classes) for each output."""

    weighted: Kernel
    columns: NDArray[Any]  # the class of each fitted row, (n_fitted, n_outputs)
    classes: tuple[NDArray[Any], ...]

    def __call__(self, X: Any) -> list[Floats]:
        """Return one array for each output."""
        weights, indices = self.weighted(X)
        rows, sums = np.arange(len(indices)), []
        for output, names in enumerate(self.classes):
            labels, votes = self.columns[indices, output], np.zeros((len(rows), len(names)))
            for rank in range(indices.shape[1]):
                votes[rows, labels[:, rank]] += 1.0 if weights is None else weights[:, rank]
            sums.append(votes)
        return sums


@dataclass(frozen=True, eq=False)
class Elected:
    """What the votes say: the class with most of them, or the part of each."""

    votes: Votes
    several: bool
    shares: bool

    def __call__(self, X: Any) -> Any:
        """Return labels (n_rows,) or (n_rows, n_outputs), or probabilities, a list if `several`."""
        votes = self.votes(X)
        if self.shares:
            parts = [one / one.sum(axis=1, keepdims=True) for one in votes]
            return parts if self.several else parts[0]
        each = zip(self.votes.classes, votes, strict=True)
        chosen = [names[one.argmax(axis=1)] for names, one in each]
        return np.stack(chosen, axis=1) if self.several else chosen[0]


def _unsupervised(estimator: Any, method: str) -> Kernel | None:
    return _nearest(estimator) if method == "kneighbors" else None


def _regressor(estimator: Any, method: str) -> Kernel | None:
    if method != "predict":
        return _unsupervised(estimator, method)
    weighted, y = _weighted(estimator), look(estimator, "_y")
    if weighted is None or not isinstance(y, np.ndarray):
        return None
    return Mean(weighted, y.reshape(len(y), -1), y.ndim == 1)


def _classifier(estimator: Any, method: str) -> Kernel | None:
    if method not in ("predict", "predict_proba"):
        return _unsupervised(estimator, method)
    weighted, y = _weighted(estimator), look(estimator, "_y")
    several, classes = look(estimator, "outputs_2d_"), look(estimator, "classes_")
    if weighted is None or not isinstance(y, np.ndarray) or classes is None:
        return None
    each = tuple(classes) if several else (classes,)
    votes = Votes(weighted, y.reshape(len(y), -1), each)
    return Elected(votes, bool(several), method == "predict_proba")


KERNELS: dict[str, Builder] = {
    "NearestNeighbors": _unsupervised,
    "KNeighborsClassifier": _classifier,
    "KNeighborsRegressor": _regressor,
}
