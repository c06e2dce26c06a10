"""The models that are served, the rows they are asked about, and what they must answer.

Each is made once, from fixed seeds, into a folder of the cache that has SageMaker's layout:
`model/model.joblib` below it. What the estimator itself answers in this process is the truth that
every server is compared with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import sklearn
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROWS, COLUMNS = 180_000, 300  # of the neighbours: 432 MB of float64
SMALL = 2_000  # rows of them where the run is only to show that all works
CLUSTERS = 200
NEIGHBOURS = 10
TABLE = (10_000, 30)
RECIPES = 2  # counted up where a model here is made in another way, so that none is an old one
ASKED = 64  # different rows that callers send in turn


# The model, what it was fitted on, and rows to ask about.
Maker = Callable[[np.random.Generator, bool], tuple[Any, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A saved model, `rows` to ask about, and per row the numbers that are the right `answers`.

    A neighbours index answers with its distances and then its indices.
    """

    name: str
    folder: Path
    rows: np.ndarray
    answers: np.ndarray
    data: int  # bytes that the model was fitted on

    @property
    def named(self) -> bool:
        """Whether the rows are sent as records."""
        return self.rows.dtype == object and self.rows.shape[1] == len(MIXED)

    @property
    def file(self) -> Path:
        return self.folder / "model" / "model.joblib"


