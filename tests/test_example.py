"""`schema.json` made from example rows and the fitted model, as `deploy.py pack --example` does."""

from __future__ import annotations

import importlib
import io
import json
import sys
import tarfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from deployment import package
from deployment.errors import Refused
from skserve import archive
from skserve.config import Config
from skserve.inference import example
from skserve.inference.calls import Call
from skserve.inference.model import Model

FRAME = pd.DataFrame(
    {
        "zip": ["01234", "90210"] * 10,
        "beds": [1, 2, 3, 4] * 5,
        "age": np.arange(20) / 2,
        "open": [True, False] * 10,
    }
)


def kinds(frame):
    """Refuse a frame whose columns are of other types than those that the model was fitted on."""
    seen = {str(name): type(frame[name].tolist()[0]) for name in frame}
    assert seen == {"zip": str, "beds": int, "age": float, "open": bool}, seen
    return frame[["beds", "age"]].assign(far=frame["zip"] == "90210").astype(float)


def numbers(frame):
    return np.stack([frame["zip"] == "90210", frame["beds"].fillna(0)], axis=1).astype(float)


def lower(texts):
    return texts.str.lower()


class Beds(TransformerMixin, BaseEstimator):
    """Picks a column, and records nothing of X."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X[["beds"]]


def saved(tmp_path, model):
    joblib.dump(model, tmp_path / "model.joblib")
    return tmp_path


@pytest.fixture
def silent(tmp_path):
    """The folder of a model that says nothing of its columns."""
    model = make_pipeline(FunctionTransformer(kinds), LinearRegression())
    return saved(tmp_path, model.fit(FRAME, FRAME.beds + FRAME.age))


@pytest.mark.parametrize(
    ("write", "content_type"),
    [
        (lambda frame: frame.to_csv(index=False), "text/csv"),
        (lambda frame: frame.to_csv(index=False), "text/csv; header=present"),
        (lambda frame: frame.to_json(orient="records"), "application/json"),
        (lambda frame: frame.to_json(orient="split"), "application/json"),
        (lambda frame: frame.to_json(orient="records", lines=True), "application/jsonlines"),
    ],
)
def test_the_types_of_rows_that_pandas_wrote_are_those_of_the_frame(silent, write, content_type):
    body = write(FRAME).encode()

    schema = example.schema_of(silent, "model.joblib", Call(body, content_type))

    types = [(one["name"], one["type"]) for one in schema["columns"]]
    assert types == [("zip", "text"), ("beds", "integer"), ("age", "number"), ("open", "boolean")]
    assert schema["example"] == [["01234", 1, 0.0, True]]


def test_the_archive_holds_what_makes_every_form_of_a_body_answer(silent, tmp_path):
    (tmp_path / "rows.csv").write_text(FRAME.to_csv(index=False))
    made = package.pack(
        silent / "model.joblib", tmp_path / "a.tar.gz", example=tmp_path / "rows.csv"
    )

    with tarfile.open(made.path) as tar:
        tar.extractall(tmp_path / "served", filter="data")
    served = Model.load(tmp_path / "served", Config())

    expected = (FRAME.beds + FRAME.age)[1:2]
    rows = FRAME[1:2]
    for body, kind in [
        (rows.to_csv(index=False, header=False), "text/csv"),
        (rows.to_json(orient="values"), "application/json"),
        (json.dumps(served.describe()["example"]["body"]), "application/json"),
    ]:
        found = json.loads(served.invoke(Call(body.encode(), kind, "application/json")).body)
        assert found == pytest.approx([1.0] if "01234" in body else expected.tolist())
    assert archive.SCHEMA in made.members


@pytest.mark.parametrize(
    ("rows", "types", "first"),
    [
        ("zip,beds\n01234,1\n90210,2\n", ["text", "integer"], ["01234", 1]),
        ("zip,beds\n01234,1.0\n", ["text", "number"], ["01234", 1.0]),
        ("zip,beds\n01234,\n90210,2\n", ["text", "number"], ["01234", None]),
        ("zip,beds\n90210,1\nSW1A,1\n", ["text", "integer"], ["90210", 1]),
        ("zip,beds\n1,True\n", ["integer", "boolean"], [1, True]),
        ("zip,beds\nTRUE,\n,1\n", ["boolean", "number"], [True, None]),
        ("zip,beds\nTRUE,1e3\nfalse,1\n", ["boolean", "number"], [True, 1000.0]),
        ('[{"zip": "90210", "beds": 1}]', ["text", "integer"], ["90210", 1]),
        ('[{"zip": 1, "beds": 1}, {"zip": "a", "beds": 2.5}]', ["any", "number"], [1, 1]),
        ('[{"zip": null, "beds": 9007199254740993}]', ["any", "integer"], [None, 2**53 + 1]),
    ],
)
def test_a_type_that_the_model_does_not_say_is_that_of_the_values(tmp_path, rows, types, first):
    model = make_pipeline(FunctionTransformer(numbers), LinearRegression())
    saved(tmp_path, model.fit(FRAME[["zip", "beds"]], FRAME.beds))
    kind = "text/csv" if rows.startswith("zip") else "application/json"

    schema = example.schema_of(tmp_path, "model.joblib", Call(rows.encode(), kind))

    assert [one["type"] for one in schema["columns"]] == types
    assert schema["example"] == [first]


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ("zip,beds\n90210,2\n", "text/csv"),
        ("beds,zip\n2,90210\n", "text/csv"),
        ("90210,2\n", "text/csv"),
        ('[["90210", 2]]', "application/json"),
        ('["90210", 2]', "application/json"),
    ],
)
def test_what_the_model_says_comes_before_the_values(tmp_path, rows, kind):
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["zip"]), remainder="passthrough"),
        LinearRegression(),
    )
    saved(tmp_path, model.fit(FRAME[["zip", "beds"]], FRAME.beds))

    schema = example.schema_of(tmp_path, "model.joblib", Call(rows.encode(), kind))

    assert schema == {
        "columns": [{"name": "zip", "type": "text"}, {"name": "beds", "type": "number"}],
        "example": [["90210", 2]],
    }


@pytest.mark.parametrize(
    "step", [FunctionTransformer(), FunctionTransformer(lower)], ids=["none", "a cleaner"]
)
@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ("review\ngood one\nbad\n", "text/csv"),
        ('[{"review": "good one"}]', "application/json"),
        ('["good one"]', "application/json"),
    ],
)
def test_a_model_of_texts_gets_an_example_text(tmp_path, rows, kind, step):
    model = make_pipeline(step, CountVectorizer(), LogisticRegression())
    saved(tmp_path, model.fit(pd.Series(["good", "bad"]), [1, 0]))

    schema = example.schema_of(tmp_path, "model.joblib", Call(rows.encode(), kind))

    assert schema == {"columns": [{"type": "text"}], "example": ["good one"]}


def test_names_of_an_example_are_for_the_bodies_of_a_model_without(tmp_path):
    model = LinearRegression().fit(FRAME[["beds", "age"]].to_numpy(), FRAME.age)
    saved(tmp_path, model)

    schema = example.schema_of(tmp_path, "model.joblib", Call(b"beds,age\n1,2\n", "text/csv"))

    assert [one["name"] for one in schema["columns"]] == ["beds", "age"]


def test_a_function_of_the_models_own_code_is_found(tmp_path, monkeypatch):
    code = tmp_path / "model" / "code"
    code.mkdir(parents=True)
    (code / "own_steps.py").write_text("def beds_of(frame):\n    return frame[['beds']]\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(code)
        step = importlib.import_module("own_steps").beds_of
        model = make_pipeline(FunctionTransformer(step), LinearRegression())
        saved(tmp_path / "model", model.fit(FRAME[["beds"]], FRAME.beds))
    del sys.modules["own_steps"]
    (tmp_path / "rows.json").write_text('[{"beds": 2}]')

    made = package.pack(tmp_path / "model", tmp_path / "a.tar.gz", example=tmp_path / "rows.json")

    with tarfile.open(made.path) as tar:
        found = json.load(io.TextIOWrapper(tar.extractfile(archive.SCHEMA)))
    assert found == {"columns": [{"name": "beds", "type": "integer"}], "example": [[2]]}


@pytest.mark.parametrize(
    ("name", "rows", "sentence"),
    [
        ("rows.csv", "zip,beds\n01234\n", "does not answer rows.csv: Row 1 has 1 value"),
        ("rows.csv", "", "does not answer rows.csv: The body holds no rows."),
        ("rows.json", "{", "does not answer rows.json: The body is not JSON"),
        ("rows.json", '[{"zip": "01234"}]', "does not answer rows.json: KeyError"),
        ("rows.npy", "", "rows.npy cannot be an example"),
        ("rows.xlsx", "", "the type of rows.xlsx is not known"),
        ("rows.csv", None, "rows.csv cannot be read: No such file or directory"),
    ],
)
def test_rows_that_the_model_does_not_answer_are_refused(tmp_path, name, rows, sentence):
    model = make_pipeline(Beds(), LinearRegression())
    saved(tmp_path, model.fit(FRAME[["zip", "beds"]], FRAME.beds))
    if rows is not None:
        (tmp_path / name).write_text(rows)

    with pytest.raises(Refused) as error:
        package.pack(tmp_path / "model.joblib", tmp_path / "a", example=tmp_path / name)

    assert sentence in error.value.message


def test_a_schema_that_is_there_is_not_overwritten(silent, tmp_path):
    (silent / "schema.json").write_text("{}")
    (tmp_path / "rows.csv").write_text("zip\n1\n")

    with pytest.raises(Refused, match="declares the columns already"):
        package.pack(silent, tmp_path / "a", example=Path(tmp_path / "rows.csv"))
