"""The fast paths answer as the estimators do; `test_accelerate_*.py` has the larger families."""

from __future__ import annotations

import logging
import warnings
from functools import cache

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import linear_model as lm
from sklearn import preprocessing as pp
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import BaggingRegressor, RandomForestClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics.pairwise import linear_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import SVC, LinearSVC, LinearSVR

from skserve.config import Config
from skserve.errors import BadRequest, StartError
from skserve.estimators.accelerate import accelerate, probes, proof, registry
from skserve.estimators.accelerate.jobs import limit_jobs
from skserve.estimators.accelerate.kernel import Declined
from skserve.estimators.methods import METHODS, find, named
from skserve.estimators.schema import Schema
from skserve.inference.calls import Request
from skserve.inference.estimator_handler import EstimatorHandler

rng = np.random.default_rng(0)
X = rng.normal(3, 2, (120, 4)) * [1, 10, 0.1, 1000]
REAL = X @ [1, -0.2, 3, 0.001] + rng.normal(size=120)
REALS = np.column_stack([REAL, -REAL, REAL**2])
COUNTS = rng.poisson(3, 120)
TWO = (np.median(REAL) < REAL).astype(int)
NAMES = np.array(["red", "white", "rosé"])[np.digitize(REAL, np.quantile(REAL, [0.3, 0.7]))]
SMALL = X / [1, 10, 0.1, 1000]
HOLES = np.where(rng.random(X.shape) < 0.2, np.nan, X)

# What the table must cover, and the methods each must accelerate.
REGRESSORS = {
    "LinearRegression": lm.LinearRegression(),
    "Ridge": lm.Ridge(),
    "RidgeCV": lm.RidgeCV(),
    "Lasso": lm.Lasso(alpha=0.5),
    "LassoCV": lm.LassoCV(cv=3),
    "ElasticNet": lm.ElasticNet(),
    "ElasticNetCV": lm.ElasticNetCV(cv=3),
    "BayesianRidge": lm.BayesianRidge(),
    "ARDRegression": lm.ARDRegression(),
    "HuberRegressor": lm.HuberRegressor(max_iter=1000),
    "Lars": lm.Lars(),
    "LassoLars": lm.LassoLars(),
    "OrthogonalMatchingPursuit": lm.OrthogonalMatchingPursuit(n_nonzero_coefs=2),
    "QuantileRegressor": lm.QuantileRegressor(alpha=0.01, solver="highs"),
    "SGDRegressor": lm.SGDRegressor(random_state=0),
    "TheilSenRegressor": lm.TheilSenRegressor(random_state=0, max_subpopulation=100),
    "LinearSVR": LinearSVR(),
}
CLASSIFIERS = {
    "LogisticRegression": lm.LogisticRegression(),
    "LogisticRegressionCV": lm.LogisticRegressionCV(Cs=2, cv=2),
    "RidgeClassifier": lm.RidgeClassifier(),
    "RidgeClassifierCV": lm.RidgeClassifierCV(),
    "SGDClassifier": lm.SGDClassifier(loss="log_loss", random_state=0),
    "SGDClassifier hinge": lm.SGDClassifier(random_state=0),
    "Perceptron": lm.Perceptron(),
    "LinearSVC": LinearSVC(),
    "LinearDiscriminantAnalysis": LinearDiscriminantAnalysis(),
}
TRANSFORMERS = {
    "StandardScaler": pp.StandardScaler(),
    "StandardScaler without mean": pp.StandardScaler(with_mean=False),
    "MinMaxScaler": pp.MinMaxScaler((-1, 3), clip=True),
    "MaxAbsScaler": pp.MaxAbsScaler(),
    "RobustScaler": pp.RobustScaler(),
    "SimpleImputer": SimpleImputer(strategy="median"),
}


