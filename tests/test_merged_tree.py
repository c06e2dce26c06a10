"""All trees of a forest as one of scikit-learn's trees."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, IsolationForest

from skserve.estimators.accelerate import merged_tree
from skserve.estimators.accelerate.families import boosting, trees
from skserve.estimators.accelerate.merged_tree import MergedTree, Nodes
from skserve.estimators.accelerate.packed_trees import nodes_of

rng = np.random.default_rng(0)
X = rng.normal(size=(120, 4)).astype(np.float32)
Y = X @ np.array([1, -2, 0.5, 3])


def merged(estimators: list) -> MergedTree:
    found = [nodes_of(one.tree_, one.tree_.value[:, 0]) for one in estimators]
    roots = np.cumsum([0, *(len(one.leaf) for one in found)])[:-1]
    whole = [
        [part + root * (name in ("left", "right")) for part, root in zip(parts, roots, strict=True)]
        for name, *parts in zip(Nodes._fields, *found, strict=False)
    ]
    return MergedTree(Nodes(*map(np.concatenate, whole)), roots, estimators[0].tree_)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 64, 130])
def test_each_row_arrives_where_it_does_in_each_tree(count):
    forest = ExtraTreesRegressor(count, random_state=count).fit(X, Y)
    leaves, before = [], 0
    for one in forest.estimators_:
        leaf = one.tree_.children_left < 0
        leaves.append((np.cumsum(leaf) - 1)[one.tree_.apply(X[:9])] + before)
        before += leaf.sum()

    np.testing.assert_array_equal(merged(forest.estimators_).ends(X[:9]), leaves)


def test_trees_of_a_single_leaf_look_at_no_column():
    forest = ExtraTreesRegressor(5).fit(X, np.zeros(120))

    np.testing.assert_array_equal(
        merged(forest.estimators_).ends(X[:2]), np.arange(5)[:, None] + [0, 0]
    )


def test_only_few_rows_and_cells_are_asked_for_at_once(monkeypatch):
    tree = merged(ExtraTreesRegressor(10).fit(X, Y).estimators_)

    assert tree.takes(merged_tree.MOST_ROWS)
    assert not tree.takes(merged_tree.MOST_ROWS + 1)
    monkeypatch.setattr(merged_tree, "MOST_CELLS", 10 * 5 * 3)
    assert tree.takes(3)
    assert not tree.takes(4)


@pytest.mark.parametrize(
    ("families", "estimator"),
    [
        (trees, ExtraTreesRegressor(12, max_depth=5)),
        (trees, IsolationForest(n_estimators=12)),
        (boosting, GradientBoostingRegressor(n_estimators=12)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_trees_are_merged_unless_they_take_too_much_memory(families, estimator, monkeypatch):
    asked = []
    ends = MergedTree.ends
    monkeypatch.setattr(MergedTree, "ends", lambda *of: asked.append(1) or ends(*of))
    build, row = families.KERNELS[type(estimator).__name__], X[:1].astype(float)

    for limit in (merged_tree.MOST_NODES, 10):
        monkeypatch.setattr(merged_tree, "MOST_NODES", limit)
        estimator.set_params(random_state=limit).fit(X, Y)  # anew, or its arrays are known
        np.testing.assert_array_equal(build(estimator, "predict")(row), estimator.predict(row))

    assert asked == [1]
