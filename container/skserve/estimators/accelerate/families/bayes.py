"""Naive Bayes: the likelihood of each class, which for counts is a product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.blocks import Blocks, as_sparse
from skserve.estimators.accelerate.families.linear import Product
from skserve.estimators.accelerate.kernel import Builder, Declined, Floats, Kernel, finite
from skserve.estimators.accelerate.links import Apply, Pick

# Numbers side by side for a block of rows: 8 MB.
MOST = 2**20


def log_shares(likelihood: Floats) -> Floats:
    """Return the logarithm of each class's part of the likelihood."""
    most = likelihood.max(axis=1, keepdims=True)
    total = np.log(np.exp(likelihood - most).sum(axis=1, keepdims=True)) + most
    return likelihood - total  # type: ignore[no-any-return]


def shares(likelihood: Floats) -> Floats:
    """Return each class's part of the likelihood."""
    return np.exp(log_shares(likelihood))


def _classifier(likelihood: Kernel, classes: NDArray[Any], method: str) -> Kernel | None:
    kernels: dict[str, Kernel] = {
        "predict": Pick(likelihood, classes),
        "predict_proba": Apply(likelihood, shares),
        "predict_log_proba": Apply(likelihood, log_shares),
    }
    return kernels.get(method)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The log likelihood of a normal distribution of each feature in each class."""

    constant: Floats  # (n_classes,): of the prior and the variances
    means: Floats  # (n_classes, n_features)
    variances: Floats

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes). Raises Declined for rows that are not finite."""
        rows = finite(X)
        step = max(1, MOST // self.means.size)
        parts = [self._block(rows[at : at + step]) for at in range(0, len(rows), step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _block(self, rows: Floats) -> Floats:
        squares = (rows[:, None] - self.means) ** 2 / self.variances
        return self.constant - 0.5 * squares.sum(axis=2)  # type: ignore[no-any-return]


def _gaussian(estimator: Any, method: str) -> Kernel | None:
    spread = -0.5 * np.log(2.0 * np.pi * estimator.var_).sum(axis=1)
    constant = np.log(estimator.class_prior_) + spread
    likelihood = Gaussian(constant, estimator.theta_, estimator.var_)
    return _classifier(likelihood, estimator.classes_, method)


@dataclass(frozen=True, eq=False)
class NotNegative:
    """A product of counts, which scikit-learn refuses below zero."""

    product: Product

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes)."""
        arrays = X.parts if type(X) is Blocks else [X]
        for part in arrays:
            if isinstance(part, np.ndarray) and part.size and part.min() < 0:
                raise Declined
        return self.product(X)


def _multinomial(estimator: Any, method: str) -> Kernel | None:
    weights = Product(estimator.feature_log_prob_.T, estimator.class_log_prior_)
    return _classifier(NotNegative(weights), estimator.classes_, method)


def _complement(estimator: Any, method: str) -> Kernel | None:
    alone = len(estimator.classes_) == 1
    weights = Product(estimator.feature_log_prob_.T, estimator.class_log_prior_ if alone else 0.0)
    return _classifier(NotNegative(weights), estimator.classes_, method)


@dataclass(frozen=True, eq=False)
class Bernoulli:
    """The log likelihood of which features are there, above a threshold."""

    product: Product
    threshold: float | None

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes)."""
        if type(X) is Blocks:
            if self.threshold is None:
                return self.product(X)
            if self.threshold < 0:
                raise Declined
            sparse = as_sparse(X)
            marks = (sparse.data > self.threshold).astype(np.float64)
            return self.product(Blocks([sparse._replace(data=marks)], len(X), True))
        rows = finite(X)
        if self.threshold is not None:
            rows = (rows > self.threshold).astype(np.float64)
        return self.product(rows)


def _bernoulli(estimator: Any, method: str) -> Kernel | None:
    there = estimator.feature_log_prob_
    absent = np.log(1 - np.exp(there))
    weights = Product((there - absent).T, estimator.class_log_prior_ + absent.sum(axis=1))
    return _classifier(Bernoulli(weights, estimator.binarize), estimator.classes_, method)


KERNELS: dict[str, Builder] = {
    "BernoulliNB": _bernoulli,
    "ComplementNB": _complement,
    "GaussianNB": _gaussian,
    "MultinomialNB": _multinomial,
}
