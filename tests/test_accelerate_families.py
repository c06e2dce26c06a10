"""Each family of estimators: its kernels answer as the estimator does, alone and together."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import decomposition as de
from sklearn import ensemble as en
from sklearn import feature_selection as fs
from sklearn import linear_model as lm
from sklearn import multiclass as mc
from sklearn import multioutput as mo
from sklearn import naive_bayes as nb
from sklearn import neighbors as ne
from sklearn import preprocessing as pp
from sklearn import svm
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from skserve.estimators.accelerate import proof, registry
from skserve.estimators.accelerate.kernel import Declined
from skserve.estimators.frame import plain
from skserve.estimators.methods import METHODS, find

# scikit-learn's own, of rows beyond float32 that it is asked beside us.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
rng = np.random.default_rng(0)
X = rng.normal(size=(160, 5))
HOLES = np.where(rng.random(X.shape) < 0.2, np.nan, X)
POSITIVE = np.abs(X) + 0.1
TWO = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
NAMES = np.array(["a", "b", "c"])[np.digitize(X[:, 0], [-0.5, 0.5])]
REAL = X @ [1.0, 2.0, 3.0, 4.0, 5.0]
REALS = np.column_stack([REAL, -(REAL**2)])
MARKS = np.column_stack([TWO, X[:, 2] > 0]).astype(int)

logistic, ridge, stump = lm.LogisticRegression(), lm.Ridge(), DecisionTreeClassifier(max_depth=3)
regressor = DecisionTreeRegressor(max_depth=3)
forest = en.RandomForestClassifier(12, max_depth=3, random_state=0)
pair = [("a", logistic), ("b", nb.GaussianNB())]
firm = [("a", logistic), ("b", svm.LinearSVC())]
two_regressors = [("a", ridge), ("b", regressor)]

# Estimator, X, y; each is fitted where a test first asks for it.
CASES: dict[str, tuple[Any, Any, Any]] = {
    "soft votes": (en.VotingClassifier(pair, voting="soft"), X, NAMES),
    "weighted votes": (en.VotingClassifier(pair, voting="soft", weights=[2, 1]), X, TWO),
    "hard votes": (en.VotingClassifier(firm, weights=[1, 3]), X, NAMES),
    "votes of regressors": (en.VotingRegressor(two_regressors, weights=[1, 2]), X, REAL),
    "stack of two": (en.StackingClassifier([("a", logistic), ("b", stump)], logistic), X, TWO),
    "stack of three": (en.StackingClassifier(firm, passthrough=True), X, NAMES),
    "stack of regressors": (en.StackingRegressor(two_regressors), X, REAL),
    "sigmoid": (CalibratedClassifierCV(svm.LinearSVC(), cv=2), X, TWO),
    "isotonic": (CalibratedClassifierCV(forest, method="isotonic", cv=2), X, NAMES),
    "one against the rest": (mc.OneVsRestClassifier(logistic), X, NAMES),
    "one against one other": (mc.OneVsRestClassifier(forest), X, TWO),
    "labels": (mc.OneVsRestClassifier(logistic), X, MARKS),
    "pairs": (mc.OneVsOneClassifier(svm.LinearSVC()), X, NAMES),
    "pair": (mc.OneVsOneClassifier(logistic), X, TWO),
    "codes": (mc.OutputCodeClassifier(logistic, random_state=0), X, NAMES),
    "outputs": (mo.MultiOutputClassifier(logistic), X, MARKS),
    "real outputs": (mo.MultiOutputRegressor(ridge), X, REALS),
    "chain": (mo.ClassifierChain(logistic, order=[1, 0]), X, MARKS),
    "real chain": (mo.RegressorChain(ridge, order=[1, 0]), X, REALS),
    "log target": (
        TransformedTargetRegressor(ridge, func=np.log1p, inverse_func=np.expm1),
        X,
        POSITIVE[:, 0],
    ),
    "scaled target": (
        TransformedTargetRegressor(ridge, transformer=pp.StandardScaler()),
        X,
        REAL,
    ),
    **{f"SVC {k}": (svm.SVC(kernel=k), X, TWO) for k in ("rbf", "linear", "poly", "sigmoid")},
    "SVC of three": (svm.SVC(decision_function_shape="ovo"), X, NAMES),
    "SVC without ties": (svm.SVC(break_ties=True), X, NAMES),
    "SVC probabilities": (svm.SVC(probability=True, random_state=0), X, NAMES),
    "SVR": (svm.SVR(), X, REAL),
    "one class": (svm.OneClassSVM(nu=0.2), X, None),
    "kd-tree": (ne.KNeighborsClassifier(algorithm="kd_tree"), X, NAMES),
    "ball tree": (ne.KNeighborsRegressor(algorithm="ball_tree", weights="distance"), X, REAL),
    **{
        f"network {curve}": (MLPClassifier((9, 8), activation=curve, max_iter=9), X, NAMES)
        for curve in ("relu", "tanh", "logistic", "identity")
    },
    "network of two": (MLPClassifier((9,), max_iter=9), X, TWO),
    "real network": (MLPRegressor(hidden_layer_sizes=(9,), max_iter=9), X, REALS),
    "GaussianNB": (nb.GaussianNB(), X, NAMES),
    "MultinomialNB": (nb.MultinomialNB(), POSITIVE, NAMES),
    "ComplementNB": (nb.ComplementNB(), POSITIVE, NAMES),
    "BernoulliNB": (nb.BernoulliNB(), X, NAMES),
    "KMeans": (KMeans(4, n_init=1, random_state=0), X, None),
    "LDA": (LinearDiscriminantAnalysis(), X, NAMES),
    "LDA eigen": (LinearDiscriminantAnalysis(solver="eigen"), X, NAMES),
    "QDA": (QuadraticDiscriminantAnalysis(), X, NAMES),
    "QDA of two": (QuadraticDiscriminantAnalysis(), X, TWO),
    "Bagging": (en.BaggingClassifier(n_estimators=12, max_features=3), X, NAMES),
    "Bagging of others": (en.BaggingClassifier(logistic, n_estimators=3), X, NAMES),
    "real Bagging": (en.BaggingRegressor(n_estimators=12), X, REAL),
    "real AdaBoost": (en.AdaBoostRegressor(n_estimators=12, random_state=0), X, REAL),
    **{
        f"bins {how}": (make_pipeline(pp.KBinsDiscretizer(4, encode=how), logistic), X, TWO)
        for how in ("ordinal", "onehot", "onehot-dense")
    },
    "squares": (pp.PolynomialFeatures(2), X, None),
    "products": (pp.PolynomialFeatures(3, interaction_only=True, include_bias=False), X, None),
    "powers": (pp.PowerTransformer(), X, None),
    "box-cox": (pp.PowerTransformer(method="box-cox"), POSITIVE, None),
    "quantiles": (pp.QuantileTransformer(n_quantiles=40), X, None),
    "normal": (
        pp.QuantileTransformer(n_quantiles=40, output_distribution="normal"),
        X,
        None,
    ),
    "best": (fs.SelectKBest(k=2), X, TWO),
    "by a model": (fs.SelectFromModel(logistic), X, TWO),
    "by variance": (fs.VarianceThreshold(), X, None),
    "PCA": (make_pipeline(pp.StandardScaler(), de.PCA(3, whiten=True), logistic), X, TWO),
    "TruncatedSVD": (de.TruncatedSVD(3), X, None),
    "functions": (
        make_pipeline(pp.FunctionTransformer(np.abs), pp.FunctionTransformer(np.log1p), ridge),
        X,
        REAL,
    ),
    "signs": (make_pipeline(pp.Binarizer(), pp.Normalizer("l1"), ridge), POSITIVE, REAL),
    "union": (
        FeatureUnion(
            [("a", pp.StandardScaler()), ("b", "passthrough"), ("c", "drop")],
            transformer_weights={"a": 2.0},
        ),
        X,
        None,
    ),
    "marked": (SimpleImputer(add_indicator=True), HOLES, None),
    "marks": (MissingIndicator(error_on_new=False), HOLES, None),
}
if VERSION >= (1, 4):
    CASES["AdaBoost"] = (en.AdaBoostClassifier(n_estimators=12, random_state=0), X, NAMES)
    CASES["AdaBoost of two"] = (en.AdaBoostClassifier(n_estimators=12, random_state=0), X, TWO)
if VERSION < (1, 6):  # their AdaBoost has two kinds of arithmetic
    for one in ("AdaBoost", "AdaBoost of two"):
        if one in CASES:
            CASES[one][0].set_params(algorithm="SAMME")
if VERSION >= (1, 5):
    from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV

    CASES["threshold"] = (FixedThresholdClassifier(logistic, threshold=0.3), X, TWO)
    CASES["other threshold"] = (
        FixedThresholdClassifier(svm.LinearSVC(), threshold=0.3, pos_label=0),
        X,
        TWO,
    )
    CASES["tuned threshold"] = (TunedThresholdClassifierCV(logistic), X, TWO)
if VERSION >= (1, 6):
    from sklearn.frozen import FrozenEstimator

    CASES["frozen"] = (FrozenEstimator(lm.LogisticRegression().fit(X, TWO)), X, TWO)

if VERSION >= (1, 8):
    for one, asked in (("scores", svm.LinearSVC()), ("parts", forest), ("two", logistic)):
        scaled = CalibratedClassifierCV(asked, method="temperature", cv=2)
        CASES[f"temperature of {one}"] = (scaled, X, TWO if one == "two" else NAMES)

_fitted: dict[str, Any] = {}


def fitted(name: str) -> Any:
    """Return a case's estimator, fitted once."""
    if name not in _fitted:
        model, rows, y = CASES[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _fitted[name] = (model if name == "frozen" else clone(model)).fit(rows, y)
    return _fitted[name]


def kernels(model: Any) -> list[tuple[str, Any, Any]]:
    found = [(name, find(model, name), registry.kernel(model, name)) for name in METHODS]
    return [(name, own, fast) for name, own, fast in found if own is not None and fast is not None]


def agree(own: Any, fast: Any, rows: np.ndarray) -> bool:
    """Whether a kernel answers as the estimator does, refuses what it refuses, or declines."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            answer = plain(fast(rows.copy()))
        except Declined:
            return True
        return proof.same(answer, own(rows.copy()))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_a_family_answers_as_the_estimator_does(name, data):
    model, (_, rows, _) = fitted(name), CASES[name]
    asked = rows[data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=40))]
    asked = asked * data.draw(st.sampled_from([1.0, 1.3, 0.01, 50.0]))
    odd = data.draw(st.sampled_from([None, None, np.nan, np.inf, 1e300, 1e-300, 0.0, -0.0]))
    if odd is not None:
        asked[0, data.draw(st.integers(0, 4))] = odd
    pairs = kernels(model)
    assert pairs
    for method, own, fast in pairs:
        try:
            assert agree(own, fast, asked), method
            assert agree(own, fast, asked[:1]), method
        except ValueError:  # scikit-learn refuses them, and the kernel has to
            with pytest.raises((Declined, ValueError)):
                fast(asked)


@pytest.mark.parametrize("name", ["LDA", "LDA eigen", "QDA", "QDA of two"])
def test_logarithms_of_probabilities_have_a_kernel(name):
    assert "predict_log_proba" in [method for method, _, _ in kernels(fitted(name))]


@pytest.mark.parametrize("name", CASES)
def test_a_family_answers_ordinary_rows(name):
    model, (_, rows, _) = fitted(name), CASES[name]

    for _, _, fast in kernels(model):
        fast(rows[:1] + 0.0001)  # declines nothing here


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_is_a_value_that_can_be_written_down(name):
    model, (_, rows, _) = fitted(name), CASES[name]

    for _, _, fast in kernels(model):
        again = pickle.loads(pickle.dumps(fast))
        assert proof.same(plain(again(rows[:1] + 0.0001)), plain(fast(rows[:1] + 0.0001)))
