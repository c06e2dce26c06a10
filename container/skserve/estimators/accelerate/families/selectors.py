"""Selectors of features: some of the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.blocks import Blocks, Sparse, as_sparse
from skserve.estimators.accelerate.kernel import Builder, Kernel, finite


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns at `kept`; `places` has the new place of each column, -1 of one that is not."""

    kept: NDArray[np.intp]
    places: NDArray[np.intp]

    def __call__(self, X: Any) -> Any:
        """Raise Declined for rows that are not finite: some selectors take them, others do not."""
        if type(X) is Blocks and X.sparse:
            rows = as_sparse(X)
            places = self.places[rows.indices]
            some = places >= 0
            ends = np.concatenate([[0], np.cumsum(some)])[rows.indptr]
            part = Sparse(ends, places[some], rows.data[some], len(self.kept))
            return Blocks([part], len(X), True, X.dtype)
        return np.ascontiguousarray(finite(X).take(self.kept, axis=1))


def _selector(estimator: Any, method: str) -> Kernel | None:
    if method != "transform":
        return None
    chosen = np.asarray(estimator.get_support())
    return Columns(np.flatnonzero(chosen), np.where(chosen, np.cumsum(chosen) - 1, -1))


_SELECTORS = (
    "GenericUnivariateSelect RFE RFECV SelectFdr SelectFpr SelectFromModel SelectFwe SelectKBest "
    "SelectPercentile SequentialFeatureSelector VarianceThreshold"
)

KERNELS: dict[str, Builder] = dict.fromkeys(_SELECTORS.split(), _selector)
