"""Starts that must not succeed: the one sentence of each, and no traceback."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xgboost
from sklearn.base import BaseEstimator
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from skserve.config import Config
from skserve.errors import StartError
from skserve.formats.spool import check_spool
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

    assert sentence in _started(tmp_path)


def _started(folder: Path, **settings: str) -> str:
    """Start a server that must end by itself; return what it said."""
    command = [sys.executable, "-m", "skserve", "serve", "--model-dir", str(folder)]
    environ = {"SKSERVE_USER": "root", "PYTHONPATH": str(ROOT / "container"), **settings}
    ended = subprocess.run(command, env=os.environ | environ, capture_output=True, timeout=60)

    said = ended.stderr.decode()
    assert ended.returncode != 0
    assert "Traceback" not in said
    return said


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content)


def _tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.joblib"), io.BytesIO(content))
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def _dumped(model: Any) -> bytes:
    file = io.BytesIO()
    joblib.dump(model, file)
    return file.getvalue()


WHOLE = pickle.dumps(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))
NONE = "model.joblib is not a joblib or pickle file: it "
CUT = "model.joblib is not a whole joblib or pickle file: it ends too early or is damaged."

# A file in the place of a model, and what is said of it.
FILES = {
    "empty": (b"", NONE + "is empty."),
    "a page": (
        b"<!DOCTYPE html><title>404</title>",
        NONE + "is an HTML or XML page; look whether the download of the model failed.",
    ),
    "a conflict": (
        b"<<<<<<< HEAD\nversion https://git-lfs.github.com/spec/v1\n",
        NONE + "holds two versions in a conflict of git; choose one of them.",
    ),
    "an error of S3": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        NONE + "is an HTML or XML page; look whether the download of the model failed.",
    ),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "model.joblib is a Git LFS pointer, not a model; fetch it with `git lfs pull`.",
    ),
    "JSON": (
        b'{"learner": {}}',
        NONE + "is JSON; a booster saved as JSON needs a model_fn in code/inference.py that loads "
        "it.",
    ),
    "JSON with space before": (b" \n[1, 2]", NONE + "is JSON."),
    "skops by another name": (
        b"PK\x03\x04" + bytes(40),
        NONE + "is a zip archive; a model saved with skops must end in .skops.",
    ),
    "an array": (_npy(), NONE + "is an array of numpy; save the fitted model with joblib.dump."),
    "Keras": (
        b"\x89HDF\r\n\x1a\n" + bytes(40),
        NONE + "is HDF5, as Keras writes it; it needs a model_fn in code/inference.py.",
    ),
    "CatBoost": (
        b"CBM1" + bytes(40),
        NONE + "is CatBoost's own format; save the fitted model with joblib.dump.",
    ),
    "LightGBM": (
        b"tree\nversion=v4\n",
        NONE + "is LightGBM's own format; save the fitted model with joblib.dump.",
    ),
    "a tar": (
        _tar(b""),
        NONE + "is a tar archive; put the file that is in it in its place.",
    ),
    "words": (b"hello world, this is my model", NONE + "does not begin as one."),
    "noise": (bytes(range(1, 120)), NONE + "does not begin as one."),
    "zeros": (bytes(100), NONE + "does not begin as one."),
    "a pickle cut short": (WHOLE[: len(WHOLE) // 2], CUT),
    "a pickle without its end": (WHOLE[:-1], CUT),
    "two bytes of a pickle": (WHOLE[:2], CUT),
    "an array cut short": (_dumped(LinearRegression().fit(np.eye(3000)[:9], range(9)))[:9000], CUT),
    "a script": (b"import sklearn\nprint(1)\n", NONE + "does not begin as one."),
    "a page in gzip": (_gzipped(b"<html>404</html>"), CUT),
    "a gzip cut short": (_gzipped(WHOLE)[:-20], CUT),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_model_is_called_what_it_is(tmp_path, name):
    content, sentence = FILES[name]
    (tmp_path / "model.joblib").write_bytes(content)

    with pytest.raises(StartError) as refused:
        Model.load(tmp_path, Config())

    assert str(refused.value) == sentence


HERE = "; put the version that saved it into code/requirements.txt, or its file into code/."

# What a pickle names that the modules here do not have.
LACKING = [
    ("csteps\nCleaner\n.", "'Cleaner' of the module 'steps', which the 'steps'"),
    ("cpandas\nInt64Index\n.", "'Int64Index' of the module 'pandas', which the 'pandas'"),
    (
        "cpandas.core.indexes.numeric\nInt64Index\n.",
        "the Python module 'pandas.core.indexes.numeric', which the 'pandas'",
    ),
]


@pytest.mark.parametrize(("names", "needed"), LACKING)
def test_what_a_module_of_another_version_lacks_is_not_put_on_scikit_learn(tmp_path, names, needed):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04" + names.encode())
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "steps.py").write_text("class Other: pass\n")

    with pytest.raises(StartError) as refused:
        Model.load(tmp_path, Config())

    assert str(refused.value) == f"model.pkl needs {needed} that is here does not have{HERE}"


# A setting that cannot be used, and what is said of it.
SETTINGS = [
    ({"S3_ENDPOINT_URL": "minio:9000"}, "an address that begins with http:// or https://"),
    ({"S3_ENDPOINT_URL": "ftp://minio"}, "an address that begins with http:// or https://"),
    ({"S3_ENDPOINT_URL": "http://"}, "an address that begins with http:// or https://"),
    ({"SKSERVE_MODEL_ROOT": "/not/there"}, "a folder that is there"),
    ({"SKSERVE_SPOOL_DIR": "/not/there"}, "a folder that is there"),
    ({"SKSERVE_SKOPS_TRUSTED": ","}, "names separated by commas"),
    ({"SKSERVE_SKOPS_TRUSTED": " , ,"}, "names separated by commas"),
    (
        {"SKSERVE_MODEL_SHA256": "a" * 63},
        "SHA-256 digests of 64 hexadecimal digits, separated by commas",
    ),
    ({"SKSERVE_LIBSVM_BASE": "2"}, "a whole number from 0 to 1"),
    ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "-1"}, "a number of seconds above 0"),
    ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "inf"}, "a number of seconds above 0"),
    ({"SAGEMAKER_BIND_TO_PORT": "0"}, "a whole number from 1 to 65,535"),
    ({"SKSERVE_BATCHING": "maybe"}, "one of auto, on, off"),
]


@pytest.mark.parametrize(("environ", "expected"), SETTINGS)
def test_a_setting_that_cannot_be_used_stops_the_start(environ, expected):
    [(name, value)] = environ.items()

    with pytest.raises(StartError) as refused:
        Config.from_env(environ)

    assert str(refused.value) == f"{name} is {value.strip()!r}; expected {expected}."


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_spool_folder_that_cannot_be_written_stops_the_start(tmp_path):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # root may write anywhere
        os.setuid(65534)
        try:
            check_spool(Config(spool_dir=tmp_path))
        except StartError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(read, 4096).decode() == (
        f"SKSERVE_SPOOL_DIR is {tmp_path}, which user 65534 cannot write; choose a folder that it "
        "can, such as /tmp."
    )
    os.close(read)
    os.close(write)


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
    (IsotonicRegression(), _unfitted("IsotonicRegression")),
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
        xgboost.XGBRegressor(n_estimators=1).fit(X, Y).get_booster(),
        "XGBoost's Booster answers a DMatrix, not rows; save the XGBClassifier or XGBRegressor "
        "around it, or make the DMatrix in a predict_fn in code/inference.py.",
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


@pytest.mark.parametrize(
    ("body", "what"), [("pass", "data (a NoneType)"), ("return [1]", "a list")]
)
def test_what_a_model_fn_returns_is_not_called_a_file(tmp_path, body, what):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(f"def model_fn(path): {body}\n")

    with pytest.raises(StartError, match=re.escape(f"The script's model_fn returned {what}, not")):
        Model.load(tmp_path, Config())


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
