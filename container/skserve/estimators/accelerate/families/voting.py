"""Ensembles of different models: Voting and Stacking, as sums of their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Floats, Kernel, dense
from skserve.estimators.accelerate.links import Decoded, Pick
from skserve.estimators.accelerate.registry import Part, part, parts
from skserve.estimators.methods import look


@dataclass(frozen=True, eq=False)
class Average:
    """The mean of what the members say, with a weight for each or without."""

    members: tuple[Kernel, ...]
    weights: tuple[float, ...] | None

    def __call__(self, X: Any) -> Floats:
        """Return an array of the members' shape."""
        said = np.array([member(X) for member in self.members])
        total: Any = len(said)
        if self.weights is not None:  # as numpy.average does
            weights = np.array(self.weights).reshape(-1, *[1] * (said.ndim - 1))
            said, total = said * weights, weights.sum(axis=0)
        return np.add.reduce(said, axis=0) / total  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Labels:
    """What each member says, as columns: whole numbers (n_rows, n_members)."""

    members: tuple[Kernel, ...]

    def __call__(self, X: Any) -> NDArray[Any]:
        """Return the members' labels."""
        return np.asarray([member(X) for member in self.members]).T


@dataclass(frozen=True, eq=False)
class Majority:
    """The sum of the members' weights by class, (n_rows, n_classes)."""

    labels: Labels
    weights: tuple[float, ...]
    n_classes: int

    def __call__(self, X: Any) -> Floats:
        """Add up one member after the other, as bincount does."""
        labels = self.labels(X)
        votes, rows = np.zeros((len(labels), self.n_classes)), np.arange(len(labels))
        for member, weight in enumerate(self.weights):
            votes[rows, labels[:, member]] += weight
        return votes


def _voting_classifier(estimator: Any, method: str) -> Kernel | None:
    soft, classes = look(estimator, "voting") == "soft", estimator.classes_
    weights = look(estimator, "_weights_not_none")
    asked = parts(estimator.estimators_, "predict_proba" if soft else "predict")
    if asked is None:
        return None
    if soft:
        mean = Average(asked, weights and tuple(weights))
        soft_kernels: dict[str, Kernel] = {"predict": Pick(mean, classes), "predict_proba": mean}
        return soft_kernels.get(method)
    labels = Labels(asked)
    equal = [1.0] * len(asked)
    votes = Majority(labels, tuple(equal if weights is None else weights), len(classes))
    hard_kernels: dict[str, Kernel] = {"predict": Pick(votes, classes), "transform": labels}
    return hard_kernels.get(method)


def _voting_regressor(estimator: Any, method: str) -> Kernel | None:
    asked, weights = parts(estimator.estimators_, "predict"), look(estimator, "_weights_not_none")
    if asked is None:
        return None
    if method == "transform":
        return Labels(asked)
    return Average(asked, weights and tuple(weights)) if method == "predict" else None


@dataclass(frozen=True, eq=False)
class Stacked:
    """What the members say, side by side, and X itself behind it if `passed`.

    Of two probabilities, `second` says of which members, only the second is taken.
    """

    members: tuple[Kernel, ...]
    second: tuple[bool, ...]
    passed: bool

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n)."""
        said = []
        for member, second in zip(self.members, self.second, strict=True):
            values = member(X)
            if values.ndim == 1:
                values = values.reshape(-1, 1)
            said.append(values[:, 1:] if second else values)
        if self.passed:
            said.append(dense(X))
        return np.concatenate(said, axis=1)


@dataclass(frozen=True, eq=False)
class Final:
    """What the last model makes of what the others say."""

    stacked: Stacked
    last: Part

    def __call__(self, X: Any) -> Any:
        """Return the last model's answer."""
        return self.last(self.stacked(X))


def _stacking(estimator: Any, method: str) -> Kernel | None:
    methods, classes = estimator.stack_method_, look(estimator, "classes_")
    if isinstance(classes, list):
        return None  # several outputs
    members = [part(one, name) for one, name in zip(estimator.estimators_, methods, strict=True)]
    known = tuple(member for member in members if member)
    last = part(estimator.final_estimator_, "predict" if method == "transform" else method)
    fast = [*known, last]
    if len(known) < len(members) or last is None or not any(one and one.fast for one in fast):
        return None
    two = classes is not None and len(classes) == 2
    second = tuple(two and name == "predict_proba" for name in methods)
    stacked = Stacked(known, second, bool(estimator.passthrough))
    if method == "transform":
        return stacked
    final = Final(stacked, last)
    return Decoded(final, classes) if method == "predict" and classes is not None else final


KERNELS: dict[str, Builder] = {
    "StackingClassifier": _stacking,
    "StackingRegressor": _stacking,
    "VotingClassifier": _voting_classifier,
    "VotingRegressor": _voting_regressor,
}
