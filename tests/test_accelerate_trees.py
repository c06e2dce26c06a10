"""Trees walked together answer as scikit-learn's do, bit for bit."""

from __future__ import annotations

import functools
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)
from threadpoolctl import threadpool_limits

from skserve.estimators.accelerate import merged_tree, packed_trees
from skserve.estimators.accelerate.families import boosting, trees
from skserve.estimators.accelerate.kernel import Declined

# scikit-learn's own, of rows beyond float32 that it is asked beside us.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")

KERNELS = {**trees.KERNELS, **boosting.KERNELS}
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples")
# For many rows their own loop is as good as any.
LEFT_ALONE = ("Boosting", "Isolation")

rng = np.random.default_rng(0)
X = rng.normal(size=(240, 5)) * [1, 10, 0.1, 1000, 1]
X[:, 4] = X[:, 4].round()  # ties
REAL = X @ [1, -0.2, 3, 0.001, 0.5] + rng.normal(size=240)
REALS = np.column_stack([REAL, -REAL, REAL**2])
COUNTS = rng.poisson(np.exp(X[:, 0]))
TWO = np.median(REAL) < REAL
NAMES = np.array(["red", "white", "rosé"])[np.digitize(REAL, np.quantile(REAL, [0.3, 0.7]))]
MANY = np.digitize(REAL, np.quantile(REAL, np.linspace(0, 1, 40)[1:-1])) * 10 + 1
LABELS = np.column_stack([TWO, MANY, np.ones(240)]).astype(int)
WORDS = np.column_stack([NAMES, np.where(TWO, "yes", "no")])
HOLES = np.where(rng.random(X.shape) < 0.2, np.nan, X)
WEIGHTS = rng.random(240) * (rng.random(240) < 0.9)
CHAIN = np.arange(240.0)[:, None]  # with y = 2 ** x each split takes off the last row

SINGLE = X.astype(np.float32)
MANY_TREES: dict[str, Any] = {"n_estimators": 25, "random_state": 0}
WEIGHED = {"sample_weight": WEIGHTS}
ONE = {"sample_weight": WEIGHTS / WEIGHTS.sum()}

