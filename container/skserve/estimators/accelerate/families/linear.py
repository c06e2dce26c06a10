"""Linear models and linear classifiers: one product, and what the class makes of it.

The arithmetic is scikit-learn's own, in its order; what is left out is the validation around it,
which takes thirty times as long for one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.blocks import Blocks, Terms, product
from skserve.estimators.accelerate.kernel import (
    Builder,
    Declined,
    Floats,
    Kernel,
    OneRow,
    finite,
    one_row,
)
from skserve.estimators.accelerate.links import Apply, Pick, Probabilities, Softmax
from skserve.estimators.methods import look

# Weights that are kept as Python's numbers too: 2 MB.
MOST_WEIGHTS = 2**16


@dataclass(frozen=True, eq=False)
class Product:
    """X @ weights + intercept: (n_rows,) for one target, else (n_rows, n_targets).

    `flat` makes one column of two dimensions into one of one, as for the scores of two classes.
    """

    weights: NDArray[Any]  # (n_features,) or (n_features, n_targets)
    intercept: Any
    flat: bool = False

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for rows that are not finite."""
        values: Floats
        if type(X) is Blocks:
            values = product(X.parts, self.weights, len(X)) + self.intercept
            if not np.isfinite(values).all():
                raise Declined
        else:
            values = finite(X) @ self.weights + self.intercept
        return values.reshape(-1) if self.flat and values.ndim > 1 else values

    def for_one(self) -> OneRow | None:
        """Return the product of Terms, term by term."""
        if self.weights.size > MOST_WEIGHTS:
            return None
        nested, totals = self.weights.ndim > 1 and not self.flat, self.totals()

        def row(cells: Terms | Sequence[Any]) -> Floats:
            if type(cells) is not Terms:
                return self(one_row(cells))
            values = np.array(totals(cells))
            return values.reshape(1, -1) if nested else values

        return row

    def totals(self) -> Callable[[Terms], list[float]]:
        """Return a function from Terms to their product with the weights of each target."""
        weights = np.atleast_2d(self.weights.T)
        starts = np.broadcast_to(self.intercept, len(weights)).tolist()
        targets = list(zip(weights.tolist(), starts, strict=True))

        def of(terms: Terms) -> list[float]:
            if terms.wide:
                raise Declined  # the order of BLAS decides the last bits
            sums = []
            for each, start in targets:
                total = 0.0
                for at, value in zip(terms.columns, terms.values, strict=True):
                    total += each[at] * value
                total += start
                if not isfinite(total):
                    raise Declined
                sums.append(total)
            return sums

        return of


def joined(kernels: Sequence[Any]) -> Product | None:
    """Return the products of one row with several weights as one, (n_rows, n); None for others."""
    if not kernels or any(
        type(one) is not Product or one.weights.shape[1:] != (1,) for one in kernels
    ):
        return None
    weights = np.ascontiguousarray(np.concatenate([one.weights for one in kernels], axis=1))
    return Product(weights, np.concatenate([np.ravel(one.intercept) for one in kernels]))


def _product(estimator: Any, flat: bool = False) -> Product | None:
    """Return X @ coef_.T + intercept_, as the attributes are shaped."""
    coef, intercept = look(estimator, "coef_"), look(estimator, "intercept_")
    if not isinstance(coef, np.ndarray) or coef.ndim not in (1, 2) or coef.dtype.kind != "f":
        return None  # SparseCoefMixin.sparsify makes it a sparse matrix
    return Product(coef.T if coef.ndim == 2 else coef, intercept, flat and len(coef) == 1)


def _regressor(estimator: Any, method: str) -> Kernel | None:
    return _product(estimator) if method == "predict" else None


def _generalized(estimator: Any, method: str) -> Kernel | None:
    """PoissonRegressor and its like: the link's inverse of the product."""
    product = _regressor(estimator, method)
    inverse = look(look(look(estimator, "_base_loss"), "link"), "inverse")
    return Apply(product, inverse) if product and inverse else None


def scores(estimator: Any) -> Kernel | None:
    """Return the decision function: (n_rows,) for two classes, else (n_rows, n_classes)."""
    return _product(estimator, flat=True)


def classifier(estimator: Any, method: str) -> Kernel | None:
    """Return the kernel of a classifier by scores."""
    values, classes = scores(estimator), look(estimator, "classes_")
    if values is None or not isinstance(classes, np.ndarray):
        return None
    if method == "decision_function":
        return values
    return Pick(values, classes) if method == "predict" else None


def _ridge_classifier(estimator: Any, method: str) -> Kernel | None:
    kind = look(look(estimator, "_label_binarizer"), "y_type_")
    if not isinstance(kind, str) or kind.startswith("multilabel"):
        return None
    return classifier(estimator, method)


def probabilities(estimator: Any, apart: bool, method: str) -> Kernel | None:
    """Return predict_proba or predict_log_proba; `apart` where each class has a sigmoid."""
    values = scores(estimator)
    if values is None:
        return None
    p = Probabilities(values) if apart else Softmax(values)
    return p if method == "predict_proba" else Apply(p, np.log)


def _logistic(estimator: Any, method: str) -> Kernel | None:
    if method not in ("predict_proba", "predict_log_proba"):
        return classifier(estimator, method)
    # scikit-learn 1.3 to 1.7 let the user choose; 1.8 and later know two classes or many.
    asked, binary = look(estimator, "multi_class"), len(estimator.classes_) <= 2
    liblinear = asked is not None and look(estimator, "solver") == "liblinear"
    chosen = asked in (None, "auto", "deprecated", "warn")
    apart = (binary or liblinear) if chosen else asked == "ovr"
    return probabilities(estimator, apart, method)


def _descent(estimator: Any, method: str) -> Kernel | None:
    if method not in ("predict_proba", "predict_log_proba"):
        return classifier(estimator, method)
    logistic = look(estimator, "loss") == "log_loss"
    return probabilities(estimator, True, method) if logistic else None


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
    **dict.fromkeys(("LinearSVC", "PassiveAggressiveClassifier", "Perceptron"), classifier),
    **dict.fromkeys(("RidgeClassifier", "RidgeClassifierCV"), _ridge_classifier),
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), _logistic),
    "SGDClassifier": _descent,
}
