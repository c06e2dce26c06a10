"""Calls that one prediction answers: which do, that answers are the same, what a failure does."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.decomposition import NMF
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from skserve import telemetry
from skserve.errors import BadRequest, Overloaded, TimedOut
from skserve.formats.answer import Answer
from skserve.inference.calls import Request
from skserve.inference.hooks import Hook, Hooks
from skserve.scheduling.batching import ROWS, Batcher
from skserve.scheduling.independence import independent, joinable
from skserve.scheduling.slots import Slots
from skserve.series import STAGES
from tests.conftest import serving


class Slow:
    """A predict that doubles its rows, one call at a time through a gate, and remembers."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls: list[int] = []

    def __call__(self, request: Request, context: object) -> Answer:
        self.calls.append(len(request.X))
        self.gate.wait(10)
        if any(value < 0 for value in np.asarray(request.X)[:, 0]):
            raise BadRequest("negative")
        if request.method == "kneighbors":
            return Answer((request.X * 2, request.X * 3), ("distances", "indices"))
        return Answer.of(request.X * 2)


def ask(batcher: Batcher, X: object, method: str | None = None) -> Answer:
    return batcher(Request(X, n_rows=len(X), method=method), None, [])


def together(predict: Slow, tables: list[np.ndarray], slots: Slots, methods=(None,)) -> list:
    """Ask for all tables while a first call runs; return what came of each but the first."""
    batcher = Batcher(predict, slots)
    with ThreadPoolExecutor(len(tables) + 1) as callers:
        first = callers.submit(ask, batcher, np.ones((1, 2)))
        while not predict.calls:
            time.sleep(0.001)
        asked = [
            callers.submit(ask, batcher, X, methods[number % len(methods)])
            for number, X in enumerate(tables)
        ]
        while len(batcher._waiting) < len(tables):
            time.sleep(0.001)
        predict.gate.set()
        first.result()
        return [one.exception() or one.result() for one in asked]


def test_who_waits_while_a_call_runs_is_answered_by_the_next():
    predict, tables = Slow(), [np.full((rows, 2), float(rows)) for rows in (1, 3, 2)]

    answers = together(predict, tables, Slots(2, 10, timeout=10))

    assert predict.calls == [1, 6]
    for X, answer in zip(tables, answers, strict=True):
        assert answer.parts[0].tolist() == (X * 2).tolist()


def test_a_lone_request_does_not_wait():
    predict = Slow()
    predict.gate.set()
    batcher, record = Batcher(predict, Slots(1, 10, timeout=10)), telemetry.begin("id")

    assert ask(batcher, np.ones((1, 2))).parts[0].tolist() == [[2, 2]]
    assert record.facts["joined"] == 1
    took = dict(zip(STAGES, record.stages, strict=True))
    assert took["queue"] < 0.5
    assert took["predict"] > 0


def test_a_call_takes_only_so_many_rows_and_a_larger_request_goes_alone():
    predict = Slow()

    together(predict, [np.ones((100, 2))] * 5, Slots(2, 10, timeout=10))
    assert predict.calls == [1, 200, 200, 100]
    assert len(ask(Batcher(predict, Slots(1, 1, 10)), np.ones((ROWS + 1, 2))).parts[0]) == ROWS + 1


def test_a_bad_row_fails_its_caller_alone():
    predict, tables = Slow(), [np.full((1, 2), value) for value in (1.0, -1.0, 2.0)]

    answers = together(predict, tables, Slots(1, 10, timeout=10))

    assert predict.calls == [1, 3, 1, 1, 1]
    assert isinstance(answers[1], BadRequest)
    assert [answers[0].parts[0][0, 0], answers[2].parts[0][0, 0]] == [2, 4]


def test_other_methods_and_other_widths_travel_by_themselves():
    predict = Slow()
    tables = [np.ones((1, 2)), np.ones((2, 2)), np.ones((1, 2)), np.ones((2, 2))]

    answers = together(predict, tables, Slots(1, 10, timeout=10), (None, "kneighbors"))

    assert predict.calls == [1, 2, 4]
    assert [len(answer.parts) for answer in answers] == [1, 2, 1, 2]
    assert answers[3].parts[1].tolist() == [[3, 3], [3, 3]]
    assert answers[3].names == ("distances", "indices")


