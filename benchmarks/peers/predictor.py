"""What every peer does with rows: the saved estimator's own answer. Runs inside the peer."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import joblib
import numpy as np

with suppress(ImportError):  # some peers serve no named columns; gevent allows no late import
    import pandas as pd


class Predictor:
    """The estimator that BENCH_MODEL names, asked for `kneighbors` where it has no `predict`."""

    def __init__(self, path: str | None = None) -> None:
        self._model: Any = joblib.load(path or os.environ["BENCH_MODEL"])
        self._predict = getattr(self._model, "predict", None) or self._neighbours

    def __call__(self, X: Any) -> np.ndarray:
        """Answer a 2-D float64 array, a DataFrame, or an array of records (n_rows,).

        With labels or values, or distances and then indices a row.
        """
        if isinstance(X, np.ndarray) and X.ndim == 1:
            X = pd.DataFrame(X.tolist())  # AWS's library makes an array of dicts of JSON records
        return self._predict(X)

    def _neighbours(self, X: np.ndarray) -> np.ndarray:
        return np.hstack(self._model.kneighbors(X))
