"""All trees of a forest as one of scikit-learn's trees, which its compiled code walks.

scikit-learn walks one tree for many rows in nanoseconds a node; what takes long is to call each
tree. So the trees become the branches of one: above their roots stand nodes that look at one column
more, the number of a tree. A row is asked once for each tree, with that number beside its cells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# A node takes 76 bytes, so the whole at most 19 MB: several times what packed arrays take.
MOST_NODES = 250_000

# Measured on one core, 100 trees: one row takes a third to a sixth of the time that it takes in
# packed arrays, and some 32 rows as long.
MOST_ROWS = 32

# Cells that are asked for at once, 4 bytes each: each row stands there once for each tree.
MOST_CELLS = 500_000


class Nodes(NamedTuple):
    """The nodes of all trees, those of one behind those of another."""

    leaf: NDArray[np.bool_]
    left: NDArray[np.integer[Any]]  # among all nodes, as is `right`
    right: NDArray[np.integer[Any]]
    feature: NDArray[np.integer[Any]]
    threshold: NDArray[np.float64]  # at or below it a row goes left
    missing_left: NDArray[np.bool_]


class MergedTree:
    """Finds the leaves of a few float32 rows."""

    def __init__(self, nodes: Nodes, roots: NDArray[np.intp], like: Any) -> None:
        """Merge the trees with these `roots` into one of the kind of `like`."""
        feature = np.where(nodes.leaf, 0, nodes.feature)
        self._trees, self._width = len(roots), int(feature.max()) + 1
        above = _dispatch(roots, self._width, like.__getstate__()["nodes"].dtype)
        first = self._first = len(above)
        merged = np.zeros(first + len(nodes.leaf), above.dtype)
        # In the order of the trees, where a left child follows its parent: in another one most
        # steps wait for memory.
        merged[:first], below = above, merged[first:]
        below["left_child"] = np.where(nodes.leaf, -1, nodes.left + first)
        below["right_child"] = np.where(nodes.leaf, -1, nodes.right + first)
        below["feature"], below["threshold"] = feature, nodes.threshold
        below["missing_go_to_left"] = nodes.missing_left
        self._leaf = (np.cumsum(nodes.leaf) - 1).astype(np.int32)
        self._numbers = np.arange(len(roots), dtype=np.float32)[:, np.newaxis]
        self._walk = type(like)(self._width + 1, np.ones(1, np.intp), 1)
        self._walk.__setstate__(
            {
                "max_depth": like.max_depth,
                "node_count": len(merged),
                "nodes": merged,
                "values": np.zeros((len(merged), 1, 1)),
            }
        )

    def takes(self, rows: int) -> bool:
        """Whether so many rows may be asked for at once."""
        return rows <= MOST_ROWS and rows * self._trees * (self._width + 1) <= MOST_CELLS

    def ends(self, X: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return where each row arrives in each tree: (n_trees, n_rows), numbers of leaves."""
        asked = np.empty((self._trees, len(X), self._width + 1), np.float32)
        asked[:, :, :-1] = X[:, : self._width]
        asked[:, :, -1] = self._numbers
        nodes: NDArray[np.intp] = self._walk.apply(asked.reshape(-1, self._width + 1))
        return self._leaf[nodes - self._first].reshape(self._trees, len(X))


def _dispatch(roots: NDArray[np.intp], column: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return nodes that lead from the number of a tree, in a column, to its root behind them.

    Level by level they halve the numbers.
    """
    depth = (len(roots) - 1).bit_length()
    count = 2**depth - 1
    at = np.arange(count)
    level = np.frexp(at + 1)[1] - 1
    nodes = np.zeros(count, dtype)
    nodes["feature"] = column
    nodes["threshold"] = (at + 1.5 - 2.0**level) * 2.0 ** (depth - level) - 0.5
    # There may be fewer trees than places for their roots.
    targets = np.concatenate([at, np.pad(roots + count, (0, count + 1 - len(roots)), "edge")])
    nodes["left_child"], nodes["right_child"] = targets[2 * at + 1], targets[2 * at + 2]
    return nodes
