"""AdaBoost and Bagging: many models of one kind, by their votes or means."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Declined, Floats, Kernel, dense
from skserve.estimators.accelerate.links import Apply, Mean, Pick, softmax
from skserve.estimators.accelerate.packed_trees import (
    MOST_NODES,
    MOST_VALUES,
    PackedTrees,
    as_single,
    in_turn,
    nodes_of,
    shared,
)
from skserve.estimators.accelerate.registry import parts
from skserve.estimators.methods import look

MOST_ROWS = 64  # as for forests


@dataclass(frozen=True, eq=False)
class Packed:
    """What trees say of each row, (n_trees, n_rows, width), walked together."""

    trees: PackedTrees
    most: int

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for many rows, and for what trees refuse."""
        rows = dense(X)
        if len(rows) > self.most:
            raise Declined
        return self.trees.values(*as_single(rows, nan=False))


def packed(members: Sequence[Any], values: Sequence[Floats], features: Any = None) -> Packed | None:
    """Pack the trees of an ensemble, with `values` (n_nodes, width) for each; None if too many."""
    if sum(one.tree_.node_count for one in members) > MOST_NODES:
        return None
    trees = [nodes_of(one.tree_, some) for one, some in zip(members, values, strict=True)]
    if features is not None:
        trees = [
            tree._replace(feature=np.asarray(some)[np.where(tree.leaf, 0, tree.feature)])
            for tree, some in zip(trees, features, strict=True)
        ]
    most = min(MOST_ROWS, MOST_VALUES // (len(trees) * values[0].shape[1]))
    return Packed(PackedTrees(trees, members[0].tree_), most)


def trees_of(members: Sequence[Any]) -> list[Any]:
    """Return the trees in the members of an ensemble."""
    return [one.tree_ for one in members]


def are_trees(members: Sequence[Any], kind: str) -> bool:
    """Whether all members are scikit-learn's trees of a kind, with one output."""
    known = (f"DecisionTree{kind}", f"ExtraTree{kind}")
    return all(
        type(one).__name__ in known
        and type(one).__module__.startswith("sklearn.")
        and one.n_outputs_ == 1
        for one in members
    )


@dataclass(frozen=True, eq=False)
class Votes:
    """What each member adds for each class: its weight, or a part of it less."""

    members: tuple[Kernel, ...]
    weights: tuple[float, ...]
    classes: NDArray[Any]

    def __call__(self, X: Any) -> Floats:
        """Return (n_members, n_rows, n_classes)."""
        less = -1 / (len(self.classes) - 1)
        said = zip(self.members, self.weights, strict=True)
        return np.stack(
            [
                np.where(member(X)[:, None] == self.classes, weight, less * weight)
                for member, weight in said
            ]
        )


@dataclass(frozen=True, eq=False)
class Boosted:
    """The decision function of AdaBoost: (n_rows,) for two classes, else (n_rows, n_classes)."""

    votes: Kernel
    total: float

    def __call__(self, X: Any) -> Floats:
        """Add up one member after the other."""
        values = in_turn(self.votes(X)) / self.total
        if values.shape[1] == 2:
            values[:, 0] *= -1
            return values.sum(axis=1)  # type: ignore[no-any-return]
        return values


def _boosted(estimator: Any, method: str) -> Kernel | None:
    classes, members = estimator.classes_, estimator.estimators_
    version: str = sys.modules["sklearn"].__version__
    if len(classes) < 2 or look(estimator, "algorithm") == "SAMME.R" or version.startswith("1.3."):
        return None  # other arithmetic
    weights = estimator.estimator_weights_[: len(members)]
    votes: Kernel | None = None
    if are_trees(members, "Classifier"):
        votes = shared(
            estimator,
            trees_of(members),
            lambda: packed(members, _vote_values(members, weights, classes)),
        )
    asked = parts(members, "predict") if votes is None else None
    if asked is not None:
        votes = Votes(asked, tuple(weights.tolist()), classes)
    if votes is None:
        return None
    values = Boosted(votes, float(estimator.estimator_weights_.sum()))
    p = Apply(values, _half_softmax)
    kernels: dict[str, Kernel] = {
        "decision_function": values,
        "predict": Pick(values, classes),
        "predict_proba": p,
        "predict_log_proba": Apply(p, np.log),
    }
    return kernels.get(method)


def _vote_values(
    members: Sequence[Any], weights: NDArray[Any], classes: NDArray[Any]
) -> list[Floats]:
    less, found = -1 / (len(classes) - 1), []
    for one, weight in zip(members, weights.tolist(), strict=True):
        labels = one.classes_[one.tree_.value[:, 0].argmax(axis=1)]
        found.append(np.where(labels[:, None] == classes, weight, less * weight))
    return found


def _half_softmax(values: Floats) -> Floats:
    if values.ndim == 1:
        return softmax(np.stack([-values, values], axis=1) / 2)
    return softmax(values / (values.shape[1] - 1))


@dataclass(frozen=True, eq=False)
class Median:
    """The weighted median of what the members say."""

    said: Kernel  # (n_members, n_rows)
    weights: NDArray[np.float64]

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows,)."""
        said = self.said(X).T
        order = said.argsort(axis=1)
        sums = self.weights[order].cumsum(axis=1)
        middle = (sums >= 0.5 * sums[:, -1:]).argmax(axis=1)
        rows = np.arange(len(said))
        return said[rows, order[rows, middle]]  # type: ignore[no-any-return]


def _only(values: Floats) -> Floats:
    return values[:, :, 0]


def _median(estimator: Any, method: str) -> Kernel | None:
    members = estimator.estimators_
    if method != "predict" or not are_trees(members, "Regressor"):
        return None
    values = [one.tree_.value[:, 0] for one in members]
    trees = shared(estimator, trees_of(members), lambda: packed(members, values))
    weights = estimator.estimator_weights_[: len(members)]
    return Median(Apply(trees, _only), weights) if trees else None


@dataclass(frozen=True, eq=False)
class TreesMean:
    """The mean of what packed trees say, (n_rows, width), or (n_rows,) if `flat`."""

    trees: Packed
    count: int
    flat: bool

    def __call__(self, X: Any) -> Floats:
        """Add up one tree after the other."""
        total = in_turn(self.trees(X)) / self.count
        return total[:, 0] if self.flat else total


def _bagged(estimator: Any, method: str) -> Kernel | None:
    members, classes = estimator.estimators_, look(estimator, "classes_")
    regressor, version = classes is None, sys.modules["sklearn"].__version__
    if not are_trees(members, "Regressor" if regressor else "Classifier"):
        return _bagged_parts(estimator, method)
    if not regressor and (
        version.startswith("1.3.") or any(len(one.classes_) != len(classes) for one in members)
    ):
        return None
    features = estimator.estimators_features_
    values = [one.tree_.value[:, 0] for one in members]
    trees = shared(estimator, trees_of(members), lambda: packed(members, values, features))
    if trees is None:
        return None
    mean = TreesMean(trees, len(members), regressor)
    if regressor:
        return mean if method == "predict" else None
    kernels: dict[str, Kernel] = {
        "predict": Pick(mean, classes),
        "predict_proba": mean,
        "predict_log_proba": Apply(mean, np.log),
    }
    return kernels.get(method)


def _bagged_parts(estimator: Any, method: str) -> Kernel | None:
    """Members of any kind, where each sees all columns and knows all classes."""
    members, classes = estimator.estimators_, look(estimator, "classes_")
    every = np.arange(estimator.n_features_in_)
    if not all(np.array_equal(some, every) for some in estimator.estimators_features_):
        return None
    if classes is None:
        asked = parts(members, "predict")
        return Mean(asked) if asked and method == "predict" else None
    asked = parts(members, "predict_proba")
    if asked is None or any(len(one.classes_) != len(classes) for one in members):
        return None
    mean = Mean(asked)
    kernels: dict[str, Kernel] = {"predict": Pick(mean, classes), "predict_proba": mean}
    return kernels.get(method)


KERNELS: dict[str, Builder] = {
    "AdaBoostClassifier": _boosted,
    "AdaBoostRegressor": _median,
    "BaggingClassifier": _bagged,
    "BaggingRegressor": _bagged,
}
