"""Neighbours in float32, proved: what is found is nearest, whatever the vectors."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors

from skserve.estimators.accelerate import probes, proof
from skserve.estimators.accelerate.families import neighbours
from skserve.estimators.accelerate.kernel import Declined

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The estimators' threads would wait for each other on a busy machine."""
    with threadpoolctl.threadpool_limits(1):
        yield


METRICS = ["cosine", "euclidean", "sqeuclidean", "minkowski"]

# Vectors (rows, columns) from normal ones, as real indexes and hostile ones are.
KINDS = {
    "normal": lambda Y, r: Y,
    "clustered": lambda Y, r: Y[:4][r.integers(0, min(4, len(Y)), len(Y))] + 1e-3 * Y,
    "each several times": lambda Y, r: Y[r.integers(0, len(Y) // 4 + 1, len(Y))],
    "all the same": lambda Y, r: np.ones_like(Y),
    "nearly the same": lambda Y, r: Y[:1] + 1e-9 * Y,
    "the same but for last bits": lambda Y, r: (
        Y[r.integers(0, len(Y) // 9 + 1, len(Y))] * (1 + 2.0**-52 * r.integers(-3, 3, (len(Y), 1)))
    ),
    "on a grid": lambda Y, r: r.integers(-2, 3, Y.shape).astype(float),
    "far from zero": lambda Y, r: Y + 1e4,
    "one very long": lambda Y, r: Y * np.where(np.arange(len(Y)) == len(Y) // 2, 1e7, 1)[:, None],
    "some zero": lambda Y, r: Y * (r.random((len(Y), 1)) < 0.7),
    "in order": lambda Y, r: np.sort(Y, axis=0),
    "float32": lambda Y, r: Y.astype(np.float32),
    "integers": lambda Y, r: r.integers(-128, 128, Y.shape),
}
QUERIES = {
    "the vectors": lambda X, scale, r: X,
    "close to them": lambda X, scale, r: X + r.normal(size=X.shape) * scale * 1e-6,
    "around them": lambda X, scale, r: X + r.normal(size=X.shape) * scale,
    "far away": lambda X, scale, r: X + r.normal(size=X.shape) * scale * 1e4,
    "zero": lambda X, scale, r: X * (np.arange(len(X)) > 0)[:, None],
}


def build(estimator, method="kneighbors"):
    return neighbours.KERNELS[type(estimator).__name__](estimator, method)


def index(Y, k=5, metric="cosine", **options):
    options = {"algorithm": "brute"} | options
    return NearestNeighbors(n_neighbors=k, metric=metric, **options).fit(Y)


def true_distances(X, Y, metric):
    """Return (rows of X, rows of Y) in extended precision, squares for euclidean."""
    if metric != "cosine":
        return np.array([((Y.astype(np.longdouble) - x) ** 2).sum(axis=1) for x in X])
    unit = [A / np.where((n := np.linalg.norm(A, axis=1)) < 1e-15, 1, n)[:, None] for A in (X, Y)]
    return np.clip(1 - unit[0].astype(np.longdouble) @ unit[1].T, 0, 2)


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(list(KINDS)),
    asked=st.sampled_from(list(QUERIES)),
    metric=st.sampled_from(METRICS),
    n=st.sampled_from([1, 2, 17, 63, 64, 65, 200, 2000]),
    columns=st.sampled_from([1, 2, 5, 16, 100]),
    k=st.sampled_from([1, 5, 40, 2000]),
    scale=st.sampled_from([1.0, 1.0, 1e-30, 1e30]),
)
@example(1, "normal", "around them", "cosine", 9001, 8, 300, 1.0)
@example(2, "normal", "around them", "euclidean", 9001, 8, 300, 1.0)
@settings(max_examples=80, deadline=None)
def test_the_nearest_are_found_in_order(seed, kind, asked, metric, n, columns, k, scale):
    r = np.random.default_rng(seed)
    Y = KINDS[kind](r.normal(size=(n, columns)), r)
    Y = Y if Y.dtype.kind == "i" else (Y * scale).astype(Y.dtype)
    X = QUERIES[asked](Y[r.integers(0, n, 9 if n < 5000 else 200)].astype(float), scale, r)
    estimator = index(Y, min(k, n), metric)
    try:
        distances, indices = build(estimator)(X)
    except Declined:
        return
    slow, others = estimator.kneighbors(X)

    true = true_distances(X, Y.astype(float), metric)
    found = np.take_along_axis(true, indices, axis=1)
    best = np.sort(true, axis=1)[:, : min(k, n)]
    close = 1e-14 * columns if metric == "cosine" else 1e-13 * best
    assert np.all(np.abs(found - best) <= close)
    assert all(len(set(row)) == len(row) for row in indices.tolist())
    tied = np.diff(distances, axis=1) == 0
    assert np.all(np.diff(distances, axis=1) >= 0)
    assert np.all(np.diff(indices, axis=1)[tied] > 0)

    assert (distances.shape, distances.dtype) == (slow.shape, slow.dtype)
    assert (indices.shape, indices.dtype) == (others.shape, others.dtype)
    long = np.array([(A.astype(float) ** 2).sum(axis=1).max() for A in (X, Y)]).max()
    size = {"cosine": 1.0, "sqeuclidean": long}.get(metric, long**0.5)
    assert np.all(np.abs(distances - slow) <= 1e-12 * size)
    other = np.take_along_axis(true, others, axis=1)
    near = np.abs(found - other) <= 1e-12 * (1.0 if metric == "cosine" else long)
    assert np.all((indices == others) | near)


@pytest.mark.parametrize("metric", METRICS)
def test_what_float32_cannot_tell_apart_is_in_order(metric):
    """Vectors whose distances differ by 1e-9, in no order: float32 keeps seven digits."""
    steps = rng.permutation(500)
    angle = 0.7 + 1e-9 * steps
    Y = np.column_stack([np.cos(angle), np.sin(angle), np.zeros((500, 6))])
    Y = np.vstack([Y, rng.normal(size=(2000, 8)) * [-1, -1, 1, 1, 1, 1, 1, 1] * 0.1 - [1, 1] * 4])
    X = np.eye(8)[:1]
    rough = np.linalg.norm(Y.astype(np.float32) - X.astype(np.float32), axis=1)
    assert set(np.argsort(rough, kind="stable")[:20]) != set(np.argsort(steps)[:20])

    _, indices = build(index(Y, 20, metric))(X)

    assert indices[0].tolist() == np.argsort(steps)[:20].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_equal_vectors_come_by_index_and_too_many_go_to_the_estimator(metric):
    Y = np.vstack([rng.normal(size=(3000, 20)), np.tile(rng.normal(size=20), (700, 1))])
    mixed = rng.permutation(len(Y))
    kernel = build(index(Y[mixed], 12, metric))
    distances, indices = kernel(Y[-1:] + 0.1)

    assert indices[0].tolist() == np.flatnonzero(mixed >= 3000)[:12].tolist()
    assert np.unique(distances).size == 1
    with pytest.raises(Declined):
        build(index(np.tile(Y[:1], (5000, 1)), 5, metric))(Y[-1:])


@pytest.mark.parametrize("metric", METRICS)
def test_one_long_vector_does_not_spoil_the_rest(metric):
    Y = rng.normal(size=(20_000, 30)) + 100
    Y[0] *= 1e9
    estimator = index(Y, 10, metric)
    X = Y[1:41] + rng.normal(size=(40, 30))

    assert build(estimator)(X)[1].tolist() == estimator.kneighbors(X)[1].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_a_row_is_answered_alike_alone_and_among_others(metric):
    Y = rng.normal(size=(6000, 40))
    kernel, X = build(index(Y, 7, metric)), rng.normal(size=(150, 40))
    distances, indices = kernel(X)

    for at in range(0, 150, 7):
        alone = kernel(X[at : at + 1])
        assert alone[0].tolist() == distances[at : at + 1].tolist()
        assert alone[1].tolist() == indices[at : at + 1].tolist()


def test_to_a_vector_of_nothing_all_are_equally_far():
    Y = rng.normal(size=(300, 6))
    X = np.vstack([Y[:2] + 0.1, np.zeros(6), Y[2:3]])
    distances, indices = build(index(Y, 4))(X)

    assert distances[2].tolist() == [1, 1, 1, 1]
    assert indices[2].tolist() == [0, 1, 2, 3]
    others = [0, 1, 3]
    assert indices[others].tolist() == index(Y, 4).kneighbors(X[others])[1].tolist()
    estimator = KNeighborsRegressor(metric="cosine", algorithm="brute").fit(Y, Y[:, 0])
    with pytest.raises(Declined):
        build(estimator, "predict")(X)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("metric", METRICS)
def test_every_method_passes_the_proof_at_load(metric, weights):
    Y = rng.normal(size=(500, 6))
    options = {"metric": metric, "weights": weights, "algorithm": "brute"}
    estimators = [
        index(Y, metric=metric),
        KNeighborsClassifier(**options).fit(Y, Y[:, 0] > 0),
        KNeighborsRegressor(**options).fit(Y, Y[:, :2]),
    ]
    for estimator in estimators:
        rows = probes.probe(estimator, 6)
        for method in {"kneighbors", "predict", "predict_proba"} & set(dir(estimator)):
            assert proof.holds(build(estimator, method), getattr(estimator, method), rows)


# Labels and targets by shape and dtype.
TARGETS = {
    "words": np.array(["yes", "no", "maybe", "don't know"])[rng.integers(0, 4, 800)],
    "numbers": rng.integers(0, 9, 800) * 1.5,
    "one class": np.full(800, "all"),
    "several": rng.integers(0, 3, (800, 3)),
    "several words": np.array(["a", "bb", "ccc"])[rng.integers(0, 3, (800, 2))],
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("metric", METRICS)
def test_classes_and_probabilities_are_the_estimators(metric, weights, kind):
    Y, X = rng.normal(size=(800, 12)), rng.normal(size=(60, 12))
    estimator = KNeighborsClassifier(
        n_neighbors=6, weights=weights, metric=metric, algorithm="brute"
    )
    estimator.fit(Y, TARGETS[kind] if kind != "numbers" else TARGETS[kind].astype(int))

    for method in ("predict", "predict_proba"):
        fast, slow = build(estimator, method)(X), getattr(estimator, method)(X)
        assert type(fast) is type(slow)
        for one, other in zip(fast, slow, strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            if method == "predict":
                assert np.array_equal(one, other)
            else:
                assert np.allclose(one, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8"])
@pytest.mark.parametrize("shape", [(800,), (800, 1), (800, 3)])
@pytest.mark.parametrize("weights", ["uniform", "distance", None])
@pytest.mark.parametrize("metric", METRICS)
def test_values_are_the_estimators(metric, weights, shape, dtype):
    Y, X = rng.normal(size=(800, 12)), rng.normal(size=(60, 12))
    y = (rng.normal(size=shape) * 10).astype(dtype)
    estimator = KNeighborsRegressor(n_neighbors=6, weights=weights, metric=metric)
    estimator.set_params(algorithm="brute").fit(Y, y)

    fast, slow = build(estimator, "predict")(X), estimator.predict(X)
    assert (fast.dtype, fast.shape) == (slow.dtype, slow.shape)
    assert np.allclose(fast, slow, rtol=1e-12, atol=1e-12 * np.abs(y).max())


def test_a_tied_vote_goes_to_the_first_class():
    Y = np.array([[1.0, 0], [0, 1], [1, 1], [5, 5]])
    estimator = KNeighborsClassifier(n_neighbors=2, algorithm="brute", metric="euclidean")
    estimator.fit(Y, ["z", "a", "m", "m"])

    assert build(estimator, "predict")(np.array([[0.2, 0.2]])).tolist() == ["a"]


@pytest.mark.parametrize("kind", [KNeighborsClassifier, KNeighborsRegressor])
@pytest.mark.parametrize("metric", METRICS)
def test_a_weight_that_is_lost_in_rounding_is_the_estimators_to_say(kind, metric):
    Y = rng.normal(size=(100, 5))
    estimator = kind(weights="distance", metric=metric, algorithm="brute")
    kernel = build(estimator.fit(Y, rng.integers(0, 3, 100)), "predict")

    assert len(kernel(Y[:1] + 0.5)) == 1
    with pytest.raises(Declined):
        kernel(Y[:1])


def test_a_vectors_distance_from_itself_is_the_estimators_to_say():
    """It is 0, or what |x|^2 - 2 x.x + |x|^2 leaves, and not the same in one row and in many."""
    Y = rng.normal(size=(100, 30))
    with pytest.raises(Declined):
        build(index(Y, 3, "euclidean"))(Y[:1])
    for metric in ("cosine", "sqeuclidean"):
        assert build(index(Y, 3, metric))(Y[:1])[0][0, 0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_no_bound_holds_for_go_to_the_estimator(metric):
    kernel = build(index(rng.normal(size=(100, 4)), 3, metric))
    bad = [np.nan, np.inf, -np.inf] + [1e300] * (metric != "cosine") + [1e200, 1e-20]
    for value in bad:
        X = np.full((2, 4), 0.5)
        X[1] = value
        if metric != "cosine" and value == 1e-20:
            kernel(X)
            continue
        with pytest.raises(Declined):
            kernel(X)


def test_what_is_searched_by_brute_force_or_in_a_tree_is_taken():
    Y, y = rng.normal(size=(50, 4)), rng.integers(0, 2, 50)
    assert build(index(Y, algorithm="kd_tree", metric="euclidean")) is not None
    assert build(index(Y, algorithm="ball_tree", metric="euclidean")) is not None
    assert build(index(Y, metric="manhattan")) is None
    assert build(index(Y, metric="minkowski", p=3)) is None
    assert build(index(Y, metric="minkowski", metric_params={"w": np.ones(4)})) is None
    assert build(index(Y, metric=lambda a, b: abs(a - b).sum())) is None
    assert build(index(scipy.sparse.csr_matrix(Y))) is None
    assert build(index(Y * 1e200, metric="euclidean")) is None
    assert build(index(Y, k=51)) is None
    assert build(index(Y), "radius_neighbors") is None
    assert build(KNeighborsClassifier(weights=lambda d: d, algorithm="brute").fit(Y, y)) is not None
    estimator = KNeighborsClassifier(weights=lambda d: d, algorithm="brute").fit(Y, y)
    assert build(estimator, "predict") is None
    assert build(KNeighborsRegressor(algorithm="brute").fit(Y, y), "predict_proba") is None


def test_the_methods_of_one_estimator_share_what_is_packed():
    Y = rng.normal(size=(50, 4))
    estimator = KNeighborsClassifier(metric="cosine", algorithm="brute").fit(Y, Y[:, 0] > 0)
    kernels = [build(estimator, name) for name in ("predict", "predict_proba", "kneighbors")]
    assert all(kernels)
    made = list(neighbours._made.values())
    assert [one.fitted is estimator._fit_X for one in made].count(True) == 1

    gone = [weakref.ref(one) for one in made if one.fitted is estimator._fit_X]
    del kernels, made
    gc.collect()
    assert gone[0]() is None
