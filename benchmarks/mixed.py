"""Mixed columns, text and wrapped models in process: our handler beside scikit-learn itself.

usage: python -m benchmarks.mixed [--rounds N] [--json]

Prints CPU times of the quickest of several rounds, which take what is compared in turn: of one row
through the handler from body to body with fast paths and without, of a table of 10,000 rows beside
pandas and the model, of single predictions beside scikit-learn's own, and of models made of others
beside the sum of these. Run it with OMP_NUM_THREADS=1, as the server predicts.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
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
from skserve.inference.calls import Call, Request
from skserve.inference.estimator_handler import EstimatorHandler

Found = tuple[str, str, dict[str, float]]  # who, what, and the figures

ROWS = 5_000
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


forest = RandomForestClassifier(100, max_depth=10, random_state=0)
pair = [("a", LogisticRegression()), ("b", GaussianNB())]

# Asked from body to body: what one row costs beside iris.
WHOLE: dict[str, tuple[Callable[[], Any], Any]] = {
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
}

# The prediction alone, beside scikit-learn's own.
ALONE: dict[str, Callable[[], Any]] = {
    "SVC, rbf": lambda: SVC().fit(NUMBERS[:650], LABELS[:650]),
    "KNeighbors, kd-tree": lambda: KNeighborsClassifier(algorithm="kd_tree").fit(NUMBERS, LABELS),
    "MLP(100)": lambda: plain(MLPClassifier(max_iter=20)),
    "GaussianNB": lambda: plain(GaussianNB()),
    "PCA, LogisticRegression": lambda: plain(make_pipeline(PCA(4), LogisticRegression())),
}

# The prediction alone, beside the sum of its parts: what of a fitted model is asked for what.
Parts = Callable[[Any], list[tuple[Any, str]]]
WRAPPED: dict[str, tuple[Callable[[], Any], Parts]] = {
    "Voting": (
        lambda: plain(VotingClassifier(pair, voting="soft")),
        lambda model: [(one, "predict_proba") for one in model.estimators_],
    ),
    "Stacking": (
        lambda: plain(StackingClassifier(pair)),
        lambda model: [
            *((one, "predict_proba") for one in model.estimators_),
            (model.final_estimator_, "predict"),
        ],
    ),
    "Calibrated": (
        lambda: plain(CalibratedClassifierCV(LogisticRegression(), cv=3)),
        lambda model: [
            (one.estimator, "decision_function") for one in model.calibrated_classifiers_
        ],
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


def least(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the CPU time of one call of each, of the round in which all took the least.

    The machine changes its speed: those of one round have had the same.
    """
    took = ({name: microseconds(work) for name, work in works.items()} for _ in range(rounds))
    return min(took, key=lambda one: sum(one.values()))


def one_row(rounds: int) -> Iterator[Found]:
    """Measure one row from body to body, with fast paths and without, and what proving costs."""
    for name, (make, rows) in WHOLE.items():
        model = make()
        slow = EstimatorHandler.of(model, None, Config(accelerate="off"))
        began = time.process_time()
        fast = EstimatorHandler.of(model, None, Config())
        proof = time.process_time() - began
        call = Call(body_of(rows, 1), "application/json")
        assert invoked(fast, call) == invoked(slow, call)
        took = least(
            {"ours": partial(invoked, fast, call), "theirs": partial(invoked, slow, call)}, rounds
        )
        yield "skserve", name, {"cpu_us": took["ours"], "seconds": proof}
        yield "in-process scikit-learn", name, {"cpu_us": took["theirs"]}
        if name == "mixed, LogisticRegression":
            yield from tables(fast, model, rounds)


def tables(handler: EstimatorHandler, model: Any, rounds: int) -> Iterator[Found]:
    """Measure a large table, beside pandas and the model in process."""
    rows = pd.concat([TABLE] * (LARGE // ROWS + 1))[:LARGE]
    csv, records = rows.to_csv(index=False).encode(), rows.to_json(orient="records").encode()
    floors: dict[str, tuple[str, bytes, Callable[[], Any]]] = {
        "CSV": ("text/csv", csv, lambda: model.predict(pd.read_csv(io.BytesIO(csv)))),
        "JSON records": (
            "application/json",
            records,
            lambda: model.predict(pd.DataFrame(json.loads(records))),
        ),
    }
    for name, (kind, body, floor) in floors.items():
        took = least({"ours": partial(invoked, handler, Call(body, kind)), "theirs": floor}, rounds)
        label = f"10,000 mixed rows, {name}"
        yield "skserve", label, {"cpu_us": took["ours"]}
        yield "in-process pandas", label, {"cpu_us": took["theirs"]}


def asked(model: Any, method: str = "predict") -> Callable[[], Any]:
    """Return the fast path of one method for one row."""
    config = Config(accelerate="require", method=method)
    handler = EstimatorHandler.of(model, None, config)
    row = NUMBERS[:1, : model.n_features_in_].copy()
    return partial(handler.predict, Request(row, n_rows=1), None)


def families(rounds: int) -> Iterator[Found]:
    """Measure single predictions, beside scikit-learn's own and beside the sums of parts."""
    for name, make in ALONE.items():
        model = make()
        took = least({"ours": asked(model), "theirs": partial(model.predict, NUMBERS[:1])}, rounds)
        yield "skserve", name, {"cpu_us": took["ours"]}
        yield "in-process scikit-learn", name, {"cpu_us": took["theirs"]}
    for name, (make, parts_of) in WRAPPED.items():
        model = make()
        parts = {f"{at}": asked(*one) for at, one in enumerate(parts_of(model))}
        took = least({"ours": asked(model), **parts}, rounds)
        yield "skserve", name, {"cpu_us": took.pop("ours")}
        yield "sum of the parts", name, {"cpu_us": sum(took.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fast paths beside scikit-learn, in process.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print figures, one a line")
    given = parser.parse_args()
    ours: dict[str, float] = {}
    for server, name, values in chain(one_row(given.rounds), families(given.rounds)):
        cost = values["cpu_us"]
        if given.json:
            print(json.dumps([server, name, values]))
        elif server == "skserve":
            ours[name] = cost
            beside = cost / ours["iris, LogisticRegression"]
            print(f"{name:34}{cost:9.0f} us{beside:8.1f} x iris", end="")
            print(f"  proved in {values['seconds']:.2f} s" if "seconds" in values else "")
        else:
            print(f"{'':34}{cost:9.0f} us{ours[name] / cost:9.3f} x {server}")


if __name__ == "__main__":
    main()
