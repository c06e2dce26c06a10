"""Decision trees and forests: all trees of a forest walked at once, for few rows.

scikit-learn calls each tree by itself, through joblib: milliseconds around microseconds of work.
For many rows its own loop over one tree is the fastest there is, and is what is called here too.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skserve.estimators.accelerate.kernel import Builder, Declined, Kernel
from skserve.estimators.methods import look

T = TypeVar("T")
Rows = NDArray[np.floating[Any]]

# Measured on one core, 100 trees: a step of all trees costs 5 us and 8 ns for each tree and row; a
# call of one tree 3 to 6 us, and 2 to 20 ns for each row and step. They meet between 60 and 100
# rows; for one row, at about ten trees. A walk of more steps than there are trees does not pay.
MOST_ROWS = 64
FEWEST_TREES = 10

# Past this the answers of all trees, side by side, take more than 8 MB.
MOST_VALUES = 1_000_000

# Packing takes 0.2 us for each node: not more than 0.4 s of the start.
MOST_NODES = 2_000_000


class Tree(NamedTuple):
    """The nodes of one tree. What a leaf has for children, feature and threshold is not used."""

    leaf: NDArray[np.bool_]
    left: NDArray[np.integer[Any]]
    right: NDArray[np.integer[Any]]
    feature: NDArray[np.integer[Any]]
    threshold: NDArray[np.float64]  # at or below it a row goes left
    missing_left: NDArray[np.bool_]
    values: NDArray[np.float64]  # (n_nodes, width)


class PackedTrees:
    """Many trees in one set of arrays, walked together.

    Nodes lie level by level and siblings side by side, so a step is `child + (x > threshold)`. A
    leaf is its own child behind an infinite threshold: who has arrived stays. A node takes 19 bytes
    (23 for float64 rows) and the values of a leaf once more, where scikit-learn's forests have 64
    bytes and values for every node, and its histogram boosting 67.
    """

    def __init__(self, trees: Sequence[Tree], dtype: DTypeLike) -> None:
        """Pack trees that will be asked for rows of `dtype`, float32 or float64."""
        sizes = [len(tree.leaf) for tree in trees]
        firsts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
        leaf = np.concatenate([tree.leaf for tree in trees])
        left = np.concatenate(
            [tree.left + first for tree, first in zip(trees, firsts, strict=True)]
        )
        right = np.concatenate(
            [tree.right + first for tree, first in zip(trees, firsts, strict=True)]
        )
        owner = np.repeat(np.arange(len(trees)), sizes)
        depths = np.zeros(len(trees), np.intp)
        levels = [firsts]
        while len(inner := levels[-1][~leaf[levels[-1]]]):
            depths[owner[inner]] = len(levels)
            levels.append(np.stack([left[inner], right[inner]], axis=1).ravel())
        order = np.concatenate(levels)
        place = np.empty(len(leaf), np.intp)
        place[order] = np.arange(len(order))

        def laid_out(parts: Iterable[NDArray[Any]], at_leaf: float) -> NDArray[Any]:
            values: NDArray[Any] = np.concatenate(list(parts))[order]
            values[leaf[order]] = at_leaf
            return values

        feature = laid_out((tree.feature for tree in trees), 0)
        threshold = laid_out((tree.threshold for tree in trees), np.inf)
        self._feature = feature.astype(np.int16 if feature.max() < 2**15 else np.intp)
        self._threshold = _rounded_down(threshold, np.dtype(dtype))
        self._missing_right = laid_out((~tree.missing_left for tree in trees), False)
        self._child = np.where(leaf[order], np.arange(len(order)), place[left[order]])
        self._leaf = (np.cumsum(leaf) - 1)[order].astype(np.int32)
        # Plus 0.0, for sums that scikit-learn starts at 0.0 are never -0.0.
        self._values = np.concatenate([tree.values[tree.leaf] for tree in trees]) + 0.0

        # Who has the longest way goes first: each step is one of the first few trees.
        self._roots = np.argsort(-depths, kind="stable")
        self._back = np.argsort(self._roots)
        self._walking = [int((depths > step).sum()) for step in range(depths.max())]
        # For one row it is cheaper to look at all nodes of a level than to ask where each tree is,
        # while a level is not much wider than the trees are many.
        near = list(itertools.takewhile(lambda one: len(one) < 1000 + 2 * len(trees), levels))
        self._near = min(len(near), len(self._walking))
        self._near_feature = feature[: sum(map(len, near))].astype(np.intp)

    def values(self, X: Rows, missing: bool) -> NDArray[np.float64]:
        """Return what each tree says of each row: (n_trees, n_rows, width).

        `X` has the dtype of the grove; `missing` tells whether it may hold NaN.
        """
        n_rows, width = X.shape
        flat, offsets = X.ravel(), np.arange(0, n_rows * width, width)
        at, done = self._roots, 0
        if n_rows == 1:
            near = slice(len(self._near_feature))
            jump = self._child[near] + self._right(flat[self._near_feature], near, missing)
            done = self._near
            for _ in range(done):
                at = jump[at]
        node = at.repeat(n_rows).reshape(-1, n_rows)
        for count in self._walking[done:]:
            here = node[:count]
            x = flat[self._feature[here] + offsets]
            np.add(self._child[here], self._right(x, here, missing), out=here)
        values: NDArray[np.float64] = self._values[self._leaf[node[self._back]]]
        return values

    def _right(self, x: Rows, nodes: Any, missing: bool) -> NDArray[np.bool_]:
        """Whether a node's value `x` leads to the right."""
        right: NDArray[np.bool_] = x > self._threshold[nodes]
        if missing:
            right |= np.isnan(x) & self._missing_right[nodes]
        return right


