"""Nearest neighbours by brute force: all in one float32 product, the few that matter in float64.

The fitted vectors are packed once, so that the *score* of each with a query is one dot product, and
the higher the score the nearer the vector: its direction for cosine; for euclidean what is left of
it from the centre, and one column more, because -|x - y|^2 / 2 = x.y - |y|^2 / 2 - |x|^2 / 2.

float32 misorders what lies close together, so it only leaves out what is proved to be no neighbour.
A dot product of m numbers, added up in any order, with or without fused multiply-add, is off by at
most gamma(m) |x||y|, where gamma(m) = m u / (1 - m u) and u = 2^-24 (Higham, Accuracy and Stability
of Numerical Algorithms, 3.1); rounding the vectors to float32 counts as two steps more. k vectors
score t or better, so the k nearest score t less twice that error, or better. Those are measured in
float64 with scikit-learn's formulas, and ordered by distance, then by index. Where they are too
many, as in an index of equal vectors, or nothing is sure, the estimator itself is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Declined, Kernel, finite
from skserve.estimators.methods import look

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

UNIT32, UNIT64 = 2.0**-24, 2.0**-53

# Lost at most in one step of float32 below its normal range, where some libraries flush to zero.
TINY = 2.0**-125

# scikit-learn leaves a vector that is shorter as it is when it normalises.
SHORT = 10 * np.finfo(np.float64).eps

# Scores in memory at a time, 2 MiB: they stay in the cache between the product and the search.
SCORES = 2**19

# Queries in one product, at most, where the index is large.
QUERIES = 128

# scikit-learn computes |x|^2 - 2 x.y + |y|^2, where digits cancel that x - y keeps. A square below
# these parts of |x|^2 shows its rounding, so that only scikit-learn knows what it says: in a
# distance, and in a weight that is one divided by it.
BLURRED, BLURRED_WEIGHT = 2.0**-18, 2.0**-10


def _gamma(terms: int) -> float:
    """Bound the relative error of a float32 sum of products; with some steps to spare."""
    return (terms + 8) * UNIT32 / (1 - (terms + 8) * UNIT32)


class _Cosine:
    """Cosine distances: 1 - x.y of vectors made one long."""

    blurred = 0.0  # nothing cancels: the distance is off by some units of 2^-53

    def __init__(self, fitted: NDArray[Any]) -> None:
        self.fitted = fitted
        count = fitted.shape[1]
        self._error = _gamma(count) + 2 * count * TINY + 4 * (count + 8) * UNIT64
        self.packed = _packed(fitted, count, lambda block, out: np.copyto(out, _normalised(block)))

    def queries(self, X: Floats) -> tuple[NDArray[np.float32], Floats]:
        """Return the float32 factor of the product, and the lengths. Raises Declined."""
        lengths = _lengths(X)
        zero = ~X.any(axis=1)
        if not np.all((lengths >= SHORT) & np.isfinite(lengths) | zero):
            raise Declined
        return (X / (lengths + zero)[:, None]).astype(np.float32), lengths

    def least(self, scores: Floats, lengths: Floats) -> Floats:
        """Return the score below which no neighbour can be, if the k-th best score is `scores`."""
        # All are as near to zero; the first ones will do.
        return np.where(lengths > 0, scores - 2 * self._error, np.inf)

    def measure(self, X: Floats, Y: Floats) -> Floats:
        """Return the distances of the rows of X from those of Y."""
        distances: Floats = 1 - np.einsum("ij,ij->i", _normalised(X), _normalised(Y))
        return distances.clip(0.0, 2.0, out=distances)

    def lost(self, distances: Floats, X: Floats, part: float) -> bool:
        """Whether some of the distances from X are no more than `part` of what they come from."""
        return bool(np.any(distances <= part))


class _Squared:
    """Squares of euclidean distances."""

    blurred = 0.0  # what rounding leaves of a small square is small beside |x|^2

    def __init__(self, fitted: NDArray[Any]) -> None:
        self.fitted = fitted
        count = fitted.shape[1]
        # Any centre will do that leaves most vectors short; one far away would pull a mean to it.
        some = np.asarray(fitted[:: max(1, len(fitted) // 1024)], np.float64)
        self._centre = np.median(some, axis=0)
        longest = max(float(_lengths(block - self._centre).max()) for block in _blocks(fitted))
        if not (longest == 0 or 1e-100 < longest < 1e100):
            raise Declined
        # A power of two brings all lengths within one, and rounds nothing.
        self._factor = 2.0 ** -int(np.ceil(np.log2(longest or 1.0)))
        self._error = _gamma(count + 1)
        self._tiny = (count + 1) * TINY
        self._order = 4 * (count + 8) * UNIT64
        self.packed = _packed(fitted, count + 1, self._pack)

    def _pack(self, block: Floats, out: NDArray[np.float32]) -> None:
        rest = self._rest(block)
        out[:, :-1] = rest
        out[:, -1] = np.einsum("ij,ij->i", rest, rest) / -2

    def _rest(self, X: Floats) -> Floats:
        rest: Floats = (X - self._centre) * self._factor
        return rest

    def queries(self, X: Floats) -> tuple[NDArray[np.float32], Floats]:
        rest = self._rest(X)
        lengths = _lengths(rest)
        if not np.all(lengths < 2.0**50):
            raise Declined
        return np.column_stack([rest, np.ones(len(X))]).astype(np.float32), lengths * (1 + 1e-6)

    def least(self, scores: Floats, lengths: Floats) -> Floats:
        true = scores - self._off(scores, lengths)
        # The squares, |x|^2 less twice the score, are off in float64 too, and so is their order.
        true -= self._order * np.maximum(lengths**2 - 2 * true, 0.0)
        return true - self._off(true, lengths)

    def _off(self, scores: Floats, lengths: Floats) -> Floats:
        """Bound the error of scores from `scores` up, in float32 or true.

        It grows with |y|, and s <= |x||y| - |y|^2 / 2 says how long y can be where s is the score.
        """
        tiny = self._tiny * (lengths + 1)
        more, less = (1 + self._error) * lengths, 1 - self._error
        root = np.sqrt(np.maximum(more**2 - 2 * less * (scores - tiny), 0.0))
        longest = np.minimum((more + root) / less, 1.0)
        off: Floats = self._error * (lengths * longest + longest**2 / 2) + tiny
        return off

    def measure(self, X: Floats, Y: Floats) -> Floats:
        Y -= X
        squares: Floats = np.einsum("ij,ij->i", Y, Y)
        return squares

    def lost(self, distances: Floats, X: Floats, part: float) -> bool:
        return bool(np.any(distances <= part * np.einsum("ij,ij->i", X, X)[:, None]))


class _Euclidean(_Squared):
    """Euclidean distances."""

    blurred = BLURRED

    def measure(self, X: Floats, Y: Floats) -> Floats:
        return np.sqrt(super().measure(X, Y))

    def lost(self, distances: Floats, X: Floats, part: float) -> bool:
        return super().lost(distances**2, X, part)


Metric = _Cosine | _Squared
METRICS: dict[str, type[Metric]] = {
    "cosine": _Cosine,
    "euclidean": _Euclidean,
    "sqeuclidean": _Squared,
}


def _blocks(fitted: NDArray[Any]) -> Iterator[Floats]:
    """Yield the fitted rows in float64, 8 MiB or so at a time."""
    step = max(1, 2**20 // fitted.shape[1])
    for at in range(0, len(fitted), step):
        yield np.asarray(fitted[at : at + step], np.float64)


def _lengths(X: Floats) -> Floats:
    """Return |x| of each row, summed up as scikit-learn does."""
    lengths: Floats = np.sqrt(np.einsum("ij,ij->i", X, X))
    return lengths


def _normalised(X: Floats) -> Floats:
    """Make rows one long, as scikit-learn does: short ones are left as they are."""
    lengths = _lengths(X)
    lengths[lengths < SHORT] = 1.0
    return X / lengths[:, None]


def _packed(
    fitted: NDArray[Any], columns: int, pack: Callable[[Floats, NDArray[np.float32]], None]
) -> NDArray[np.float32]:
    packed = np.empty((len(fitted), columns), np.float32)
    at = 0
    for block in _blocks(fitted):
        out = packed[at : at + len(block)]
        pack(block, out)
        if not np.isfinite(out).all():
            raise Declined
        at += len(block)
    return packed


def _search(metric: Metric, X: Floats, k: int) -> tuple[Floats, Indices]:
    """Return the distances of the `k` nearest of each row, (n_rows, k), and their indices."""
    row, at = _candidates(metric, X, k)
    left = np.flatnonzero(np.bincount(row, minlength=len(X)) == 0)
    row, at = np.r_[row, left.repeat(k)], np.r_[at, np.tile(np.arange(k), len(left))]
    distances = np.empty(len(row))
    step = max(1, 2**18 // X.shape[1])
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        Y = metric.fitted[at[part]].astype(np.float64, copy=False)
        distances[part] = metric.measure(X[row[part]], Y)
    order = np.lexsort((at, distances, row))
    first = np.searchsorted(row[order], np.arange(len(X)))
    nearest = order[first[:, None] + np.arange(k)]
    return distances[nearest], at[nearest]


def _candidates(metric: Metric, X: Floats, k: int) -> tuple[Indices, Indices]:
    """Return pairs (row of X, index) that hold the `k` nearest of each row for sure.

    The best scores of disjoint groups are scores of different vectors: the k-th of them bounds the
    k-th of all. So only groups whose best is good enough are looked into.
    """
    queries, lengths = metric.queries(X)
    n, most = len(metric.packed), len(X) * (len(metric.packed) // 32 + 8 * k + 1024)
    block = min(-(-n // 64) * 64, max(4096, SCORES // len(X)) // 64 * 64)
    groups = 1 << max(0, min(6, (block // (4 * k)).bit_length() - 1))
    scores = np.empty((block, len(X)), np.float32)
    grouped = scores.reshape(groups, block // groups, len(X))
    best = np.full((k, len(X)), -np.inf, np.float32)
    found, total = [], 0
    for start in range(0, n, block):
        part = metric.packed[start : start + block]
        np.matmul(part, queries.T, out=scores[: len(part)])
        scores[len(part) :] = -np.inf
        tops = grouped.max(axis=0)
        best = np.partition(np.concatenate([best, tops]), len(tops), axis=0)[len(tops) :]
        least = np.maximum(
            metric.least(best.min(axis=0).astype(np.float64), lengths), np.finfo(np.float32).min
        )
        column, row = np.nonzero(tops >= least)
        good = grouped[:, column, row]
        group, hit = np.nonzero(good >= least[row])
        found.append((row[hit], start + group * len(tops) + column[hit], good[group, hit]))
        total += len(hit)
        if total > most:
            raise Declined
    row, at, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept = score >= least[row]
    return row[kept], at[kept]


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


def _nearest(estimator: Any) -> Callable[[Floats, float], tuple[Floats, Indices]] | None:
    """Return a function from rows to the distances and indices of their neighbours.

    It declines where a distance is no more than some part, its second argument, of what it is the
    difference of.
    """
    metric, k = _metric(estimator), look(estimator, "n_neighbors")
    if metric is None or not isinstance(k, int | np.integer) or not 0 < k <= len(metric.fitted):
        return None
    few = max(QUERIES, SCORES // len(metric.fitted))

    def nearest(X: Floats, part: float) -> tuple[Floats, Indices]:
        finite(X)
        with np.errstate(all="ignore"):
            some = [_search(metric, X[at : at + few], int(k)) for at in range(0, len(X), few)]
            distances, indices = map(np.concatenate, zip(*some, strict=True))
            if part and metric.lost(distances, X, part):
                raise Declined
        return distances, indices

    return nearest


def _kneighbors(estimator: Any) -> Kernel | None:
    nearest, metric = _nearest(estimator), _metric(estimator)
    if nearest is None or metric is None:
        return None
    return lambda X: nearest(X, metric.blurred)


def _weighted(estimator: Any) -> Callable[[Floats], tuple[Floats | None, Indices]] | None:
    """Return a function from rows to weights, None where all are equal, and indices."""
    nearest, weights = _nearest(estimator), look(estimator, "weights")
    if nearest is None or weights not in ("uniform", "distance", None):
        return None
    cosine = look(estimator, "effective_metric_") == "cosine"

    def weighted(X: Floats) -> tuple[Floats | None, Indices]:
        if cosine and not X.any(axis=1).all():
            raise Declined  # all are as near to zero: the answer is which ones the estimator takes
        if weights != "distance":
            return None, nearest(X, 0.0)[1]
        distances, indices = nearest(X, BLURRED_WEIGHT)
        return 1.0 / distances, indices

    return weighted


def _unsupervised(estimator: Any, method: str) -> Kernel | None:
    return _kneighbors(estimator) if method == "kneighbors" else None


def _regressor(estimator: Any, method: str) -> Kernel | None:
    if method != "predict":
        return _unsupervised(estimator, method)
    weighted, y = _weighted(estimator), look(estimator, "_y")
    if weighted is None or not isinstance(y, np.ndarray):
        return None
    columns = y.reshape(len(y), -1)

    def predict(X: Floats) -> Any:
        weights, indices = weighted(X)
        near = columns[indices]
        if weights is None:
            values = near.mean(axis=1)
        else:
            values = np.empty((len(X), columns.shape[1]))
            for output in range(columns.shape[1]):
                # By column, as scikit-learn adds them: the order decides the last bits.
                values[:, output] = np.sum(near[:, :, output] * weights, axis=1)
            values /= weights.sum(axis=1)[:, None]
        return values.reshape(-1) if y.ndim == 1 else values

    return predict


def _classifier(estimator: Any, method: str) -> Kernel | None:
    if method not in ("predict", "predict_proba"):
        return _unsupervised(estimator, method)
    weighted, y = _weighted(estimator), look(estimator, "_y")
    several, classes = look(estimator, "outputs_2d_"), look(estimator, "classes_")
    if weighted is None or not isinstance(y, np.ndarray) or classes is None:
        return None
    columns = y.reshape(len(y), -1)
    each = classes if several else [classes]

    def votes(X: Floats) -> list[Floats]:
        """Return the sum of weights by class, (n_rows, n_classes) for each output."""
        weights, indices = weighted(X)
        rows, sums = np.arange(len(X)), []
        for output, names in enumerate(each):
            labels, votes = columns[indices, output], np.zeros((len(X), len(names)))
            for rank in range(indices.shape[1]):
                votes[rows, labels[:, rank]] += 1.0 if weights is None else weights[:, rank]
            sums.append(votes)
        return sums

    def predict(X: Floats) -> Any:
        chosen = [names[one.argmax(axis=1)] for names, one in zip(each, votes(X), strict=True)]
        return np.stack(chosen, axis=1) if several else chosen[0]

    def predict_proba(X: Floats) -> Floats | list[Floats]:
        shares = [one / one.sum(axis=1, keepdims=True) for one in votes(X)]
        return shares if several else shares[0]

    return predict if method == "predict" else predict_proba


KERNELS: dict[str, Builder] = {
    "NearestNeighbors": _unsupervised,
    "KNeighborsClassifier": _classifier,
    "KNeighborsRegressor": _regressor,
}