# name: (estimator, X, y, what else fit is told)
CASES: dict[str, tuple[Any, ...]] = {
    "tree of words": (DecisionTreeClassifier(random_state=0), X, NAMES),
    "tree of outputs": (DecisionTreeClassifier(random_state=0, max_depth=4), X, LABELS),
    "tree of a single class": (DecisionTreeClassifier(), X, np.ones(240)),
    "tree with weights": (DecisionTreeClassifier(max_depth=3), X, NAMES, WEIGHED),
    "tree with holes": (DecisionTreeClassifier(max_depth=6), HOLES, NAMES),
    "regression tree": (DecisionTreeRegressor(max_leaf_nodes=20), X, REAL),
    "regression tree of outputs": (DecisionTreeRegressor(max_depth=5), X, REALS),
    "regression tree of float32": (DecisionTreeRegressor(), SINGLE, REAL),
    "regression tree of negative zeros": (
        DecisionTreeRegressor(criterion="absolute_error"),
        X,
        np.where(TWO, -0.0, REAL),
    ),
    "extra tree": (ExtraTreeClassifier(random_state=0), X, NAMES),
    "extra regression tree": (ExtraTreeRegressor(random_state=0), X, REALS),
    "forest": (RandomForestClassifier(**MANY_TREES), X, TWO),
    "forest of words": (RandomForestClassifier(**MANY_TREES, max_depth=6), X, NAMES),
    "forest of many classes": (RandomForestClassifier(**MANY_TREES), X, MANY),
    "forest of outputs": (RandomForestClassifier(**MANY_TREES), X, LABELS),
    "forest of words for outputs": (RandomForestClassifier(**MANY_TREES), X, WORDS),
    "forest of a single class": (RandomForestClassifier(**MANY_TREES), X, np.full(240, "a")),
    "forest of float32": (RandomForestClassifier(**MANY_TREES), SINGLE, NAMES),
    "forest with holes": (RandomForestClassifier(**MANY_TREES), HOLES, NAMES),
    "forest with weights": (RandomForestClassifier(**MANY_TREES), X, NAMES, WEIGHED),
    "forest whose weights add to one": (
        RandomForestClassifier(**MANY_TREES, bootstrap=False, max_features=2, max_depth=5),
        X,
        NAMES,
        ONE,
    ),
    "forest with class weights": (
        RandomForestClassifier(**MANY_TREES, class_weight="balanced_subsample"),
        X,
        NAMES,
    ),
    "forest by log loss": (
        RandomForestClassifier(**MANY_TREES, criterion="log_loss", max_leaf_nodes=12),
        X,
        MANY,
    ),
    "forest of few trees": (RandomForestClassifier(3, random_state=0), X, NAMES),
    "forest of stumps": (RandomForestClassifier(**MANY_TREES, max_depth=1), X, NAMES),
    "pruned forest": (RandomForestClassifier(**MANY_TREES, ccp_alpha=0.02), X, NAMES),
    "regression forest": (RandomForestRegressor(**MANY_TREES), X, REAL),
    "regression forest of outputs": (RandomForestRegressor(**MANY_TREES), X, REALS),
    "regression forest with holes": (RandomForestRegressor(**MANY_TREES), HOLES, REAL),
    "regression forest as deep as its rows": (
        RandomForestRegressor(**MANY_TREES),
        CHAIN,
        2.0 ** CHAIN[:, 0],
    ),
    "absolute regression forest": (
        RandomForestRegressor(**MANY_TREES, criterion="absolute_error", max_depth=3),
        X,
        REAL,
    ),
    "regression forest of one value": (RandomForestRegressor(**MANY_TREES), X, np.full(240, 0.1)),
    "extra trees": (ExtraTreesClassifier(**MANY_TREES), X, NAMES),
    "extra trees with holes": (ExtraTreesClassifier(**MANY_TREES), HOLES, NAMES),
    "extra regression trees": (ExtraTreesRegressor(**MANY_TREES, bootstrap=True), X, REAL),
    "isolation": (IsolationForest(random_state=0), X, None),
    "isolation in few columns": (
        IsolationForest(n_estimators=20, max_features=2, contamination=0.1, random_state=0),
        X,
        None,
    ),
    "isolation of a single row": (IsolationForest(n_estimators=12, max_samples=1), X, None),
    "boosting": (GradientBoostingClassifier(**MANY_TREES), X, TWO),
    "boosting of words": (GradientBoostingClassifier(**MANY_TREES, subsample=0.5), X, NAMES),
    "boosting of many classes": (GradientBoostingClassifier(n_estimators=3), X, MANY),
    "exponential boosting": (GradientBoostingClassifier(**MANY_TREES, loss="exponential"), X, TWO),
    "boosting from zero": (GradientBoostingClassifier(**MANY_TREES, init="zero"), X, NAMES),
    "boosting from another strategy": (
        GradientBoostingClassifier(**MANY_TREES, init=DummyClassifier(strategy="most_frequent")),
        X,
        TWO,
    ),
    "boosting with weights": (GradientBoostingClassifier(**MANY_TREES), X, NAMES, WEIGHED),
    "boosting that stops early": (
        GradientBoostingClassifier(n_estimators=50, n_iter_no_change=2, random_state=0),
        X,
        TWO,
    ),
    "boosted regression": (GradientBoostingRegressor(**MANY_TREES), X, REAL),
    "boosted regression of float32": (GradientBoostingRegressor(**MANY_TREES), SINGLE, REAL),
    "boosted regression from zero": (GradientBoostingRegressor(init="zero"), X, REAL),
    "huber boosting": (GradientBoostingRegressor(**MANY_TREES, loss="huber"), X, REAL),
    "quantile boosting": (
        GradientBoostingRegressor(**MANY_TREES, loss="quantile", alpha=0.2, max_leaf_nodes=9),
        X,
        REAL,
    ),
    "one boosted tree": (GradientBoostingRegressor(n_estimators=1, max_depth=9), X, REAL),
    "histogram": (HistGradientBoostingClassifier(max_iter=15), X, TWO),
    "histogram of words": (HistGradientBoostingClassifier(max_iter=9), X, NAMES),
    "histogram of many classes": (
        HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=2),
        X,
        MANY,
    ),
    "histogram with holes": (HistGradientBoostingClassifier(max_iter=15), HOLES, NAMES),
    "histogram with weights": (HistGradientBoostingClassifier(max_iter=9), X, TWO, WEIGHED),
    "histogram with class weights": (
        HistGradientBoostingClassifier(max_iter=9, class_weight="balanced"),
        X,
        NAMES,
    ),
    "histogram that stops early": (
        HistGradientBoostingClassifier(max_iter=50, early_stopping=True, random_state=0),
        X,
        TWO,
    ),
    "histogram regression": (HistGradientBoostingRegressor(max_iter=15), X, REAL),
    "histogram regression with holes": (HistGradientBoostingRegressor(max_iter=15), HOLES, REAL),
    "histogram regression of float32": (HistGradientBoostingRegressor(max_iter=15), SINGLE, REAL),
    "histogram regression as deep as can be": (
        HistGradientBoostingRegressor(max_iter=9, min_samples_leaf=1, max_leaf_nodes=None),
        CHAIN,
        CHAIN[:, 0] ** 3,
    ),
    "poisson histogram": (HistGradientBoostingRegressor(max_iter=9, loss="poisson"), X, COUNTS),
    "gamma histogram": (HistGradientBoostingRegressor(max_iter=9, loss="gamma"), X, COUNTS + 1),
    "quantile histogram": (
        HistGradientBoostingRegressor(max_iter=9, loss="quantile", quantile=0.8),
        X,
        REAL,
    ),
    "monotonic histogram": (
        HistGradientBoostingRegressor(max_iter=9, monotonic_cst=[1, -1, 0, 0, 0]),
        X,
        REAL,
    ),
    "histogram of a single leaf": (HistGradientBoostingRegressor(max_iter=2), X[:20], REAL[:20]),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """As in a server: tests that run beside others would wait for threads of OpenMP."""
    with threadpool_limits(1, "openmp"):
        yield


