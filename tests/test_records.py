"""Models that take a list of dicts: each body is answered as the model answers the dicts."""

from __future__ import annotations

import json
from functools import cache

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skserve.config import Config
from skserve.errors import BadRequest
from skserve.estimators.declared import Declared
from skserve.estimators.schema import Schema
from skserve.formats.conform import conform
from skserve.formats.table import Table
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler
from skserve.inference.example import schema_of

DICTS = [
    {
        "ward": ["north", "south", "west"][at % 3],
        "zip": ["01234", "90210"][at % 2],
        "open": at % 4 == 0,
        "age": at / 4,
        "beds": at % 5,
    }
    for at in range(40)
]
LABELS = [
    int((one["ward"] == "north") + 2 * (one["zip"] == "90210") + 3 * one["open"]) for one in DICTS
]


def to_dicts(frame):
    return frame.to_dict("records")


def linear(*steps):
    return make_pipeline(*steps, LogisticRegression(C=10, max_iter=500))


MODELS = {
    "DictVectorizer": lambda: linear(DictVectorizer()),
    "another separator": lambda: linear(DictVectorizer(separator="~")),
    "dense": lambda: linear(DictVectorizer(sparse=False)),
    "a union": lambda: linear(FeatureUnion([("a", DictVectorizer()), ("b", DictVectorizer())])),
    "a search": lambda: GridSearchCV(
        linear(DictVectorizer()), {"logisticregression__C": [10, 100]}, cv=2
    ),
    "a calibration": lambda: CalibratedClassifierCV(linear(DictVectorizer()), cv=2),
    "passed through": lambda: linear(FunctionTransformer(), DictVectorizer()),
}


def served(model, declared=None):
    handler = EstimatorHandler.of(model, None, Config(), declared)

    def ask(body, content_type="application/json", method=None):
        body = body if isinstance(body, str) else json.dumps(body)
        call = Call(body.encode(), content_type, attributes=f"method={method}" if method else "")
        return list(handler.predict(handler.decode(call, None), None).rows())

    return ask


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]().fit(DICTS, LABELS)


