"""Linear models and linear classifiers: one product, and what the class makes of it.

The arithmetic is scikit-learn's own, in its order; what is left out is the validation around it,
which takes thirty times as long for one row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Declined, Kernel, finite
from skserve.estimators.methods import look


def _product(estimator: Any) -> Kernel | None:
    """Return X @ coef_.T + intercept_, as the attributes are shaped."""
    coef, intercept = look(estimator, "coef_"), look(estimator, "intercept_")
    if not isinstance(coef, np.ndarray) or coef.ndim not in (1, 2) or coef.dtype.kind != "f":
        return None  # SparseCoefMixin.sparsify makes it a sparse matrix
    weights = coef.T if coef.ndim == 2 else coef
    return lambda X: finite(X) @ weights + intercept


def _regressor(estimator: Any, method: str) -> Kernel | None:
    return _product(estimator) if method == "predict" else None


def _generalized(estimator: Any, method: str) -> Kernel | None:
    """PoissonRegressor and its like: the link's inverse of the product."""
    product = _regressor(estimator, method)
    inverse = look(look(look(estimator, "_base_loss"), "link"), "inverse")
    if product is None or inverse is None:
        return None
    return lambda X: inverse(product(X))


def _scores(estimator: Any) -> Kernel | None:
    """Return the decision function: (n_rows,) for two classes, else (n_rows, n_classes)."""
    product = _product(estimator)
    if product is None:
        return None

    def scores(X: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = product(X)
        return values.reshape(-1) if values.ndim > 1 and values.shape[1] == 1 else values

    return scores


def _classifier(estimator: Any, method: str) -> Kernel | None:
    scores, classes = _scores(estimator), look(estimator, "classes_")
    if scores is None or not isinstance(classes, np.ndarray):
        return None
    if method == "decision_function":
        return scores
    if method != "predict":
        return None

    def predict(X: NDArray[np.float64]) -> NDArray[Any]:
        values = scores(X)
        indices: Any = (values > 0).astype(np.intp) if values.ndim == 1 else values.argmax(axis=1)
        labels: NDArray[Any] = classes.take(indices, axis=0)
        return labels

    return predict


def _ridge_classifier(estimator: Any, method: str) -> Kernel | None:
    kind = look(look(estimator, "_label_binarizer"), "y_type_")
    if not isinstance(kind, str) or kind.startswith("multilabel"):
        return None
    return _classifier(estimator, method)


def _one_against_rest(estimator: Any) -> Kernel | None:
    """Return LinearClassifierMixin's probabilities: a sigmoid each, made to add up to one."""
    from scipy.special import expit  # loaded with scikit-learn already

    scores = _scores(estimator)
    if scores is None:
        return None

    def probabilities(X: NDArray[np.float64]) -> NDArray[np.float64]:
        p: NDArray[np.float64] = expit(scores(X))
        if p.ndim == 1:
            return np.stack([1 - p, p], axis=1)
        total = p.sum(axis=1)
        if not total.all():
            raise Declined  # no class at all: each version has an answer of its own
        p /= total[:, None]
        return p

    return probabilities


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn scores (n_rows, n_classes) into probabilities, as sklearn.utils.extmath does."""
    values = np.exp(values - values.max(axis=1, keepdims=True))
    values /= values.sum(axis=1, keepdims=True)
    return values


def _multinomial(estimator: Any) -> Kernel | None:
    scores = _scores(estimator)
    return None if scores is None else lambda X: softmax(_two_columns(scores(X)))


def _two_columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([-values, values], axis=1) if values.ndim == 1 else values


def _logistic(estimator: Any, method: str) -> Kernel | None:
    if method not in ("predict_proba", "predict_log_proba"):
        return _classifier(estimator, method)
    # scikit-learn 1.3 to 1.7 let the user choose; 1.8 and later know two classes or many.
    asked, binary = look(estimator, "multi_class"), len(estimator.classes_) <= 2
    liblinear = asked is not None and look(estimator, "solver") == "liblinear"
    chosen = asked in (None, "auto", "deprecated", "warn")
    apart = (binary or liblinear) if chosen else asked == "ovr"
    return _logarithm(_one_against_rest(estimator) if apart else _multinomial(estimator), method)


def _discriminant(estimator: Any, method: str) -> Kernel | None:
    if method not in ("predict_proba", "predict_log_proba"):
        return _classifier(estimator, method)
    if method == "predict_log_proba":
        return None  # it keeps the smallest positive number in place of 0
    binary = len(estimator.classes_) == 2
    return _one_against_rest(estimator) if binary else _multinomial(estimator)


def _descent(estimator: Any, method: str) -> Kernel | None:
    if method not in ("predict_proba", "predict_log_proba"):
        return _classifier(estimator, method)
    if look(estimator, "loss") != "log_loss":
        return None
    return _logarithm(_one_against_rest(estimator), method)


def _logarithm(probabilities: Kernel | None, method: str) -> Kernel | None:
    if probabilities is None or method == "predict_proba":
        return probabilities
    return lambda X: np.log(probabilities(X))


_REGRESSORS = (
    "ARDRegression BayesianRidge ElasticNet ElasticNetCV HuberRegressor Lars LarsCV Lasso LassoCV "
    "LassoLars LassoLarsCV LassoLarsIC LinearRegression LinearSVR MultiTaskElasticNet "
    "MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV OrthogonalMatchingPursuit "
    "OrthogonalMatchingPursuitCV PassiveAggressiveRegressor QuantileRegressor Ridge RidgeCV "
    "SGDRegressor TheilSenRegressor"
)

KERNELS: dict[str, Builder] = {
    **dict.fromkeys(_REGRESSORS.split(), _regressor),
    **dict.fromkeys(("GammaRegressor", "PoissonRegressor", "TweedieRegressor"), _generalized),
    **dict.fromkeys(("LinearSVC", "PassiveAggressiveClassifier", "Perceptron"), _classifier),
    **dict.fromkeys(("RidgeClassifier", "RidgeClassifierCV"), _ridge_classifier),
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), _logistic),
    "LinearDiscriminantAnalysis": _discriminant,
    "SGDClassifier": _descent,
}