@pytest.fixture(params=["merged", "packed"])
def walk(request, monkeypatch):
    """Walk few rows through merged trees, or where these would be too large, by packed arrays."""
    packed_trees._shared.clear()
    packed_trees._trees.clear()
    if request.param == "packed":
        monkeypatch.setattr(merged_tree, "MOST_NODES", 0)
    yield request.param
    packed_trees._shared.clear()
    packed_trees._trees.clear()


@functools.cache
def fitted(name: str) -> Any:
    estimator, given_rows, y, *more = CASES[name]
    try:
        return estimator.fit(given_rows, y, **(more[0] if more else {}))
    except ValueError as error:
        if "NaN" in str(error):
            pytest.skip("this scikit-learn refuses NaN here")
        raise


def kernel(estimator: Any, method: str) -> Any:
    return KERNELS[type(estimator).__name__](estimator, method)


def methods(estimator: Any) -> list[str]:
    return [method for method in METHODS if hasattr(estimator, method)]


@functools.cache
def thresholds(name: str) -> np.ndarray:
    """Return the values at which the trees of an estimator split, by none of its columns."""
    estimator = fitted(name)
    if hasattr(estimator, "_predictors"):
        splits = [one.nodes["num_threshold"] for row in estimator._predictors for one in row]
    else:
        members = np.ravel(getattr(estimator, "estimators_", [estimator]))
        splits = [one.tree_.threshold for one in members]
    return np.unique(np.concatenate(splits))


def rows_for(name: str, count: int) -> np.ndarray:
    """Draw rows from those it was fitted on, around its thresholds, and from far away."""
    draw, learned = np.random.default_rng(count), CASES[name][1]
    edges = thresholds(name)
    around = np.concatenate(
        [
            edges,
            np.nextafter(edges, np.inf),
            np.nextafter(edges, -np.inf),
            np.nextafter(edges.astype(np.float32), np.float32(np.inf)),
            edges.astype(np.float32),
            [0.0, -0.0, 1e-46, 1e30, -1e30],
        ]
    )
    around = around[np.abs(around) < 1e37]
    rows = np.array(learned[draw.integers(len(learned), size=count)], float)
    return np.where(draw.random(rows.shape) < 0.5, rows, draw.choice(around, rows.shape))


