"""Mixed columns, text and wrapped models in process: our handler beside scikit-learn itself.

usage: python -m benchmarks.mixed [--rounds N]

Prints the CPU time of one call through the handler, body to body, with fast paths and without, one
after the other in each round, and the smallest of all rounds; a last column compares a table of
10,000 rows with pandas and the model. Run it with OMP_NUM_THREADS=1, as the server predicts.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from skserve.config import Config
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler

ROWS = 3_000
LARGE = 10_000

rng = np.random.default_rng(0)
NUMBERS = rng.normal(size=(ROWS, 8))
LABELS = (NUMBERS[:, 0] + NUMBERS[:, 1] ** 2 > 0.5).astype(int)


def table() -> pd.DataFrame:
    """Return three numbers, some missing, and three columns of words, one of 200 cities."""
    words = {
        "city": [f"city {one}" for one in rng.integers(0, 200, ROWS)],
        "kind": rng.choice(["x", "y", "z"], ROWS).tolist(),
        "colour": rng.choice(["red", "white"], ROWS).tolist(),
    }
    numbers = pd.DataFrame(NUMBERS[:, :3], columns=["age", "size", "price"])
    numbers.loc[::7, "age"] = np.nan
    return numbers.assign(**{name: pd.Series(cells, dtype=object) for name, cells in words.items()})


TABLE = table()
TEXTS = [" ".join(f"word{one}" for one in rng.integers(0, 2000, 30)) for _ in range(ROWS)]


def mixed(last: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    routes = [("n", numbers, ["age", "size", "price"]), ("w", words, ["city", "kind", "colour"])]
    return make_pipeline(ColumnTransformer(routes), last).fit(TABLE, LABELS)


def plain(last: Any) -> Any:
    return last.fit(NUMBERS, LABELS)


pair = [("a", LogisticRegression()), ("b", GaussianNB())]
forest = RandomForestClassifier(100, max_depth=10, random_state=0)
MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "iris, LogisticRegression": (
        lambda: LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)),
        load_iris().data,
    ),
    "mixed, LogisticRegression": (lambda: mixed(LogisticRegression()), TABLE),
    "mixed, RandomForest 100": (lambda: mixed(forest), TABLE),
    "mixed, HistGradientBoosting": (lambda: mixed(HistGradientBoostingClassifier()), TABLE),
    "numbers, RandomForest 100": (lambda: plain(forest), NUMBERS),
    "numbers, HistGradientBoosting": (lambda: plain(HistGradientBoostingClassifier()), NUMBERS),
    "30 words, Tfidf": (
        lambda: make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), max_features=50_000), LogisticRegression()
        ).fit(TEXTS, LABELS),
        TEXTS,
    ),
    "Voting": (lambda: plain(VotingClassifier(pair, voting="soft")), NUMBERS),
    "Stacking": (lambda: plain(StackingClassifier(pair)), NUMBERS),
    "Calibrated": (lambda: plain(CalibratedClassifierCV(LogisticRegression(), cv=3)), NUMBERS),
    "SVC": (lambda: SVC().fit(NUMBERS[:600], LABELS[:600]), NUMBERS),
    "KNeighbors, kd-tree": (lambda: plain(KNeighborsClassifier(algorithm="kd_tree")), NUMBERS),
    "MLP(100)": (lambda: plain(MLPClassifier(max_iter=20)), NUMBERS),
    "GaussianNB": (lambda: plain(GaussianNB()), NUMBERS),
    "PCA, LogisticRegression": (
        lambda: plain(make_pipeline(PCA(4), LogisticRegression())),
        NUMBERS,
    ),
}


def body_of(rows: Any, count: int) -> bytes:
    """Write rows as JSON: records, lists or texts."""
    if isinstance(rows, pd.DataFrame):
        return rows[:count].to_json(orient="records").encode()
    return orjson.dumps(rows[:count] if isinstance(rows, list) else rows[:count].tolist())


def invoked(handler: EstimatorHandler, call: Call) -> Any:
    """Answer a call, body to body."""
    request = handler.decode(call, None)
    return handler.encode(handler.predict(request, None), request, None).body


def microseconds(work: Callable[[], Any], least: float = 0.02) -> float:
    """Return the CPU time of one call, out of as many as take `least` seconds."""
    count, began = 0, time.process_time()
    while time.process_time() - began < least:
        work()
        count += 1
    return 1e6 * (time.process_time() - began) / count


def tables(handler: EstimatorHandler, model: Any, rounds: int) -> None:
    """Print what a large table costs, beside pandas and the model in process."""
    rows = pd.concat([TABLE] * (LARGE // ROWS + 1))[:LARGE]
    csv, records = rows.to_csv(index=False).encode(), rows.to_json(orient="records").encode()
    floors: dict[str, tuple[bytes, Callable[[], Any]]] = {
        "text/csv": (csv, lambda: model.predict(pd.read_csv(io.BytesIO(csv)))),
        "application/json": (records, lambda: model.predict(pd.DataFrame(json.loads(records)))),
    }
    for kind, (body, floor) in floors.items():
        pairs = [
            (microseconds(lambda: invoked(handler, Call(body, kind))), microseconds(floor))  # noqa: B023
            for _ in range(rounds)
        ]
        ours, theirs = (min(values) for values in zip(*pairs, strict=True))
        print(f"{LARGE:,} rows of {kind:18}{ours / 1000:9.1f} ms{ours / theirs:7.2f} x pandas")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fast paths beside scikit-learn, in process.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{'one row':34}{'fast':>9}{'without':>11}{'ratio':>9}{'x iris':>8}")
    iris = 0.0
    for name, (make, rows) in MODELS.items():
        model = make()
        fast = EstimatorHandler.of(model, None, Config())
        slow = EstimatorHandler.of(model, None, Config(accelerate="off"))
        call = Call(body_of(rows, 1), "application/json")
        assert invoked(fast, call) == invoked(slow, call)
        pairs = [
            (microseconds(lambda: invoked(fast, call)), microseconds(lambda: invoked(slow, call)))  # noqa: B023
            for _ in range(rounds)
        ]
        ours, theirs = (min(values) for values in zip(*pairs, strict=True))
        iris = iris or ours
        print(f"{name:34}{ours:6.0f} us{theirs:8.0f} us{ours / theirs:9.3f}{ours / iris:8.1f}")
        if name == "mixed, LogisticRegression":
            tables(fast, model, rounds)


if __name__ == "__main__":
    main()
