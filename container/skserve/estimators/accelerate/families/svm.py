"""Support vector machines: the arithmetic of libsvm, for all support vectors at once.

scikit-learn makes libsvm's nodes anew of all support vectors in each call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.families.multiclass import pairwise_votes
from skserve.estimators.accelerate.kernel import Builder, Declined, Floats, Kernel, finite
from skserve.estimators.accelerate.links import Apply, Pick
from skserve.estimators.methods import look

# Differences of rows and support vectors side by side: 8 MB.
MOST = 2**20

# Rows whose probabilities are worked out one by one in Python.
MOST_ROWS = 256


@dataclass(frozen=True, eq=False)
class Similarity:
    """A kernel function between rows and support vectors."""

    name: str  # rbf, linear, poly or sigmoid
    vectors: Floats
    gamma: float
    degree: int
    start: float  # coef0

    def __call__(self, rows: Floats) -> Floats:
        """Return (n_rows, n_vectors)."""
        if self.name == "rbf":
            rest = self.vectors - rows[:, None]
            squares: Floats = np.einsum("ijk,ijk->ij", rest, rest)
            return np.exp(-self.gamma * squares)
        product: Floats = rows @ self.vectors.T
        if self.name == "linear":
            return product
        product = self.gamma * product + self.start
        powered: Floats = product**self.degree
        return powered if self.name == "poly" else np.tanh(product)


@dataclass(frozen=True, eq=False)
class Decision:
    """Weighted sums of similarities, (n_rows, n_sums)."""

    similarity: Similarity
    weights: Floats  # (n_vectors, n_sums)
    intercept: Floats

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for rows that are not finite."""
        rows = finite(X)
        step = max(1, MOST // max(1, self.similarity.vectors.size))
        parts = [
            self.similarity(rows[at : at + step]) @ self.weights for at in range(0, len(rows), step)
        ]
        sums = (parts[0] if len(parts) == 1 else np.concatenate(parts)) + self.intercept
        if not np.isfinite(sums).all():
            raise Declined  # too large: libsvm's order decides what becomes of it
        return sums


def _similarity(estimator: Any) -> Similarity | None:
    name, vectors = estimator.kernel, estimator.support_vectors_
    known = name in ("rbf", "linear", "poly", "sigmoid") if isinstance(name, str) else False
    if not known or not isinstance(vectors, np.ndarray) or look(estimator, "_sparse"):
        return None
    degree, start = int(estimator.degree), float(estimator.coef0)
    return Similarity(name, vectors, float(estimator._gamma), degree, start)


def _flat(values: Floats) -> Floats:
    return values.ravel()


def _inlier(values: Floats) -> NDArray[np.intp]:
    return np.where(values.ravel() > 0, 1, -1)


def _regressor(estimator: Any, method: str) -> Kernel | None:
    similarity = _similarity(estimator)
    if similarity is None or method != "predict":
        return None
    return Apply(Decision(similarity, estimator._dual_coef_.T, estimator._intercept_), _flat)


@dataclass(frozen=True, eq=False)
class Offset:
    """Scores and an offset added to them."""

    scores: Kernel
    offset: float

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows,)."""
        return self.scores(X) + self.offset  # type: ignore[no-any-return]


def _one_class(estimator: Any, method: str) -> Kernel | None:
    similarity = _similarity(estimator)
    if similarity is None:
        return None
    decision = Decision(similarity, estimator._dual_coef_.T, estimator._intercept_)
    flat = Apply(decision, _flat)
    kernels: dict[str, Kernel] = {
        "decision_function": flat,
        "predict": Apply(decision, _inlier),
        "score_samples": Offset(flat, float(np.ravel(estimator.offset_)[0])),
    }
    return kernels.get(method)


@dataclass(frozen=True, eq=False)
class Votes:
    """The votes of all pairs of classes: a positive sum is one for the first of a pair."""

    decision: Kernel
    n_classes: int

    def __call__(self, X: Any) -> NDArray[np.intp]:
        """Return (n_rows, n_classes)."""
        sums = self.decision(X)
        votes = np.zeros((len(sums), self.n_classes), np.intp)
        at = 0
        for first in range(self.n_classes):
            for second in range(first + 1, self.n_classes):
                votes[:, first] += sums[:, at] > 0
                votes[:, second] += sums[:, at] <= 0
                at += 1
        return votes


@dataclass(frozen=True, eq=False)
class Rest:
    """The decision function: of pairs, of two classes the second's, or of each class (`whole`)."""

    decision: Kernel
    n_classes: int
    whole: bool

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows,), (n_rows, n_classes) or (n_rows, n_pairs)."""
        sums = self.decision(X)
        if self.n_classes == 2:
            return -sums.ravel()  # type: ignore[no-any-return]
        return pairwise_votes(sums < 0, -sums, self.n_classes) if self.whole else sums


@dataclass(frozen=True, eq=False)
class Coupled:
    """Probabilities out of those of pairs, as libsvm's `multiclass_probability` finds them."""

    decision: Kernel
    slopes: Floats
    offsets: Floats
    n_classes: int

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes). Raises Declined for many rows."""
        if len(X) > MOST_ROWS:
            raise Declined
        bent = self.decision(X) * self.slopes + self.offsets
        pairs = np.clip(0.5 * (1.0 - np.tanh(0.5 * bent)), 1e-7, 1 - 1e-7)
        return np.array([_coupled(row, self.n_classes) for row in pairs.tolist()])


def _coupled(pairs: list[float], k: int) -> list[float]:
    """Return the probabilities of one row; `pairs` has that of the first class of each pair."""
    r = [[0.0] * k for _ in range(k)]
    at = 0
    for i in range(k):
        for j in range(i + 1, k):
            r[i][j], r[j][i] = pairs[at], 1 - pairs[at]
            at += 1
    q = [[-r[j][t] * r[t][j] for j in range(k)] for t in range(k)]
    for t in range(k):
        q[t][t] = sum(r[j][t] * r[j][t] for j in range(k) if j != t)
    p = [1.0 / k] * k
    for _ in range(max(100, k)):
        qp = [sum(q[t][j] * p[j] for j in range(k)) for t in range(k)]
        pqp = sum(p[t] * qp[t] for t in range(k))
        if max(abs(one - pqp) for one in qp) < 0.005 / k:
            break
        for t in range(k):
            diff = (-qp[t] + pqp) / q[t][t]
            p[t] += diff
            pqp = (pqp + diff * (diff * q[t][t] + 2 * qp[t])) / (1 + diff) / (1 + diff)
            for j in range(k):
                qp[j] = (qp[j] + diff * q[t][j]) / (1 + diff)
                p[j] /= 1 + diff
    return p


def _pair_weights(estimator: Any) -> Floats:
    """Return the weight of each support vector in the sum of each pair, (n_vectors, n_pairs)."""
    dual, ends = estimator._dual_coef_, np.cumsum(estimator._n_support)
    spans = [slice(end - count, end) for end, count in zip(ends, estimator._n_support, strict=True)]
    columns = []
    for i in range(len(spans)):
        for j in range(i + 1, len(spans)):
            column = np.zeros(dual.shape[1])
            column[spans[i]], column[spans[j]] = dual[j - 1, spans[i]], dual[i, spans[j]]
            columns.append(column)
    return np.stack(columns, axis=1)


def _classifier(estimator: Any, method: str) -> Kernel | None:
    similarity, classes = _similarity(estimator), estimator.classes_
    if similarity is None:
        return None
    decision = Decision(similarity, _pair_weights(estimator), estimator._intercept_)
    count = len(classes)
    whole = estimator.decision_function_shape == "ovr"
    rest = Rest(decision, count, whole)
    if method == "predict":
        ties = estimator.break_ties and whole and count > 2
        return Pick(rest if ties else Votes(decision, count), classes)
    if method == "decision_function":
        return rest
    slopes, offsets = look(estimator, "_probA"), look(estimator, "_probB")
    if slopes is None or not len(slopes) or method not in ("predict_proba", "predict_log_proba"):
        return None
    p = Coupled(decision, slopes, offsets, count)
    return p if method == "predict_proba" else Apply(p, np.log)


KERNELS: dict[str, Builder] = {
    **dict.fromkeys(("NuSVC", "SVC"), _classifier),
    **dict.fromkeys(("NuSVR", "SVR"), _regressor),
    "OneClassSVM": _one_class,
}
