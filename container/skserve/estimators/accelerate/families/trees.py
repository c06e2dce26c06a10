"""Decision trees and forests: all trees of a forest walked at once, for few rows.

scikit-learn calls each tree by itself, through joblib: milliseconds around microseconds of work.
For many rows its own loop over one tree is the fastest there is, and is what is called here too.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Declined, Floats, Kernel, dense
from skserve.estimators.accelerate.links import Apply
from skserve.estimators.accelerate.packed_trees import (
    MOST_NODES,
    MOST_VALUES,
    PackedTrees,
    as_single,
    in_turn,
    nodes_of,
    shared,
)
from skserve.estimators.methods import look

# Measured on one core, 100 trees: a step of all trees costs 5 us and 8 ns for each tree and row; a
# call of one tree 3 to 6 us, and 2 to 20 ns for each row and step. They meet between 60 and 100
# rows; for one row, at about ten trees. A walk of more steps than there are trees does not pay.
MOST_ROWS = 64
FEWEST_TREES = 10


def _trees(estimator: Any) -> list[Any]:
    """Return the trees of a forest, or the only one of a tree."""
    members = look(estimator, "estimators_")
    return [one.tree_ for one in ([estimator] if members is None else members)]


class _Forest:
    """The mean of some trees, as scikit-learn computes it: added up in turn, then divided."""

    def __init__(self, estimator: Any, counts: list[int]) -> None:
        """`counts` are the classes of each output, or a 1 for each output of a regressor."""
        self._alone = look(estimator, "estimators_") is None
        self._trees = _trees(estimator)
        self._counts = counts
        # Up to scikit-learn 1.3 a classifier's tree keeps weights of samples, not their parts.
        version: str = sys.modules["sklearn"].__version__
        self._weights = look(estimator, "classes_") is not None and version.startswith("1.3.")
        self._nan = _accepts_nan(estimator)
        self._most = min(MOST_ROWS, MOST_VALUES // (len(self._trees) * sum(counts)))
        pays = (
            len(self._trees) >= max(FEWEST_TREES, *(one.max_depth for one in self._trees))
            and sum(one.node_count for one in self._trees) <= MOST_NODES
        )
        self._grove = (
            PackedTrees(
                [nodes_of(one, self._columns(one.value)) for one in self._trees],
                self._trees[0],
            )
            if pays
            else None
        )

    def __call__(self, X: Any) -> Floats:
        """Return the means (n_rows, width), the outputs side by side."""
        single, missing = as_single(dense(X), self._nan)
        if self._alone:
            return self._one(self._trees[0], single)
        if self._grove is not None and len(X) <= self._most:
            total = in_turn(self._grove.values(single, missing))
        else:
            total = np.zeros((len(single), sum(self._counts)))
            for tree in self._trees:
                total += self._one(tree, single)
        total /= len(self._trees)
        return total

    def _one(self, tree: Any, single: NDArray[np.float32]) -> NDArray[np.float64]:
        return self._columns(tree.predict(single).reshape(len(single), len(self._counts), -1))

    def _columns(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn (n, n_outputs, most classes) as trees have it into (n, width)."""
        parts = [values[:, output, :count] for output, count in enumerate(self._counts)]
        if self._weights:
            totals = [part.sum(axis=1, keepdims=True) for part in parts]
            parts = [
                part / np.where(all_, all_, 1.0) for part, all_ in zip(parts, totals, strict=True)
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _accepts_nan(estimator: Any) -> bool:
    """Ask the estimator: it depends on its kind, its parameters and the version."""
    row = np.full((1, estimator.n_features_in_), np.nan)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names of columns
            estimator.predict(row)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class Means:
    """The means of a forest, split by output: one array, or a list of them where it has several."""

    forest: Kernel
    counts: tuple[int, ...]
    alone: bool

    def __call__(self, X: Any) -> Any:
        """Return (n_rows, n_classes), or one such array for each output."""
        p = self.forest(X)
        if self.alone:
            return p
        ends = np.cumsum(self.counts)[:-1]
        return [np.ascontiguousarray(one) for one in np.split(p, ends, axis=1)]


@dataclass(frozen=True, eq=False)
class Labels:
    """The class of the largest mean, of each output."""

    means: Means
    classes: tuple[NDArray[Any], ...]

    def __call__(self, X: Any) -> NDArray[Any]:
        """Return (n_rows,), or (n_rows, n_outputs)."""
        p = self.means(X)
        each = zip(self.classes, [p] if self.means.alone else p, strict=True)
        labels = [some.take(one.argmax(axis=1)) for some, one in each]
        return labels[0] if self.means.alone else np.stack(labels, axis=1)


def first_column(values: Floats) -> Floats:
    """Return the only column of a model with one output."""
    return values[:, 0]


def logarithms(p: Any) -> Any:
    """Return the logarithm of each array, or of the only one."""
    return [np.log(one) for one in p] if isinstance(p, list) else np.log(p)


def _regressor(estimator: Any, method: str) -> Kernel | None:
    if method != "predict":
        return None
    outputs = estimator.n_outputs_
    mean = shared(estimator, _trees(estimator), lambda: _Forest(estimator, [1] * outputs))
    return Apply(mean, first_column) if outputs == 1 else mean


def _classifier(estimator: Any, method: str) -> Kernel | None:
    if method not in ("predict", "predict_proba", "predict_log_proba"):
        return None
    counts = np.atleast_1d(estimator.n_classes_).tolist()
    forest = shared(estimator, _trees(estimator), lambda: _Forest(estimator, counts))
    alone = len(counts) == 1
    means = Means(forest, tuple(counts), alone)
    if method == "predict":
        return Labels(means, (estimator.classes_,) if alone else tuple(estimator.classes_))
    return means if method == "predict_proba" else Apply(means, logarithms)


class _Isolation:
    """The scores of an IsolationForest: how soon its trees set a row apart."""

    def __init__(self, estimator: Any) -> None:
        members = list(
            zip(
                estimator.estimators_,
                estimator.estimators_features_,
                estimator._decision_path_lengths,
                estimator._average_path_length_per_tree,
                strict=True,
            )
        )
        trees = []
        for member, features, lengths, averages in members:
            tree = nodes_of(member.tree_, (lengths + averages - 1.0)[:, None])
            chosen = features[np.where(tree.leaf, 0, tree.feature)]
            trees.append(tree._replace(feature=chosen))
        average = sys.modules[type(estimator).__module__]._average_path_length
        self._deepest = len(trees) * average([estimator._max_samples])
        self._grove = PackedTrees(trees, members[0][0].tree_)

    def __call__(self, X: Any) -> Floats:
        """Return the scores (n_rows,). Raises Declined for more rows than a walk is good at."""
        X = dense(X)
        if len(X) > MOST_ROWS:
            raise Declined
        depths = in_turn(self._grove.values(*as_single(X, nan=False)))[:, 0]
        parts = np.divide(depths, self._deepest, out=np.ones_like(depths), where=self._deepest != 0)
        scores: NDArray[np.float64] = -(2**-parts)
        return scores


def _isolation(estimator: Any, method: str) -> Kernel | None:
    nodes = sum(one.tree_.node_count for one in estimator.estimators_)
    if method not in ("predict", "score_samples", "decision_function") or nodes > MOST_NODES:
        return None
    scores = shared(estimator, _trees(estimator), lambda: _Isolation(estimator))
    if method == "score_samples":
        return scores
    above = Above(scores, float(estimator.offset_))
    return above if method == "decision_function" else Apply(above, inlier)


@dataclass(frozen=True, eq=False)
class Above:
    """How far scores are above an offset."""

    scores: Kernel
    offset: float

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows,)."""
        return self.scores(X) - self.offset  # type: ignore[no-any-return]


def inlier(decision: Floats) -> NDArray[np.int_]:
    """Return -1 for an outlier, 1 for any other row."""
    return np.where(decision < 0, -1, 1)


KERNELS: dict[str, Builder] = {
    **dict.fromkeys(("DecisionTreeClassifier", "ExtraTreeClassifier"), _classifier),
    **dict.fromkeys(("ExtraTreesClassifier", "RandomForestClassifier"), _classifier),
    **dict.fromkeys(("DecisionTreeRegressor", "ExtraTreeRegressor"), _regressor),
    **dict.fromkeys(("ExtraTreesRegressor", "RandomForestRegressor"), _regressor),
    "IsolationForest": _isolation,
}