FRAME = pd.DataFrame(DICTS)
SPLIT = FRAME.to_dict("split")
BODIES = {
    "records": (json.dumps(DICTS), "application/json"),
    "instances": (json.dumps({"instances": DICTS}), "application/json"),
    "inputs": (json.dumps({"inputs": DICTS}), "application/json"),
    "data": (json.dumps({"data": DICTS}), "application/json"),
    "columns": (json.dumps({"inputs": FRAME.to_dict("list")}), "application/json"),
    "split": (json.dumps(SPLIT), "application/json"),
    "lines": ("".join(json.dumps(one) + "\n" for one in DICTS), "application/jsonlines"),
    "csv": (FRAME.to_csv(index=False), "text/csv"),
    "csv with its header announced": (FRAME.to_csv(index=False), "text/csv; header=present"),
    "csv in another order": (FRAME[FRAME.columns[::-1]].to_csv(index=False), "text/csv"),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_is_answered_as_the_model_answers_its_dicts(model, body):
    assert served(model)(*BODIES[body], "predict_proba") == pytest.approx(
        model.predict_proba(DICTS), rel=1e-9
    )


def test_rows_may_have_different_names():
    model = linear(DictVectorizer()).fit(DICTS, LABELS)
    rows = [
        {"ward": "north"},
        {"age": 3, "new": "?"},
        {},
        {"ward": ["north", "west"], "open": True},
    ]

    expected = model.predict_proba(rows)
    assert served(model)(rows, method="predict_proba") == pytest.approx(expected)
    for at in (0, 1, 3):
        assert served(model)(rows[at], method="predict_proba") == pytest.approx(
            expected[at : at + 1]
        )


def test_features_that_are_hashed_are_read_from_dicts():
    rows = [{**one, "open": int(one["open"])} for one in DICTS]
    model = linear(FeatureHasher(64)).fit(rows, LABELS)

    assert served(model)(rows) == model.predict(rows).tolist()


def test_a_step_that_makes_the_dicts_of_a_frame_is_given_the_frame():
    model = linear(FunctionTransformer(to_dicts), DictVectorizer()).fit(FRAME, LABELS)

    assert served(model)(DICTS) == model.predict(FRAME).tolist()


def test_words_of_which_there_are_many_are_numbers():
    rows = [{"true": 2, "fresh": 1}, {"stale": 1, "1": 3}] * 10
    model = linear(DictVectorizer()).fit(rows, [1, 0] * 10)

    assert served(model)("true,fresh,1\n2,1,0\n0,0,3\n", "text/csv") == [1, 0]


@cache
def plain_model():
    return linear(DictVectorizer()).fit(DICTS, LABELS)


SENT = 'Send a list of objects, such as [{"name": 1}], or CSV with a header.'


@pytest.mark.parametrize(
    ("body", "content_type", "message", "hint"),
    [
        ([[1, 2]], "application/json", "Row 1 is a list, expected an object", SENT),
        ([1, 2], "application/json", "Row 1 is 1, expected an object", SENT),
        (["north"], "application/json", "Row 1 is 'north', expected an object", SENT),
        ([{"age": 1}, [1]], "application/json", "Row 2 is a list, expected an object", SENT),
        ('{"age": 1}\n[1]\n', "application/jsonlines", "Row 2 is a list, expected an object", SENT),
        ("1,2\n", "text/csv; header=absent", "Row 1 is a list, expected an object", SENT),
        ("age,ward\n1\n", "text/csv", "Row 1 has 1 value, expected 2 ('age', 'ward')", ""),
        ("age,age\n1,2\n", "text/csv", "Columns named more than once: 'age'", ""),
        ("age,ward\n", "text/csv", "The body holds no rows", ""),
        ([], "application/json", "The body holds no rows", ""),
        ([{"age": {"years": 1}}], "application/json", "Unsupported value Type <class 'dict'>", ""),
        ([{"ward": [1]}], "application/json", "Unsupported type <class 'int'>", ""),
        ([{"age": None}], "application/json", "Input X contains NaN", ""),
    ],
)
def test_a_row_that_is_no_object_is_refused_with_the_way_out(body, content_type, message, hint):
    ask = served(plain_model())

    with pytest.raises(BadRequest) as refused:
        ask(body, content_type)
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_the_example_of_a_model_of_dicts_is_one():
    schema = Schema.of(plain_model())
    told = schema.describe()

    assert told["input"] == "list of objects"
    assert told["example"]["body"] == [
        {"age": 0, "beds": 0, "open": 0, "ward": "north", "zip": "01234"}
    ]


def test_a_declared_type_tells_how_csv_spells_what_is_hashed():
    rows = [{"zip": one["zip"]} for one in DICTS]
    model = linear(FeatureHasher(64)).fit(rows, [int(one["zip"] == "90210") for one in DICTS])
    declared = Declared.of_schema({"columns": [{"name": "zip", "type": "text"}]}, "schema.json")

    assert served(model, declared)("zip\n90210\n01234\n", "text/csv") == [1, 0]


@pytest.mark.parametrize("form", ["records", "csv"])
def test_rows_of_dicts_declare_their_types_and_an_example(tmp_path, form):
    joblib.dump(plain_model(), tmp_path / "model.joblib")
    sent, content_type = BODIES[form]

    found = schema_of(tmp_path, "model.joblib", Call(sent.encode(), content_type))

    assert {one["name"]: one["type"] for one in found["columns"]} == {
        "ward": "text", "zip": "text", "open": "boolean", "age": "number", "beds": "integer"
    }  # fmt: skip
    assert found["example"] == [DICTS[0]]


def test_an_array_of_numbers_is_refused():
    schema = Schema.of(plain_model())

    with pytest.raises(BadRequest, match="Row 1 is a list, expected an object"):
        conform(Table(np.zeros((2, 3))), schema)