# Each estimator that has a kernel here, in each way that matters, with what it is fitted on.
UNFITTED: dict[str, tuple[BaseEstimator, np.ndarray, np.ndarray | None]] = {
    **{name: (model, SMALL, REAL) for name, model in REGRESSORS.items()},
    **{
        name: (getattr(lm, name)(), SMALL, COUNTS + 1)
        for name in ("PoissonRegressor", "GammaRegressor", "TweedieRegressor")
    },
    **{
        f"{name} of three": (getattr(lm, name)(), SMALL, REALS)
        for name in ("LinearRegression", "Ridge", "Lars")
    },
    "MultiTaskLasso": (lm.MultiTaskLasso(), SMALL, REALS),
    "Ridge of one column": (lm.Ridge(), SMALL, REAL[:, None]),
    "Lasso of float32": (lm.Lasso(), SMALL.astype(np.float32), REAL),
    **{
        f"{name} {kind}": (clone(model), SMALL, y)
        for name, model in CLASSIFIERS.items()
        for kind, y in (("two", TWO), ("text", NAMES), ("truth", TWO > 0))
    },
    "liblinear of three": (lm.LogisticRegression(solver="liblinear"), SMALL, TWO),
    **{name: (model, HOLES, None) for name, model in TRANSFORMERS.items()},
    "Normalizer": (pp.Normalizer(), X, None),
    "pipeline": (
        make_pipeline(SimpleImputer(), pp.StandardScaler(), lm.LogisticRegression()),
        HOLES,
        NAMES,
    ),
    "search": (
        GridSearchCV(
            Pipeline([("s", pp.RobustScaler()), ("none", "passthrough"), ("m", lm.Ridge())]),
            {"m__alpha": [1, 2]},
            cv=2,
        ),
        X,
        REAL,
    ),
    "columns": (
        make_pipeline(
            ColumnTransformer(
                [
                    ("a", make_pipeline(SimpleImputer(), pp.StandardScaler()), [3, 0]),
                    ("b", "passthrough", slice(1, 2)),
                    ("c", "drop", [False, False, True, False]),
                ]
            ),
            lm.Ridge(),
        ),
        np.where(np.arange(4) == 1, X, HOLES),
        REAL,
    ),
}


@cache
def fitted(name: str) -> BaseEstimator:
    """Fit when it is asked for: each process of the tests collects this module, one runs it."""
    model, rows, y = UNFITTED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(rows, y)


def own_and_fast(model: object) -> list[tuple[str, object, object]]:
    pairs = [(name, find(model, name), registry.kernel(model, name)) for name in METHODS]
    return [(name, own, fast) for name, own, fast in pairs if own is not None and fast is not None]


def same(fast: object, own: object) -> bool:
    assert isinstance(fast, np.ndarray)
    assert isinstance(own, np.ndarray)
    assert (fast.shape, fast.dtype) == (own.shape, own.dtype)
    if own.dtype.kind == "f":
        largest = np.abs(own[np.isfinite(own)]).max(initial=1.0)
        return np.allclose(fast, own, rtol=1e-12, atol=1e-12 * largest, equal_nan=True)
    return bool((fast == own).all())


@pytest.mark.parametrize("name", UNFITTED)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_a_kernel_answers_as_the_estimator_does(name, data):
    model = fitted(name)
    count = data.draw(st.sampled_from([1, 2, 50]))
    seed = data.draw(st.integers(0, 10**6))
    scale = data.draw(st.sampled_from([0.0, 1.0, 1e-300, 1e6]))
    rows = np.random.default_rng(seed).normal(3, 2, (count, model.n_features_in_)) * scale
    if data.draw(st.booleans()):
        rows[0, 0] = data.draw(st.sampled_from([np.nan, np.inf, 1e300, -0.0]))
    pairs = own_and_fast(model)
    assert pairs
    for method, own, fast in pairs:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                answer = fast(rows)
            except (Declined, ValueError):
                continue
            assert same(answer, own(rows)), method


@pytest.mark.parametrize("name", UNFITTED)
def test_a_kernel_answers_ordinary_rows_and_is_proved(name):
    model = fitted(name)
    rows = probes.probe(model, model.n_features_in_)
    for _, own, fast in own_and_fast(model):
        fast(rows)  # declines nothing here
        assert proof.holds(fast, own, rows)


def test_kernels_leave_what_they_are_given_as_it_is():
    for model in map(fitted, UNFITTED):
        rows = probes.probe(model, model.n_features_in_)
        before = rows.copy()
        for _, _, fast in own_and_fast(model):
            fast(rows)
        assert (rows == before).all()


