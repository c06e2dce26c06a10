"""PCA and TruncatedSVD: one product each."""

from __future__ import annotations

from typing import Any

import numpy as np

from skserve.estimators.accelerate.families.linear import Product
from skserve.estimators.accelerate.kernel import Builder, Kernel


def _pca(estimator: Any, method: str) -> Kernel | None:
    if method != "transform" or estimator.components_.dtype != np.float64:
        return None
    weights = estimator.components_.T
    if estimator.whiten:
        least = np.finfo(np.float64).eps
        weights = weights / np.maximum(np.sqrt(estimator.explained_variance_), least)
    return Product(weights, -(estimator.mean_ @ weights))


def _svd(estimator: Any, method: str) -> Kernel | None:
    if method != "transform" or estimator.components_.dtype != np.float64:
        return None
    return Product(estimator.components_.T, np.zeros(len(estimator.components_)))


KERNELS: dict[str, Builder] = {"IncrementalPCA": _pca, "PCA": _pca, "TruncatedSVD": _svd}
