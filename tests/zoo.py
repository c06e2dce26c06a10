"""Small fitted models, one for each way in which a table can differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler


def iris() -> Any:
    """Four columns, no names."""
    return LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))


def named() -> Any:
    """Three columns with names; y = a + 10 b + 100 c, so that an answer tells the order."""
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)), columns=["a", "b", "c"])
    return LinearRegression(fit_intercept=False).fit(X, X @ [1.0, 10.0, 100.0])


def one() -> Any:
    """One column, y = 2 x."""
    X = np.arange(10.0).reshape(-1, 1)
    return LinearRegression(fit_intercept=False).fit(X, 2 * X[:, 0])


def mixed() -> Any:
    """A text column with leading zeros, a number that may be missing, an unused column."""
    X = pd.DataFrame(
        {
            "code": ["007", "7", "010", "10"] * 5,
            "size": [1.0, 2.0, np.nan, 4.0, 5.0] * 4,
            "note": ["some", "words", "not", "used"] * 5,
        }
    )
    columns = ColumnTransformer(
        [
            ("code", OneHotEncoder(handle_unknown="error"), ["code"]),
            ("size", SimpleImputer(), ["size"]),
        ]
    )
    return make_pipeline(columns, LinearRegression()).fit(X, [7.0, 70.0, 10.0, 100.0] * 5)


def objects() -> Any:
    """Text and numbers in one object array, without names."""
    X = np.array([["x", 1.0], ["y", 2.0], ["x", 3.0], ["y", 4.0]], dtype=object)
    columns = ColumnTransformer([("text", OrdinalEncoder(), [0])], remainder="passthrough")
    return make_pipeline(columns, LinearRegression()).fit(X, [1.0, 12.0, 3.0, 14.0])


def missing() -> Any:
    """Two columns in which NaN is a value like any other."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 2))
    X[::3, 0] = np.nan
    return HistGradientBoostingRegressor(max_iter=5).fit(X, np.nan_to_num(X[:, 0], nan=9.0))


def text() -> Any:
    """A text pipeline: one column of strings."""
    documents = ["good wine", "fine, good", "bad corked", "bad, bad"]
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(documents, list("ggbb"))


def wine() -> Any:
    """A pipeline that ends in an index of neighbours."""
    model = make_pipeline(StandardScaler(), NearestNeighbors(n_neighbors=10, metric="cosine"))
    return model.fit(load_wine().data)


def outputs() -> Any:
    """Two outputs, each with probabilities of its own."""
    X, y = load_iris(return_X_y=True)
    return RandomForestClassifier(3, random_state=0).fit(X, np.c_[y, y > 0])


MODELS: dict[str, Callable[[], Any]] = {
    make.__name__: make for make in (iris, named, one, mixed, objects, missing, text, wine, outputs)
}


def make(name: str, folder: Path) -> Any:
    """Fit the model of that name and save it in `folder` as a user would."""
    model = MODELS[name]()
    joblib.dump(model, folder / "model.joblib")
    return model