def in_turn(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add up along the first axis one after the other, as scikit-learn adds trees up.

    numpy does so too, unless the sum is a single number: then it adds in pairs.
    """
    total: NDArray[np.float64] = (
        np.add.reduce(values, axis=0)
        if values[0].size > 1
        else np.add.accumulate(values, axis=0)[-1]
    )
    return total


# What the methods of one estimator have in common is built once.
_shared: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def shared(estimator: Any, make: Callable[[], T]) -> T:
    """Return what was made for an estimator before, or make it. It may not hold the estimator."""
    made = _shared.get(estimator)
    if made is None:
        made = _shared[estimator] = make()
    return made


def as_single(X: NDArray[np.float64], nan: bool) -> tuple[NDArray[np.float32], bool]:
    """Return X in the precision that scikit-learn's trees compare in, and whether NaN is in it.

    Raises Declined for what they refuse: infinity, what is infinite in float32, NaN if not `nan`.
    """
    single = X.astype(np.float32)
    if np.isfinite(np.add.reduce(single, axis=None)):
        return single, False
    if not nan or np.isinf(single).any():
        raise Declined
    return single, True


def nodes_of(tree: Any, values: NDArray[np.float64]) -> Tree:
    """Return a `sklearn.tree._tree.Tree` with other values (n_nodes, width) than its own."""
    nodes = tree.__getstate__()["nodes"]
    left = nodes["left_child"]
    return Tree(
        left < 0,
        left,
        nodes["right_child"],
        nodes["feature"],
        nodes["threshold"],
        nodes["missing_go_to_left"].astype(bool),
        values,
    )


def _rounded_down(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the largest of `dtype` not above each value: a float32 is above both or neither."""
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
    return np.where(rounded > values, np.nextafter(rounded, dtype.type(-np.inf)), rounded)


class _Forest:
    """The mean of some trees, as scikit-learn computes it: added up in turn, then divided."""

    def __init__(self, estimator: Any, counts: list[int]) -> None:
        """`counts` are the classes of each output, or a 1 for each output of a regressor."""
        members = look(estimator, "estimators_")
        self._alone = members is None
        self._trees = [one.tree_ for one in ([estimator] if self._alone else members)]
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
                [nodes_of(one, self._columns(one.value)) for one in self._trees], np.float32
            )
            if pays
            else None
        )

    def __call__(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the means (n_rows, width), the outputs side by side."""
        single, missing = as_single(X, self._nan)
        if self._alone:
            return self._one(self._trees[0], single)
        if self._grove is not None and len(X) <= self._most:
            total = in_turn(self._grove.values(single, missing))
        else:
            total = np.zeros((len(X), sum(self._counts)))
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


def _regressor(estimator: Any, method: str) -> Kernel | None:
    if method != "predict":
        return None
    outputs = estimator.n_outputs_
    mean = shared(estimator, lambda: _Forest(estimator, [1] * outputs))
    return (lambda X: mean(X)[:, 0]) if outputs == 1 else mean


def _classifier(estimator: Any, method: str) -> Kernel | None:
    if method not in ("predict", "predict_proba", "predict_log_proba"):
        return None
    counts = np.atleast_1d(estimator.n_classes_).tolist()
    mean = shared(estimator, lambda: _Forest(estimator, counts))
    alone, ends = len(counts) == 1, np.cumsum(counts)[:-1]
    classes = [estimator.classes_] if alone else estimator.classes_

    def probabilities(X: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        p = mean(X)
        return [p] if alone else [np.ascontiguousarray(one) for one in np.split(p, ends, axis=1)]

    def predict(X: NDArray[np.float64]) -> NDArray[Any]:
        labels = [
            some.take(p.argmax(axis=1)) for some, p in zip(classes, probabilities(X), strict=True)
        ]
        return labels[0] if alone else np.stack(labels, axis=1)

    def predict_proba(X: NDArray[np.float64]) -> Any:
        p = probabilities(X)
        return p[0] if alone else p

    def predict_log_proba(X: NDArray[np.float64]) -> Any:
        with np.errstate(divide="ignore"):
            p = [np.log(one) for one in probabilities(X)]
        return p[0] if alone else p

    return {
        "predict": predict,
        "predict_proba": predict_proba,
        "predict_log_proba": predict_log_proba,
    }[method]


class _Isolation:
    """The scores of an IsolationForest: how soon its trees set a row apart."""

    def __init__(self, estimator: Any) -> None:
        members = zip(
            estimator.estimators_,
            estimator.estimators_features_,
            estimator._decision_path_lengths,
            estimator._average_path_length_per_tree,
            strict=True,
        )
        trees = []
        for member, features, lengths, averages in members:
            tree = nodes_of(member.tree_, (lengths + averages - 1.0)[:, None])
            chosen = features[np.where(tree.leaf, 0, tree.feature)]
            trees.append(tree._replace(feature=chosen))
        average = sys.modules[type(estimator).__module__]._average_path_length
        self._deepest = len(trees) * average([estimator._max_samples])
        self._grove = PackedTrees(trees, np.float32)

    def __call__(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores (n_rows,). Raises Declined for more rows than a walk is good at."""
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
    scores, offset = shared(estimator, lambda: _Isolation(estimator)), estimator.offset_
    kernels: dict[str, Kernel] = {
        "score_samples": scores,
        "decision_function": lambda X: scores(X) - offset,
        "predict": lambda X: np.where(scores(X) - offset < 0, -1, 1),
    }
    return kernels[method]


KERNELS: dict[str, Builder] = {
    **dict.fromkeys(("DecisionTreeClassifier", "ExtraTreeClassifier"), _classifier),
    **dict.fromkeys(("ExtraTreesClassifier", "RandomForestClassifier"), _classifier),
    **dict.fromkeys(("DecisionTreeRegressor", "ExtraTreeRegressor"), _regressor),
    **dict.fromkeys(("ExtraTreesRegressor", "RandomForestRegressor"), _regressor),
    "IsolationForest": _isolation,
}
