"""KMeans: the nearest of a few centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.families.linear import Product
from skserve.estimators.accelerate.kernel import Builder, Floats, Kernel, finite
from skserve.estimators.accelerate.links import Apply


@dataclass(frozen=True, eq=False)
class Distances:
    """Euclidean distances from the centres, (n_rows, n_centres), as scikit-learn reckons them."""

    centres: Floats

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for rows that are not finite."""
        rows, centres = finite(X), self.centres
        squares = -2.0 * (rows @ centres.T)
        squares += np.einsum("ij,ij->i", rows, rows)[:, None]
        squares += np.einsum("ij,ij->i", centres, centres)
        return np.sqrt(np.maximum(squares, 0.0, out=squares), out=squares)


def _first_smallest(values: Floats) -> NDArray[np.int32]:
    nearest: NDArray[np.int32] = values.argmin(axis=1).astype(np.int32)
    return nearest


def _kmeans(estimator: Any, method: str) -> Kernel | None:
    centres = estimator.cluster_centers_
    if centres.dtype != np.float64:
        return None
    if method == "transform":
        return Distances(centres)
    squares = np.einsum("ij,ij->i", centres, centres)
    scores = Product(-2.0 * centres.T, squares)
    return Apply(scores, _first_smallest) if method == "predict" else None


KERNELS: dict[str, Builder] = dict.fromkeys(("KMeans", "MiniBatchKMeans"), _kmeans)
