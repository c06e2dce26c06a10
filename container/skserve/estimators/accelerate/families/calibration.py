"""CalibratedClassifierCV: the mean of classifiers whose scores are bent, each by its own curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.families.linear import joined
from skserve.estimators.accelerate.families.multiclass import Columns
from skserve.estimators.accelerate.kernel import Builder, Declined, Floats, Kernel
from skserve.estimators.accelerate.links import Mean, Pick, Second, sigmoid, softmax
from skserve.estimators.accelerate.registry import Part, part
from skserve.estimators.methods import look


@dataclass(frozen=True, eq=False)
class Sigmoid:
    """Platt's curve."""

    slope: float
    offset: float

    def __call__(self, scores: Floats) -> Floats:
        return sigmoid(-(self.slope * scores + self.offset))


@dataclass(frozen=True, eq=False)
class Isotonic:
    """Steps joined by straight lines, flat beyond both ends."""

    x: Floats
    y: Floats

    def __call__(self, scores: Floats) -> Floats:
        return np.interp(scores, self.x, self.y)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """One classifier, and for each class the curve from its score to a probability."""

    scores: Kernel
    curves: tuple[tuple[int, Kernel], ...]  # each with the number of its class
    n_classes: int

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes)."""
        scores, p = self.scores(X), np.empty(0)
        if self.n_classes == 2:
            if scores.ndim == 2:
                scores = scores[:, 1]
            p = self.curves[0][1](scores)
            p = np.stack([1.0 - p, p], axis=1)
        else:
            p = np.zeros((len(scores), self.n_classes))
            for column, (at, curve) in enumerate(self.curves):
                p[:, at] = curve(np.ascontiguousarray(scores[:, column]))
            total = p.sum(axis=1)[:, None]
            p = np.divide(p, total, out=np.full_like(p, 1 / self.n_classes), where=total != 0)
        p[(p > 1.0) & (p <= 1.0 + 1e-5)] = 1.0
        return p


@dataclass(frozen=True, eq=False)
class Platt:
    """The mean of classifiers of two classes, each with Platt's curve: all curves at once."""

    scores: Kernel  # of the second class, (n_rows, n_members)
    slopes: Floats
    offsets: Floats

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, 2)."""
        second = sigmoid(-(self.scores(X) * self.slopes + self.offsets))
        mean = np.empty((len(second), 2))
        np.add.reduce(1.0 - second, axis=1, out=mean[:, 0])
        np.add.reduce(second, axis=1, out=mean[:, 1])
        mean /= second.shape[1]
        return mean


def _platt(given: tuple[Calibrated | Temperature, ...]) -> Platt | None:
    """Return the mean where all members are such; None otherwise."""
    members = [one for one in given if isinstance(one, Calibrated)]
    curves = [curve for one in members for _, curve in one.curves]
    known = [one for one in curves if isinstance(one, Sigmoid)]
    count = len(given)
    if any(one.n_classes != 2 for one in members) or not len(known) == len(curves) == count:
        return None
    scores = joined([one.scores.fast for one in members if isinstance(one.scores, Part)])
    slopes, offsets = (
        np.array([*one]) for one in zip(*((one.slope, one.offset) for one in known), strict=True)
    )
    return Platt(scores or Columns(tuple(Second(one.scores) for one in members)), slopes, offsets)


@dataclass(frozen=True, eq=False)
class Temperature:
    """One classifier whose scores are all multiplied by a number before their softmax."""

    scores: Kernel
    beta: float
    probabilities: bool  # the scores are such

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes). Raises Declined for scores that look like probabilities."""
        scores: Floats = self.scores(X)
        if self.probabilities:
            if scores.shape[1] == 2:  # scikit-learn takes the second alone
                scores = np.stack([1 - scores[:, 1], scores[:, 1]], axis=1)
            logits = np.log(scores + 1e-12)
        elif scores.ndim == 1:
            logits = np.stack([-scores, scores], axis=1)
        elif ((scores >= 0) & (scores <= 1)).all():
            raise Declined
        else:
            logits = scores
        return softmax(self.beta * logits)


def _curve(calibrator: Any) -> Kernel | None:
    kind = type(calibrator).__name__
    if kind == "_SigmoidCalibration":
        return Sigmoid(float(calibrator.a_), float(calibrator.b_))
    if kind == "IsotonicRegression" and calibrator.out_of_bounds == "clip":
        x, y = calibrator.X_thresholds_, calibrator.y_thresholds_
        return Isotonic(np.asarray(x, np.float64), np.asarray(y, np.float64))
    return None


def _member(one: Any, classes: NDArray[Any]) -> Calibrated | Temperature | None:
    inner = one.estimator
    asked = "decision_function" if callable(look(inner, "decision_function")) else "predict_proba"
    scores, places = part(inner, asked), np.searchsorted(classes, inner.classes_)
    if scores is None or scores.fast is None:
        return None
    if one.method == "temperature":
        return Temperature(scores, float(one.calibrators[0].beta_), asked == "predict_proba")
    curves = [_curve(calibrator) for calibrator in one.calibrators]
    if None in curves:
        return None
    pairs = zip(places.tolist(), curves, strict=False)
    return Calibrated(scores, tuple((at, curve) for at, curve in pairs if curve), len(classes))


def _calibrated(estimator: Any, method: str) -> Kernel | None:
    classes = estimator.classes_
    members = [_member(one, classes) for one in estimator.calibrated_classifiers_]
    known = tuple(member for member in members if member)
    if len(known) < len(members) or method not in ("predict", "predict_proba"):
        return None
    mean = _platt(known) or Mean(known)
    return mean if method == "predict_proba" else Pick(mean, classes)


KERNELS: dict[str, Builder] = {"CalibratedClassifierCV": _calibrated}
