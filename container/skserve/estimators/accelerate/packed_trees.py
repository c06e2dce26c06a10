"""Many decision trees in one set of arrays, walked together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from operator import is_not
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate import merged_tree
from skserve.estimators.accelerate.kernel import Declined, total
from skserve.estimators.accelerate.merged_tree import MergedTree, Nodes

T = TypeVar("T")
Rows = NDArray[np.floating[Any]]

# Past this the answers of all trees, side by side, take more than 8 MB.
MOST_VALUES = 1_000_000

# Steps of one row before the trees are left out in which it has arrived.
STEPS = 4

# Trees that are walked one by one: a step of all takes as long as one step in twenty of them.
FEW = 24

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


def _joined(trees: Sequence[Tree]) -> tuple[Nodes, NDArray[np.intp]]:
    """Return the nodes of all trees, and each tree's root among them."""
    firsts = np.cumsum([0, *(len(tree.leaf) for tree in trees)])[:-1]
    starts = list(zip(trees, firsts, strict=True))
    nodes = Nodes(
        np.concatenate([tree.leaf for tree in trees]),
        np.concatenate([tree.left + first for tree, first in starts]),
        np.concatenate([tree.right + first for tree, first in starts]),
        np.concatenate([tree.feature for tree in trees]),
        np.concatenate([tree.threshold for tree in trees]),
        np.concatenate([tree.missing_left for tree in trees]),
    )
    return nodes, firsts


def _levels(
    firsts: NDArray[np.intp], nodes: Nodes
) -> tuple[list[NDArray[np.intp]], NDArray[np.intp]]:
    """Return the nodes of each level of all trees, siblings side by side, and each tree's depth."""
    leaf = nodes.leaf
    owner = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(leaf)))
    depths = np.zeros(len(firsts), np.intp)
    levels = [firsts]
    while len(inner := levels[-1][~leaf[levels[-1]]]):
        depths[owner[inner]] = len(levels)
        levels.append(np.stack([nodes.left[inner], nodes.right[inner]], axis=1).ravel())
    return levels, depths


class PackedTrees:
    """Many trees in one set of arrays, walked together.

    Nodes lie level by level and siblings side by side, so a step is `child + (x > threshold)`. A
    leaf is its own child behind an infinite threshold: who has arrived stays. A node takes 19 bytes
    (23 for float64 rows) and the values of a leaf once more, where scikit-learn's forests have 64
    bytes and values for every node, and its histogram boosting 67.
    """

    def __init__(self, trees: Sequence[Tree], like: Any = None) -> None:
        """Pack trees that will be asked for rows of float64.

        Those that are `like` a tree of scikit-learn take rows of float32, and are merged as well.
        """
        nodes, firsts = _joined(trees)
        leaf = nodes.leaf
        levels, depths = _levels(firsts, nodes)
        order = np.concatenate(levels)
        place = np.empty(len(leaf), np.intp)
        place[order] = np.arange(len(order))

        # Plus 0.0, for sums that scikit-learn starts at 0.0 are never -0.0.
        self._values = np.concatenate([tree.values[tree.leaf] for tree in trees]) + 0.0
        fits = like is not None and len(leaf) <= merged_tree.MOST_NODES
        self._merged = MergedTree(nodes, firsts, like) if fits else None
        feature = np.where(leaf, 0, nodes.feature)[order]
        threshold = np.where(leaf, np.inf, nodes.threshold)[order]
        narrow: type[Any] = np.int16 if feature.max() < 2**15 else np.intp
        self._feature: NDArray[np.integer[Any]] = feature.astype(narrow)
        self._threshold = _rounded_down(
            threshold, np.dtype(np.float64 if like is None else np.float32)
        )
        self._missing_right = ~(leaf | nodes.missing_left)[order]
        self._child = np.where(leaf[order], np.arange(len(order)), place[nodes.left[order]])
        self._leaf = (np.cumsum(leaf) - 1)[order].astype(np.int32)

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

        `X` has the dtype that these trees take; `missing` tells whether it may hold NaN.
        """
        n_rows, width = X.shape
        if self._merged is not None and self._merged.takes(n_rows):
            of_leaf: NDArray[np.float64] = self._values[self._merged.ends(X)]
            return of_leaf
        node: NDArray[np.intp]
        if n_rows == 1:
            node = self._ends(X[0], missing)[:, np.newaxis]
        else:
            flat, offsets = X.ravel(), np.arange(0, n_rows * width, width)
            node = self._roots.repeat(n_rows).reshape(-1, n_rows)
            for count in self._walking:
                here = node[:count]
                x = flat[self._feature[here] + offsets]
                np.add(self._child[here], self._right(x, here, missing), out=here)
        values: NDArray[np.float64] = self._values[self._leaf[node[self._back]]]
        return values

    def _ends(self, row: Rows, missing: bool) -> NDArray[np.intp]:
        """Return the leaf at which one row arrives in each tree, in the order of `_roots`."""
        near = np.arange(len(self._near_feature))
        jump = self._child.take(near) + self._right(row[self._near_feature], near, missing)
        ends = self._roots.copy()
        for _ in range(self._near):
            ends = jump[ends]
        walking, here = np.arange(len(ends)), ends
        # A way is half as long as the longest one of its tree: who has arrived is left out.
        while len(walking) > (0 if missing else FEW):
            for _ in range(STEPS):
                x = row.take(self._feature.take(here))
                here = self._child.take(here) + self._right(x, here, missing)
            ends[walking] = here
            on = self._child.take(here) != here
            walking, here = walking[on], here[on]
        if len(walking):
            ends[walking] = self._tree_by_tree(row, here)
        return ends

    def _tree_by_tree(self, row: Rows, nodes: NDArray[np.intp]) -> list[int]:
        """Return the leaves behind a few nodes; there is no NaN in the row."""
        x: list[float] = row.tolist()
        ends: list[int] = nodes.tolist()
        arrays: tuple[Any, ...] = (self._child, self._feature, self._threshold)
        # numpy's own items take twice as long.
        child, feature, threshold = [memoryview(one) for one in arrays]
        for at, node in enumerate(ends):
            while (following := child[node] + (x[feature[node]] > threshold[node])) != node:
                node = following
            ends[at] = node
        return ends

    def _right(self, x: Rows, nodes: NDArray[np.intp], missing: bool) -> NDArray[np.bool_]:
        """Whether a node's value `x` leads to the right."""
        right: NDArray[np.bool_] = x > self._threshold.take(nodes)
        if missing:
            right |= np.isnan(x) & self._missing_right.take(nodes)
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


# What the methods of one estimator have in common is built once, out of these trees.
_shared: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_trees: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()


def shared(estimator: Any, trees: Iterable[Any], make: Callable[[], T]) -> T:
    """Return what was made for an estimator with these very trees before, or make it.

    It may not hold the estimator. One that is fitted again has other trees.
    """
    now, before = list(trees), _trees.get(estimator, [])
    if len(now) != len(before) or any(map(is_not, now, before)):
        _shared[estimator], _trees[estimator] = make(), now
    made: T = _shared[estimator]
    return made


def as_single(X: NDArray[np.float64], nan: bool) -> tuple[NDArray[np.float32], bool]:
    """Return X in the precision that scikit-learn's trees compare in, and whether NaN is in it.

    Raises Declined for what they refuse: infinity, what is infinite in float32, NaN if not `nan`.
    """
    with np.errstate(over="ignore"):  # it becomes infinite, and is declined
        single = X.astype(np.float32)
    if isfinite(total(single)):
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