def assert_same(fast: Any, slow: Any) -> None:
    assert type(fast) is type(slow)
    if isinstance(slow, list):
        assert len(fast) == len(slow)
        for one, other in zip(fast, slow, strict=True):
            assert_same(one, other)
        return
    assert (fast.dtype, fast.shape) == (slow.dtype, slow.shape)
    np.testing.assert_array_equal(fast, slow)
    if slow.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(fast), np.signbit(slow))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.usefixtures("walk")
def test_the_answers_are_the_estimators_own(name):
    estimator = fitted(name)
    for method in methods(estimator):
        fast = kernel(estimator, method)
        for count in (1, 2, 3, 40, 64):
            rows = rows_for(name, count)
            assert_same(fast(rows.copy()), getattr(estimator, method)(rows))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_many_rows_are_answered_or_left_to_the_estimator(name):
    estimator, rows = fitted(name), rows_for(name, 200)
    for method in methods(estimator):
        fast = kernel(estimator, method)
        if any(family in type(estimator).__name__ for family in LEFT_ALONE):
            with pytest.raises(Declined):
                fast(rows)
        else:
            assert_same(fast(rows.copy()), getattr(estimator, method)(rows))


@pytest.mark.parametrize("name", [name for name in CASES if "isolation" not in name])
@pytest.mark.usefixtures("walk")
def test_what_the_estimator_refuses_is_declined_and_what_it_takes_is_answered(name):
    estimator = fitted(name)
    fast = kernel(estimator, "predict")
    for value in (np.nan, np.inf, -np.inf, 1e39, -1e300, 3e38):
        rows = rows_for(name, 3)
        rows[1, 0] = value
        try:
            slow = estimator.predict(rows)
        except ValueError:
            with pytest.raises(Declined):
                fast(rows)
            with pytest.raises(Declined):
                fast(rows[1:2])
        else:
            assert_same(fast(rows), slow)
            assert_same(fast(rows[1:2]), estimator.predict(rows[1:2]))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_isolation_declines_what_only_some_versions_take(value):
    rows = rows_for("isolation", 3)
    rows[1, 0] = value
    with pytest.raises(Declined):
        kernel(fitted("isolation"), "predict")(rows)


@pytest.mark.parametrize(
    "name",
    [
        "tree with holes",
        "forest of outputs",
        "forest with holes",
        "regression forest with holes",
        "extra trees with holes",
        "boosting",
        "boosted regression of float32",
        "histogram with holes",
        "histogram of many classes",
        "poisson histogram",
    ],
)
def test_no_row_is_answered_differently(name):
    estimator = fitted(name)
    width = estimator.n_features_in_
    fast = {method: kernel(estimator, method) for method in methods(estimator)}
    edges = thresholds(name)
    value = st.one_of(
        st.sampled_from(edges.tolist()),
        st.sampled_from(edges.tolist()).map(lambda edge: float(np.nextafter(edge, np.inf))),
        st.sampled_from(edges.tolist()).map(lambda edge: float(np.float32(edge))),
        st.floats(-1000, 1000),
        st.floats(),
        st.just(float("nan")),
    )

    @settings(max_examples=30, deadline=None, database=None)
    @given(
        st.lists(st.lists(value, min_size=width, max_size=width), min_size=1, max_size=5).map(
            np.array
        )
    )
    def check(rows):
        for method, answer in fast.items():
            own = getattr(estimator, method)
            try:
                found = answer(rows.copy())
            except Declined:
                continue
            with np.errstate(all="ignore"):
                assert_same(found, own(rows))

    check()


def test_a_tie_goes_to_the_class_that_scikit_learn_names():
    two, four = np.array([[0.0], [0.0]]), np.array([[0.0], [0.0], [0.0], [0.0]])
    for estimator in (
        DecisionTreeClassifier().fit(two, ["b", "a"]),
        RandomForestClassifier(20, bootstrap=False).fit(four, ["b", "a", "c", "c"]),
        RandomForestClassifier(20, bootstrap=False).fit(two, ["b", "a"]),
        GradientBoostingClassifier(n_estimators=12).fit(two, ["b", "a"]),
        HistGradientBoostingClassifier(max_iter=12).fit(two, ["b", "a"]),
    ):
        assert_same(kernel(estimator, "predict")(two[:1]), estimator.predict(two[:1]))


