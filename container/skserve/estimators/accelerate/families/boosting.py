"""Gradient boosting: all trees of a model walked at once, for few rows.

scikit-learn validates the rows several times over, and calls each tree of a histogram model by
itself. For many rows its loops are the fastest there is, so those are left to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Declined, Kernel, dense
from skserve.estimators.accelerate.links import Apply, Pick
from skserve.estimators.accelerate.packed_trees import (
    MOST_NODES,
    MOST_VALUES,
    PackedTrees,
    Tree,
    as_single,
    in_turn,
    nodes_of,
    shared,
)
from skserve.estimators.methods import look

# Measured on one core, 100 trees: the walk takes as long as scikit-learn at about 200 rows.
MOST_ROWS = 128

# The strategies of scikit-learn's own first guess that say the same of every row.
CONSTANT = {"constant", "mean", "median", "most_frequent", "prior", "quantile"}

Scores = NDArray[np.float64]


class _Scores:
    """What the trees of a boosted model add up to, before the link: (n_rows,) or (n_rows, n)."""

    def __init__(self, trees: list[Tree], start: Scores, like: Any = None) -> None:
        """`trees` are those of the first iteration, then the second; they add to `start` (n,).

        Those `like` a tree of scikit-learn compare in float32, others in float64.
        """
        self._grove = PackedTrees(trees, like)
        self._start = start[:, None] + 0.0  # scikit-learn adds it to zeros: it is never -0.0
        self._single = like is not None
        self._most = min(MOST_ROWS, MOST_VALUES // len(trees))

    def __call__(self, X: Any) -> Scores:
        X = dense(X)
        if len(X) > self._most:
            raise Declined
        x, missing = as_single(X, nan=False) if self._single else (X, bool(np.isnan(X).any()))
        values = self._grove.values(x, missing).reshape(-1, len(self._start), len(X))
        values[0] += self._start
        scores = in_turn(values).T
        if len(self._start) == 1:
            return scores.ravel()
        # In scikit-learn's own layout: it decides the order in which softmax adds up.
        return np.ascontiguousarray(scores) if self._single else scores


def _gradient(estimator: Any, method: str) -> Kernel | None:
    """GradientBoosting, unless its first guess is another model."""
    init, stages = look(estimator, "init_"), look(estimator, "estimators_")
    trees = [one.tree_ for one in stages.ravel()]
    dummy = type(init).__module__ == "sklearn.dummy" and look(init, "strategy") in CONSTANT
    constant = dummy or isinstance(init, str)
    if not constant or not _pays([(one.node_count, one.max_depth) for one in trees]):
        return None

    def make() -> _Scores:
        start = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32))
        rate = estimator.learning_rate
        values = [nodes_of(one, rate * one.value[:, 0]) for one in trees]
        return _Scores(values, start[0], trees[0])

    scores, loss = shared(estimator, trees, make), look(estimator, "_loss")
    if look(estimator, "classes_") is None:
        return scores if method == "predict" else None
    # scikit-learn 1.3 has losses of another kind here.
    decide = look(loss, "_raw_prediction_to_decision")
    link = look(loss, "predict_proba") or look(loss, "_raw_prediction_to_proba")
    if method == "predict" and decide:
        return Decided(scores, decide, estimator.classes_)
    return _classifier(Pick(scores, estimator.classes_, from_zero=True), link, method)


def _histogram(estimator: Any, method: str) -> Kernel | None:
    """HistGradientBoosting without categories: an encoder of scikit-learn's comes before those."""
    nodes = [one.nodes for iteration in estimator._predictors for one in iteration]
    start = estimator._baseline_prediction
    if (
        look(estimator, "_preprocessor") is not None
        or start.dtype != np.float64
        or any(some["is_categorical"].any() for some in nodes)
        or not _pays([(len(some), int(some["depth"].max())) for some in nodes])
    ):
        return None

    def make() -> _Scores:
        return _Scores([_nodes_of_histogram(some) for some in nodes], start.ravel())

    scores, loss = shared(estimator, nodes, make), estimator._loss
    if look(estimator, "classes_") is None:
        return Apply(scores, loss.link.inverse) if method == "predict" else None
    return _classifier(Pick(scores, estimator.classes_), loss.predict_proba, method)


def _pays(sizes: list[tuple[int, int]]) -> bool:
    """Whether to walk trees of these numbers of nodes and these depths.

    A step takes 5 us; scikit-learn 350 us to begin with, and for each histogram tree 5 us too.
    """
    deepest = max(depth for _, depth in sizes)
    return sum(nodes for nodes, _ in sizes) <= MOST_NODES and deepest <= 64 + len(sizes)


def _nodes_of_histogram(nodes: NDArray[Any]) -> Tree:
    return Tree(
        nodes["is_leaf"].astype(bool),
        nodes["left"],
        nodes["right"],
        nodes["feature_idx"],
        nodes["num_threshold"],
        nodes["missing_go_to_left"].astype(bool),
        nodes["value"][:, None],
    )


@dataclass(frozen=True, eq=False)
class Decided:
    """The classes that a loss decides on."""

    scores: Kernel
    decide: Callable[[Scores], NDArray[Any]]
    classes: NDArray[Any]

    def __call__(self, X: Any) -> NDArray[Any]:
        """Return the labels (n_rows,)."""
        return self.classes.take(self.decide(self.scores(X)), axis=0)


def _classifier(labels: Pick, link: Callable[[Scores], Scores], method: str) -> Kernel | None:
    if method == "decision_function":
        return labels.inner
    if method == "predict":
        return labels
    p = Apply(labels.inner, link)
    return {"predict_proba": p, "predict_log_proba": Apply(p, np.log)}.get(method)


KERNELS: dict[str, Builder] = {
    **dict.fromkeys(("GradientBoostingClassifier", "GradientBoostingRegressor"), _gradient),
    **dict.fromkeys(
        ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _histogram
    ),
}
