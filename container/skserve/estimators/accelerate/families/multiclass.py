"""Many classes out of classifiers of two: one against the rest, or another, or by a code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Floats, Kernel
from skserve.estimators.accelerate.links import Pick, Second
from skserve.estimators.accelerate.registry import part, parts
from skserve.estimators.methods import look


def binary(estimators: Any) -> tuple[Kernel, ...] | None:
    """Return the score of each classifier of two classes, (n_rows,); None where none is fast."""
    found, fast = [], False
    for one in estimators:
        asked = part(one, "decision_function") or part(one, "predict_proba")
        asked = asked or part(one, "predict")  # a regressor
        if asked is None:
            return None
        fast = fast or asked.fast is not None
        found.append(Second(asked))
    return tuple(found) if fast else None


def threshold(estimators: Any) -> float:
    """Return the score above which the second class is meant."""
    return 0.0 if callable(look(estimators[0], "decision_function")) else 0.5


@dataclass(frozen=True, eq=False)
class Columns:
    """The scores of several classifiers of two classes, (n_rows, n)."""

    members: tuple[Kernel, ...]

    def __call__(self, X: Any) -> Floats:
        """Return a column for each."""
        return np.stack([member(X) for member in self.members], axis=1)


@dataclass(frozen=True, eq=False)
class Rest:
    """The probabilities of one class against the rest, made to add up to one if `single`."""

    columns: Columns
    single: bool

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes)."""
        p = self.columns(X)
        if p.shape[1] == 1:
            p = np.concatenate([1 - p, p], axis=1)
        if self.single:
            total = p.sum(axis=1)[:, None]
            np.divide(p, total, out=p, where=total != 0)
        return p


@dataclass(frozen=True, eq=False)
class Marks:
    """A 1 for each label whose score is above the threshold: int (n_rows, n_labels)."""

    columns: Columns
    threshold: float

    def __call__(self, X: Any) -> NDArray[np.int_]:
        """Return the labels as marks."""
        return (self.columns(X) > self.threshold).astype(int)


@dataclass(frozen=True, eq=False)
class Shifted:
    """Scores less a threshold, of one classifier of two classes."""

    columns: Kernel
    threshold: float

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows,)."""
        values: Floats = self.columns(X)
        return (values[:, 0] if values.ndim == 2 else values) - self.threshold


def _rest(estimator: Any, method: str) -> Kernel | None:
    members, kind = estimator.estimators_, estimator.label_binarizer_.y_type_
    several = kind.startswith("multilabel")
    if method == "predict_proba":
        asked = parts(members, "predict_proba")
        columns = asked and Columns(tuple(Second(one) for one in asked))
        return Rest(columns, not several) if columns else None
    scores = binary(members)
    if scores is None or method not in ("predict", "decision_function"):
        return None
    if method == "decision_function":
        decides = callable(look(members[0], "decision_function"))
        return (scores[0] if len(scores) == 1 else Columns(scores)) if decides else None
    columns = Columns(scores)
    if kind == "multiclass":
        return Pick(columns, estimator.classes_)
    if several:
        return Marks(columns, threshold(members))
    return Pick(Shifted(columns, threshold(members)), estimator.classes_)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Each class against each other: the votes, and between equal ones the confidence."""

    labels: tuple[Kernel, ...]
    scores: tuple[Kernel, ...]
    n_classes: int

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes), or (n_rows,) of two classes."""
        labels = np.stack([member(X) for member in self.labels], axis=1)
        scores = np.stack([member(X) for member in self.scores], axis=1)
        values = pairwise_votes(labels, scores, self.n_classes)
        return values[:, 1] if self.n_classes == 2 else values


def pairwise_votes(labels: NDArray[Any], scores: Floats, n_classes: int) -> Floats:
    """Return votes and confidences as scikit-learn's `_ovr_decision_function` adds them up."""
    votes, sums = np.zeros((len(labels), n_classes)), np.zeros((len(labels), n_classes))
    at = 0
    for first in range(n_classes):
        for second in range(first + 1, n_classes):
            sums[:, first] -= scores[:, at]
            sums[:, second] += scores[:, at]
            votes[:, first] += labels[:, at] == 0
            votes[:, second] += labels[:, at] == 1
            at += 1
    votes += sums / (3 * (np.abs(sums) + 1))
    return votes


def _pairs(estimator: Any, method: str) -> Kernel | None:
    members = estimator.estimators_
    labels, scores = parts(members, "predict"), binary(members)
    paired = look(estimator, "pairwise_indices_") is not None
    if labels is None or scores is None or paired or method not in ("predict", "decision_function"):
        return None
    values = Pairs(labels, scores, len(estimator.classes_))
    if method == "decision_function":
        return values
    two = len(estimator.classes_) == 2
    return Pick(Shifted(values, threshold(members)) if two else values, estimator.classes_)


@dataclass(frozen=True, eq=False)
class Nearness:
    """How near the scores are to the code of each class: the squared distance, negated."""

    columns: Columns
    book: Floats  # (n_classes, n_codes)

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes)."""
        rest = self.columns(X)[:, None] - self.book
        return -np.einsum("ijk,ijk->ij", rest, rest)  # type: ignore[no-any-return]


def _coded(estimator: Any, method: str) -> Kernel | None:
    scores = binary(estimator.estimators_)
    if scores is None or method != "predict":
        return None
    book = np.asarray(estimator.code_book_, np.float64)
    return Pick(Nearness(Columns(scores), book), estimator.classes_)


@dataclass(frozen=True, eq=False)
class Constant:
    """The answer of a classifier that met one class only."""

    value: NDArray[Any]  # (1,), or (1, 2) of probabilities

    def __call__(self, X: Any) -> NDArray[Any]:
        """Return the same for each row."""
        return np.repeat(self.value, len(X), axis=0)


def _constant(estimator: Any, method: str) -> Kernel | None:
    value = estimator.y_
    if method == "predict_proba":
        second = value.astype(np.float64)
        return Constant(np.hstack([1 - second, second])[None])
    return Constant(value) if method in ("predict", "decision_function") else None


KERNELS: dict[str, Builder] = {
    "OneVsOneClassifier": _pairs,
    "OneVsRestClassifier": _rest,
    "OutputCodeClassifier": _coded,
    "_ConstantPredictor": _constant,
}