def _iris(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    X, y = load_iris(return_X_y=True)
    return LogisticRegression(max_iter=500).fit(X, y), X, X


def _pipeline(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    X, y = load_iris(return_X_y=True)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y), X, X


def _forest(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    X, y = load_breast_cancer(return_X_y=True)
    return RandomForestClassifier(100, random_state=0).fit(X, y), X, X


def _boosting(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    X, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(random_state=0))
    return model.fit(X, y), X, X


def _neighbours(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    """Vectors about unit length around some centres, as embeddings are."""
    centres = rng.normal(size=(CLUSTERS, COLUMNS)) / COLUMNS**0.5
    X = rng.normal(size=(SMALL if small else ROWS, COLUMNS)) * (0.5 / COLUMNS**0.5)
    X += centres[rng.integers(CLUSTERS, size=len(X))]
    asked = centres[rng.integers(CLUSTERS, size=ASKED)]
    asked = asked + rng.normal(size=asked.shape) * (0.5 / COLUMNS**0.5)
    model = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine", algorithm="brute")
    return model.fit(X), X, asked


def _linear(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    X = rng.normal(size=TABLE)
    return LinearRegression().fit(X, X @ rng.normal(size=TABLE[1]) + 1), X, X


MIXED = ("age", "income", "rooms", "colour", "kind", "city")


def _table(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return three columns of numbers and three of words, of which one has 200, and labels."""
    count = 5_000
    numbers = rng.normal(size=(count, 3))
    words = [rng.integers(most, size=count) for most in (5, 12, 200)]
    names = [np.array([f"{name} {at}" for at in range(200)]) for name in MIXED[3:]]
    rows = np.empty((count, 6), object)
    rows[:, :3] = numbers
    for at, (name, word) in enumerate(zip(names, words, strict=True), 3):
        rows[:, at] = name[word]
    return rows, (numbers.sum(axis=1) + words[0] + rng.normal(size=count) > 2).astype(int)


def _mixed(last: Any) -> Maker:
    """Return what makes a model of mixed columns that ends in `last`."""

    def make(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
        rows, y = _table(rng)
        frame = pd.DataFrame(rows, columns=MIXED).astype(dict.fromkeys(MIXED[:3], float))
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        routes = (numbers, list(MIXED[:3])), (words, list(MIXED[3:]))
        model = make_pipeline(make_column_transformer(*routes), last)
        return model.fit(frame, y), frame, rows

    return make


def _numbers(last: Any) -> Maker:
    """Return what makes a model of the three numbers of the mixed table alone."""

    def make(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
        rows, y = _table(rng)
        X = rows[:, :3].astype(float)
        return last.fit(X, y), X, X

    return make


WORDS = 30  # of a text


def _text(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    """Texts of words of which few are frequent, as in a language, and their pairs."""
    words = np.minimum(rng.zipf(1.3, size=(5_000, WORDS)), 20_000)
    texts = np.array([[" ".join(f"word{one}" for one in row)] for row in words], object)
    tfidf = TfidfVectorizer(ngram_range=(1, 2), max_features=50_000)
    model = make_pipeline(tfidf, LogisticRegression(max_iter=500))
    return model.fit(texts[:, 0], (words == 2).sum(axis=1) > 3), texts, texts


def body(rows: np.ndarray) -> bytes:
    """Write rows as JSON: lists of numbers, records of named columns, or texts."""
    if rows.dtype != object:
        return json.dumps(rows.tolist()).encode()
    if rows.shape[1] == 1:
        return json.dumps(rows[:, 0].tolist()).encode()
    return json.dumps([dict(zip(MIXED, row, strict=True)) for row in rows.tolist()]).encode()


def _script(rng: np.random.Generator, small: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    return _iris(rng, small)


MODELS: dict[str, Maker] = {
    "iris": _iris,
    "iris pipeline": _pipeline,
    "forest": _forest,
    "boosting": _boosting,
    "mixed": _mixed(LogisticRegression(max_iter=500)),
    "mixed forest": _mixed(RandomForestClassifier(100, random_state=0)),
    "mixed boosting": _mixed(HistGradientBoostingClassifier(random_state=0)),
    "numbers forest": _numbers(RandomForestClassifier(100, random_state=0)),
    "numbers boosting": _numbers(HistGradientBoostingClassifier(random_state=0)),
    "text": _text,
    "neighbours": _neighbours,
    "neighbours compressed": _neighbours,
    "linear": _linear,
    "script": _script,
}

SCRIPTS = {
    "script": """import time


def predict_fn(data, model):
    time.sleep(0.05)
    return model.predict(data)
""",
}


def case(name: str, cache: Path, small: bool = False) -> Case:
    """Return the model of that name, from the cache where it is there."""
    size = "-small" if small else ""
    folder = cache / "models" / f"{name.replace(' ', '-')}{size}-{sklearn.__version__}-{RECIPES}"
    if not (folder / "case.npz").exists():
        rng = np.random.default_rng(0)
        model, X, asked = MODELS[name](rng, small)
        if name != "linear":
            asked = asked[rng.permutation(len(asked))[:ASKED]]
        (folder / "model").mkdir(parents=True, exist_ok=True)
        compress = 1 if name.endswith("compressed") else 0
        joblib.dump(model, folder / "model" / "model.joblib", compress=compress)
        if name in SCRIPTS:
            (folder / "model" / "code").mkdir(exist_ok=True)
            (folder / "model" / "code" / "inference.py").write_text(SCRIPTS[name])
        np.savez(
            folder / "case.npz",
            rows=asked,
            answers=answers(model, asked),
            data=np.asarray(X).nbytes,
        )
    with np.load(folder / "case.npz", allow_pickle=True) as saved:  # words are objects
        return Case(name, folder, saved["rows"], saved["answers"], int(saved["data"]))


def answers(model: Any, X: np.ndarray) -> np.ndarray:
    """Return what the estimator says, as a matrix with a row per row of X."""
    if hasattr(model, "kneighbors"):
        return np.hstack(model.kneighbors(X))
    if X.dtype == object:
        X = X[:, 0] if X.shape[1] == 1 else pd.DataFrame(X, columns=MIXED)
    return np.asarray(model.predict(X), dtype=float).reshape(len(X), -1)


def equal(seen: np.ndarray, case: Case, rows: slice) -> bool:
    """Whether a server's answers are those of the estimator: labels and neighbours the same.

    The tolerance is for the last bits of distances and sums; it is far below one neighbour.
    """
    wanted = case.answers[rows]
    return seen.shape == wanted.shape and np.allclose(seen, wanted, rtol=1e-9, atol=1e-9)