WRONG = {
    "a path that is off by a millionth": lambda own: lambda rows: own(rows) * (1 + 1e-6),
    "a path that answers float32": lambda own: lambda rows: own(rows).astype(np.float32),
    "a path that answers another shape": lambda own: lambda rows: own(rows)[:, None],
    "a path that is wrong for one row alone": lambda own: lambda rows: own(rows) + (len(rows) == 1),
    "a path that refuses": lambda own: lambda rows: own(np.full(rows.shape, np.nan)),
    "a path that answers what is refused": lambda own: lambda rows: own(np.nan_to_num(rows)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_path_is_not_used(wrong, monkeypatch, caplog):
    model = fitted("Ridge")
    monkeypatch.setitem(registry.builders(), "Ridge", lambda model, name: wrong(model.predict))

    with caplog.at_level(logging.INFO, "skserve"):
        assert accelerate(model, {"predict": model.predict}, Schema.of(model)) == {}

    assert "differs from scikit-learn's and is not used" in caplog.text
    assert "accelerated nothing; as scikit-learn does it: predict" in caplog.text


def test_a_builder_that_fails_on_an_older_pickle_leaves_the_estimator_alone():
    model = lm.LogisticRegression().fit(SMALL, TWO)
    del model.classes_

    assert accelerate(model, {"predict_proba": model.predict_proba}, Schema.of(model)) == {}


def test_a_method_that_fails_keeps_no_other_from_being_served():
    model = make_pipeline(pp.StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr"))
    line = EstimatorHandler.of(model.fit(X, TWO), None, Config())

    with pytest.raises(NotImplementedError):  # scikit-learn's own
        line._methods["transform"](X)
    assert line._methods["predict"](X[:9]).tolist() == model.predict(X[:9]).tolist()


class Shift(TransformerMixin, BaseEstimator):
    """A step of a user, with a name of scikit-learn's for something else."""

    def fit(self, X, y=None):
        self.n_features_in_, self.mean_, self.scale_ = X.shape[1], X.mean(axis=1), np.ones(2)
        return self

    def transform(self, X):
        return X + 1


def test_a_step_with_attributes_of_other_shapes_is_served():
    model = make_pipeline(Shift(), lm.Ridge()).fit(X, REAL)
    line = EstimatorHandler.of(model, None, Config())

    assert line._methods["predict"](X).tolist() == model.predict(X).tolist()


def test_a_subclass_is_never_accelerated():
    class Ridge(lm.Ridge):
        def predict(self, X):
            return np.full(len(X), 42.0)

    model = Ridge().fit(SMALL, REAL)
    wrapped = make_pipeline(pp.StandardScaler(), model).fit(X, REAL)

    assert registry.kernel(model, "predict") is None
    line = EstimatorHandler.of(wrapped, None, Config())
    assert line._methods["predict"](X[:2]).tolist() == [42.0, 42.0]


def test_an_object_with_a_method_of_its_own_is_never_accelerated():
    model = lm.Ridge().fit(SMALL, REAL)
    own = model.predict
    model.predict = lambda X: np.minimum(own(X), 1e9)  # no probe row comes that far
    wrapped = Pipeline([("s", pp.StandardScaler().fit(X)), ("m", model)])
    line = EstimatorHandler.of(wrapped, None, Config())

    assert registry.kernel(model, "predict") is None
    assert line._methods["predict"](X[:2] * 1e15).max() <= 1e9


def test_what_is_declined_is_asked_of_the_estimator():
    model = fitted("LinearRegression")
    (fast,) = accelerate(model, {"predict": model.predict}, Schema.of(model)).values()

    with pytest.raises(ValueError, match="Input X contains NaN"):
        fast(np.full((1, 4), np.nan))
    assert same(fast(np.asfortranarray(SMALL)), model.predict(SMALL))
    assert fast(SMALL.astype(np.float32)).dtype == model.predict(SMALL.astype(np.float32)).dtype
    assert fast(SMALL.tolist()).tolist() == model.predict(SMALL).tolist()


def test_require_stops_the_start_where_there_is_no_fast_path():
    svc = SVC(kernel=linear_kernel).fit(SMALL, TWO)

    with pytest.raises(StartError, match="SKSERVE_ACCELERATE is require, but predict of this SVC"):
        EstimatorHandler.of(svc, None, Config(accelerate="require"))
    EstimatorHandler.of(fitted("Ridge"), None, Config(accelerate="require"))
    EstimatorHandler.of(svc, None, Config(accelerate="auto"))


def test_off_asks_the_estimator():
    line = EstimatorHandler.of(fitted("Ridge"), None, Config(accelerate="off"))

    assert line._methods["predict"] == fitted("Ridge").predict


@pytest.mark.parametrize("names", [None, list("abcd")])
def test_a_pipeline_with_a_step_of_its_own_is_accelerated_around_it(names):
    table = X if names is None else pd.DataFrame(X, columns=names)
    model = make_pipeline(PCA(3), pp.StandardScaler(), PCA(2), lm.Ridge()).fit(table, REAL)

    (fast,) = accelerate(model, {"predict": named(model.predict, names)}, Schema.of(model)).values()

    assert same(fast(X), model.predict(table))
    assert same(fast(X[:1]), model.predict(table[:1]))


@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_a_step_that_is_asked_itself_gets_the_names_it_was_fitted_with():
    frame = pd.DataFrame(SMALL, columns=["a", "b", "c", "d"])
    routes = ColumnTransformer(
        [("one", pp.Normalizer(), ["d", "b"])], remainder=pp.StandardScaler()
    )
    model = make_pipeline(routes, lm.Ridge()).fit(frame, REAL)
    line = EstimatorHandler.of(model, None, Config())
    off = EstimatorHandler.of(model, None, Config(accelerate="off"))
    large, infinite = np.full((2, 4), 1e308), np.full((2, 4), np.inf)

    assert line._methods["predict"](SMALL).tolist() == pytest.approx(model.predict(frame).tolist())
    assert answer(line, large) == answer(off, large)
    assert answer(line, infinite) == answer(off, infinite)
    assert answer(line, infinite).startswith("Row 1, column 'a' is infinite. Input X contains inf")


def answer(line: EstimatorHandler, rows: np.ndarray) -> str:
    try:
        return str(line.predict(Request(rows, n_rows=len(rows)), None).rows().tolist())
    except BadRequest as error:
        return str(error)


def test_a_transformer_told_to_return_frames_does():
    scaler = pp.StandardScaler().set_output(transform="pandas").fit(X)

    assert accelerate(scaler, {"transform": scaler.transform}, Schema.of(scaler)) == {}


class Slotted:
    """An estimator of another library's, all of whose attributes are computed."""

    __slots__ = ()
    n_jobs = property(lambda self: -1)

    def get_params(self):
        return {}


def test_jobs_are_looked_for_in_what_is_unlike_scikit_learn():
    forest = RandomForestClassifier(2, n_jobs=-1)
    nested = [forest]
    for _ in range(3000):
        nested = [nested]

    limit_jobs([Slotted(), nested], 1)

    assert forest.n_jobs == 1


def test_jobs_are_brought_down_everywhere(tmp_path):
    forest = RandomForestClassifier(2, n_jobs=-1)
    model = make_pipeline(
        pp.StandardScaler(),
        VotingClassifier([("a", forest), ("b", lm.LogisticRegression())], n_jobs=4),
    )
    search = GridSearchCV(BaggingRegressor(lm.Ridge(), 2, n_jobs=8), {"n_estimators": [2]}, cv=2)
    with joblib.parallel_config("threading"):  # to start eight Pythons takes longer than the test
        joblib.dump([model.fit(X, TWO), search.fit(X, REAL)], tmp_path / "m")
    model, search = joblib.load(tmp_path / "m")

    limit_jobs([model, search], 2)

    assert model[1].n_jobs == model[1].estimators_[0].n_jobs == 2
    assert search.best_estimator_.n_jobs == 2
    assert search.n_jobs is None
    limit_jobs(model, 1)
    assert model[1].estimators_[0].n_jobs == 1
