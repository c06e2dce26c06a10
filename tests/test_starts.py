"""Starts that must not succeed: the one sentence of each, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from skserve.config import Config
from skserve.errors import StartError
from skserve.inference.model import Model
from tests.conftest import ROOT

BROKEN = [
    (
        b"c__main__\nAboveTwo\n.",
        "model.joblib holds 'AboveTwo', which was defined in __main__, the notebook or script that "
        "saved it; put its definition into code/inference.py beside the model, or save the model "
        "again with it in a module of its own below code/.",
    ),
]


@pytest.mark.parametrize(("content", "sentence"), BROKEN)
def test_a_broken_model_stops_the_start_with_one_sentence(tmp_path, content, sentence):
    (tmp_path / "model.joblib").write_bytes(content)
    command = [sys.executable, "-m", "skserve", "serve", "--model-dir", str(tmp_path)]

    ended = subprocess.run(
        command,
        env={**os.environ, "SKSERVE_USER": "root", "PYTHONPATH": str(ROOT / "container")},
        capture_output=True,
        timeout=60,
    )

    said = ended.stderr.decode()
    assert ended.returncode != 0
    assert sentence in said
    assert "Traceback" not in said


X, Y = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 2.0]] * 5), [0, 0, 1, 1] * 5
FITTED = LogisticRegression().fit(X, Y)
SCRIPT = "or choose from it in a model_fn in code/inference.py."
SEARCH = GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2, refit=False)
CLUSTERS = (
    "labels only the rows it was fitted on and has no predict for new ones; save a model that has, "
    "such as KMeans, or a classifier fitted on its labels."
)


def _unfitted(kind: str) -> str:
    cause = f"The {kind} in the model file was saved before it was fitted"
    return f"{cause}; call fit, then save it again."


def _data(kind: str) -> str:
    return f"The model file holds data (a {kind}), not a fitted model; save what fit returned."


def _container(kind: str, members: str) -> str:
    return (
        f"The model file holds a {kind}, not a model ({members}); save one fitted model (a "
        f"Pipeline joins several steps), {SCRIPT}"
    )


REFUSED: list[tuple[Any, str]] = [
    (LogisticRegression(), _unfitted("LogisticRegression")),
    (RandomForestClassifier(), _unfitted("RandomForestClassifier")),
    (KMeans(), _unfitted("KMeans")),
    (StandardScaler(), _unfitted("StandardScaler")),
    (DummyClassifier(), _unfitted("DummyClassifier")),
    (TfidfVectorizer(), _unfitted("TfidfVectorizer")),
    (LocalOutlierFactor(novelty=True), _unfitted("LocalOutlierFactor")),
    (make_pipeline(StandardScaler(), LogisticRegression()), _unfitted("Pipeline")),
    (make_pipeline(TfidfVectorizer(), LogisticRegression()), _unfitted("Pipeline")),
    (GridSearchCV(LogisticRegression(), {"C": [1, 2]}), _unfitted("GridSearchCV")),
    (
        LogisticRegression,
        "The model file holds the class LogisticRegression itself; save a fitted object of it: "
        "joblib.dump(LogisticRegression(...).fit(X, y), ...).",
    ),
    (pd.DataFrame({"a": [1]}), _data("DataFrame")),
    (pd.Series([1]), _data("Series")),
    (X, _data("ndarray")),
    (scipy.sparse.csr_matrix(X), _data("csr_matrix")),
    ("model.joblib", _data("str")),
    (None, _data("NoneType")),
    (3.5, _data("float")),
    ({}, _container("dict", "it is empty")),
    (
        {"model": FITTED, "columns": ["a", "b"]},
        _container("dict", "'model' is a LogisticRegression, 'columns' is a list"),
    ),
    ([FITTED, None], _container("list", "0 is a LogisticRegression, 1 is a NoneType")),
    ((FITTED, "v1"), _container("tuple", "0 is a LogisticRegression, 1 is a str")),
    (
        list(range(12)),
        _container("list", ", ".join(f"{at} is a int" for at in range(10)) + " and 2 more"),
    ),
    (
        LocalOutlierFactor().fit(X),
        "LocalOutlierFactor with novelty=False answers only for the rows it was fitted on; fit it "
        "with novelty=True.",
    ),
    (
        make_pipeline(StandardScaler(), LocalOutlierFactor()).fit(X),
        "LocalOutlierFactor with novelty=False answers only for the rows it was fitted on; fit it "
        "with novelty=True.",
    ),
    (make_pipeline(StandardScaler(), DBSCAN()).fit(X), f"DBSCAN {CLUSTERS}"),
    (DBSCAN().fit(X), f"DBSCAN {CLUSTERS}"),
    (AgglomerativeClustering().fit(X), f"AgglomerativeClustering {CLUSTERS}"),
    (
        SEARCH.fit(X, Y),
        "This GridSearchCV was made with refit=False, so it kept no fitted model; make it with "
        "refit=True, or save the model that you fit with its best_params_.",
    ),
    (
        BaseEstimator(),
        "BaseEstimator has no method that can answer requests, such as predict; save a fitted "
        f"model, {SCRIPT}",
    ),
]


@pytest.mark.parametrize(("saved", "sentence"), REFUSED)
def test_what_is_no_fitted_model_is_refused_with_its_cause(tmp_path, saved, sentence):
    joblib.dump(saved, tmp_path / "model.joblib")
    with pytest.raises(StartError) as refused:
        Model.load(tmp_path, Config())

    assert str(refused.value) == sentence


@pytest.mark.parametrize("saved", [LogisticRegression(), {"model": FITTED}])
def test_a_script_that_predicts_may_save_what_it_likes(tmp_path, saved):
    joblib.dump(saved, tmp_path / "model.joblib")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text("def predict_fn(data, model): return [1]\n")

    assert Model.load(tmp_path, Config()).estimator is not None


@pytest.mark.parametrize(
    "saved",
    [
        Normalizer(),
        HashingVectorizer(),
        FunctionTransformer(np.log1p),
        make_pipeline(HashingVectorizer(), Normalizer()),
        LocalOutlierFactor(novelty=True).fit(X),
        make_pipeline(StandardScaler(), LinearRegression()).fit(X, Y),
        GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2).fit(X, Y),
    ],
)
def test_what_is_fitted_or_needs_no_fit_starts(tmp_path, saved):
    joblib.dump(saved, tmp_path / "model.joblib")

    assert Model.load(tmp_path, Config()).handler.method


def test_the_neighbours_of_an_outlier_factor_are_served_by_name(tmp_path):
    joblib.dump(LocalOutlierFactor(n_neighbors=3).fit(X), tmp_path / "model.joblib")

    assert Model.load(tmp_path, Config(method="kneighbors")).handler.method == "kneighbors"