@pytest.mark.parametrize("warm", [RandomForestRegressor, GradientBoostingRegressor])
def test_trees_that_were_added_later_count(warm):
    estimator = warm(n_estimators=12, warm_start=True, random_state=0).fit(X, REAL)
    estimator.set_params(n_estimators=20).fit(X, REAL)

    assert_same(kernel(estimator, "predict")(X[:5].copy()), estimator.predict(X[:5]))


@pytest.mark.parametrize(
    "estimator",
    [RandomForestRegressor(12), GradientBoostingRegressor(), HistGradientBoostingRegressor()],
    ids=lambda one: type(one).__name__,
)
def test_a_model_that_is_fitted_again_is_packed_again(estimator):
    estimator.set_params(random_state=0).fit(X, REAL)
    kernel(estimator, "predict")(X[:1].copy())
    estimator.fit(X, -REAL)

    assert_same(kernel(estimator, "predict")(X[:5].copy()), estimator.predict(X[:5]))


def test_what_is_not_known_better_is_left_alone():
    custom = GradientBoostingRegressor(n_estimators=3, init=LinearRegression()).fit(X, REAL)
    categories = HistGradientBoostingRegressor(max_iter=5, categorical_features=[0])
    coded = np.column_stack([np.arange(240) % 7, X[:, 1]])
    categories.fit(coded, (coded[:, 0] == 3) + 0.0)

    assert kernel(custom, "predict") is None
    assert kernel(categories, "predict") is None
    assert kernel(fitted("forest"), "apply") is None
    assert kernel(fitted("regression forest"), "predict_proba") is None
    assert kernel(fitted("histogram regression"), "decision_function") is None


def test_names_of_columns_are_not_asked_for(recwarn):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=list("abcde"))
    for estimator in (
        DecisionTreeRegressor().fit(table, REAL),
        RandomForestRegressor(12).fit(table, REAL),
        GradientBoostingRegressor(n_estimators=3).fit(table, REAL),
        HistGradientBoostingRegressor(max_iter=3).fit(table, REAL),
    ):
        assert_same(kernel(estimator, "predict")(X[:4].copy()), estimator.predict(table[:4]))
    assert not recwarn


def test_the_estimator_and_the_rows_stay_as_they_were():
    for name in ("forest with class weights", "boosting of words", "histogram of words"):
        estimator, rows = fitted(name), rows_for(name, 5)
        before = joblib.hash(estimator), rows.tobytes()
        for method in methods(estimator):
            kernel(estimator, method)(rows)
        assert (joblib.hash(estimator), rows.tobytes()) == before


@pytest.mark.parametrize("name", ["forest of words", "histogram with holes"])
def test_many_threads_get_the_answers_of_one(name):
    estimator = fitted(name)
    fast = kernel(estimator, "predict_proba")
    asked = [rows_for(name, count) for count in (1, 2, 5, 1, 30, 1, 64, 3)] * 20
    alone = [fast(rows) for rows in asked]

    with ThreadPoolExecutor(8) as threads:
        for one, other in zip(threads.map(fast, asked), alone, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("name", ["forest", "regression forest", "boosting", "histogram"])
def test_the_arrays_are_shared_by_methods_and_smaller_than_the_trees(name):
    estimator = fitted(name)
    for method in methods(estimator):
        kernel(estimator, method)
    (made,) = [made for key, made in packed_trees._shared.items() if key is estimator]
    packed = sum(one.nbytes for one in vars(made._grove).values() if isinstance(one, np.ndarray))
    if hasattr(estimator, "_predictors"):
        own = sum(one.nodes.nbytes for row in estimator._predictors for one in row)
    else:
        members = [one.tree_ for one in np.ravel(estimator.estimators_)]
        own = sum(one.node_count * 64 + one.value.nbytes for one in members)

    assert packed < 0.7 * own


def test_the_arrays_go_with_the_estimator():
    estimator = RandomForestRegressor(12).fit(X, REAL)
    kernel(estimator, "predict")
    gone = weakref.ref(packed_trees._shared[estimator])
    del estimator
    gc.collect()

    assert gone() is None