def test_callers_of_a_call_that_hangs_get_an_answer_and_the_next_call_is_made():
    predict = Slow()
    slots = Slots(2, 10, timeout=0.3)
    batcher = Batcher(predict, slots)
    with ThreadPoolExecutor(3) as callers:
        stuck = callers.submit(ask, batcher, np.ones((1, 2)))
        time.sleep(0.1)
        later = callers.submit(ask, batcher, np.ones((1, 2)))

        assert isinstance(stuck.exception(2), TimedOut)
        assert isinstance(later.exception(2), TimedOut)
        assert slots.hung
        assert isinstance(callers.submit(ask, batcher, np.ones((1, 2))).exception(2), Overloaded)
        predict.gate.set()
        while slots.hung:
            time.sleep(0.01)
        assert len(ask(batcher, np.ones((1, 2))).parts[0]) == 1


def own_metric(one: object, other: object) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("estimator", "known"),
    [
        (LogisticRegression(), True),
        (make_pipeline(StandardScaler(), KMeans()), True),
        (make_pipeline(OneHotEncoder(dtype=np.float32), LinearRegression()), True),
        (VotingClassifier([("a", LogisticRegression())]), True),
        (NearestNeighbors(metric="cosine"), True),
        (KNeighborsClassifier(metric=own_metric), False),
        (make_pipeline(FunctionTransformer(), LinearRegression()), False),
        (VotingClassifier([("a", make_pipeline(NMF(), LogisticRegression()))]), False),
        (BaggingClassifier(DummyClassifier(strategy="stratified")), False),
        (BernoulliRBM(), False),
        (type("Own", (LogisticRegression,), {"__module__": "mine"})(), False),
        (object(), False),
    ],
)
def test_rows_are_independent_only_in_what_is_known(estimator, known):
    assert independent(estimator) is known


def test_a_script_travels_together_only_where_it_says_so():
    def hook(name: str, context: bool = False) -> Hook:
        return Hook(name, print, context)

    plain, model = Hooks(predict_fn=hook("predict_fn")), LogisticRegression()
    assert joinable(model, "predict", Hooks(), "auto")
    assert not joinable(model, "transform", Hooks(), "auto")
    assert not joinable(model, "predict", plain, "auto")
    assert joinable(model, "predict", plain, "on")
    assert not joinable(model, "predict", Hooks(predict_fn=hook("predict_fn", True)), "on")
    assert not joinable(model, "predict", Hooks(output_fn=hook("output_fn")), "on")


def test_answers_of_64_callers_are_those_without_batching(tmp_path):
    """Random requests, good and bad ones, to a forest that is slow enough to gather them."""
    random = np.random.default_rng(7)
    forest = RandomForestClassifier(100, random_state=0)
    joblib.dump(forest.fit(*load_iris(return_X_y=True)), tmp_path / "model.joblib")
    bodies = []
    for number in range(192):
        rows = random.uniform(0, 8, (int(random.integers(1, 6)), 4)).round(3).tolist()
        if number % 16 == 3:
            rows[0] = rows[0][:3]
        if number % 16 == 7:
            rows[0][0] = None  # which only the forest itself refuses
        method = ("predict", "predict_proba")[number % 3 == 0]
        bodies.append(json.dumps({"instances": rows, "method": method}))
    answers = {}
    for mode in ("auto", "off"):
        log = tmp_path / mode
        settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SKSERVE_ACCELERATE": "off"}
        with (
            serving(tmp_path, log, SKSERVE_BATCHING=mode, **settings) as server,
            ThreadPoolExecutor(64) as callers,
        ):
            replies = list(callers.map(server.post, bodies))
        answers[mode] = [(one.status_code, _without_id(one.json())) for one in replies]
        joined = [int(word[7:]) for word in log.read_text().split() if word.startswith("joined=")]
        assert (max(joined, default=1) > 1) == (mode == "auto")
    assert {status for status, _ in answers["off"]} == {200, 400}
    assert answers["auto"] == answers["off"]


def _without_id(said: dict) -> dict:
    said.get("error", {}).pop("request_id", None)
    return said
