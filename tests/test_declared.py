"""What a file beside the model says of its columns: `schema.json`, and MLflow's `MLmodel`."""

from __future__ import annotations

import json
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skserve.config import Config
from skserve.errors import BadRequest, StartError
from skserve.inference.calls import Call
from skserve.inference.model import Model

FRAME = pd.DataFrame(
    {"zip": ["01234", "90210"] * 10, "beds": [1, 2, 3, 4] * 5, "open": [True, False] * 10}
)
TARGET = FRAME.beds + 3 * (FRAME.zip == "90210")


class Months(TransformerMixin, BaseEstimator):
    """Takes the dates of a frame apart, and tells nothing of X."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.stack([X["seen"].dt.month, X["seen"].dt.hour], axis=1).astype(float)


class Kinds(TransformerMixin, BaseEstimator):
    """Makes numbers of what each column holds, and tells nothing of X."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        kinds = [str(X[name].map(lambda cell: type(cell).__name__).iloc[0]) for name in X]
        assert kinds[:1] == ["str"], kinds
        return np.stack([X.iloc[:, 0] == "90210", X.iloc[:, 1]], axis=1).astype(float)


def picked(frame):
    return frame["review"]


def folder(tmp_path, model, **files):
    joblib.dump(model, tmp_path / "model.joblib")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name.replace("_json", ".json")).write_text(text)
    return tmp_path


def declared(*columns, **others):
    return {
        "columns": [{"name": name, "type": kind} for name, kind in columns],
        **others,
    }


COLUMNS = declared(("zip", "text"), ("beds", "integer"))


def ask(model, body, content_type="application/json"):
    body = body if isinstance(body, str) else json.dumps(body)
    return json.loads(model.invoke(Call(body.encode(), content_type, "application/json")).body)


@pytest.fixture
def unsaid():
    return make_pipeline(Kinds(), LinearRegression()).fit(FRAME[["zip", "beds"]], TARGET)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ([["90210", 2]], "application/json"),
        ([{"beds": 2, "zip": "90210"}], "application/json"),
        ({"columns": ["beds", "zip"], "data": [[2, "90210"]]}, "application/json"),
        ("90210,2\n", "text/csv"),
        ("beds,zip\n2,90210\n", "text/csv"),
        ('["90210", 2]\n', "application/jsonlines"),
    ],
)
def test_a_schema_says_what_the_model_does_not(tmp_path, unsaid, body, content_type):
    model = Model.load(folder(tmp_path, unsaid, schema_json=COLUMNS), Config())

    found = ask(model, body, content_type)

    assert np.ravel(found["predictions"] if isinstance(found, dict) else found) == pytest.approx(5)


SEEN = pd.DataFrame({"seen": pd.to_datetime(["2024-01-31 06:00", "2024-05-01 00:00"] * 10)})
DATED = declared(("seen", "date"))
DATED_BY_MLFLOW = """\
flavors: {python_function: {loader_module: mlflow.sklearn}}
signature:
  inputs: '[{"type": "datetime", "name": "seen", "required": true}]'
"""


@pytest.mark.parametrize("files", [{"schema_json": DATED}, {"MLmodel": DATED_BY_MLFLOW}])
def test_dates_are_dates_where_a_file_says_so(tmp_path, files):
    model = make_pipeline(Months(), LinearRegression()).fit(SEEN, SEEN.seen.dt.month * 1.0)
    served = Model.load(folder(tmp_path, model, **files), Config())

    expected = model.predict(SEEN)
    milliseconds = SEEN.assign(seen=SEEN.seen.astype("datetime64[ms]").astype("int64"))
    for orient in ("records", "values", "split"):
        for frame in (SEEN, milliseconds):
            found = ask(served, frame.to_json(orient=orient, date_format="iso"))
            found = found["predictions"] if isinstance(found, dict) else found
            assert found == pytest.approx(expected)
    assert ask(served, SEEN.to_csv(index=False), "text/csv") == pytest.approx(expected)
    assert ask(served, '[["2024-01-31T07:00:00+01:00"]]') == pytest.approx(expected[:1])
    assert ask(served, served.describe()["example"]["body"]) == pytest.approx([1.0], abs=3)


def test_the_description_says_where_each_type_comes_from(tmp_path, unsaid):
    plain = make_pipeline(FunctionTransformer(), StandardScaler(), LinearRegression())
    plain.fit(FRAME[["beds"]], TARGET)
    with_schema = Model.load(folder(tmp_path, unsaid, schema_json=COLUMNS), Config()).describe()

    assert [(one["name"], one["type"], one["source"]) for one in with_schema["columns"]] == [
        ("zip", "text", "schema.json"),
        ("beds", "integer", "schema.json"),
    ]
    (tmp_path / "schema.json").unlink()
    without = Model.load(folder(tmp_path, plain), Config()).describe()
    assert [one["source"] for one in without["columns"]] == ["model"]


def test_what_nothing_says_is_described_as_that(tmp_path, unsaid):
    described = Model.load(folder(tmp_path, unsaid), Config()).describe()

    assert described["columns"] == []
    assert described["example"] is None


def test_the_example_of_a_schema_is_the_one_described(tmp_path, unsaid):
    example = [["90210", 2]]
    model = Model.load(
        folder(tmp_path, unsaid, schema_json={**COLUMNS, "example": example}), Config()
    )

    assert model.describe()["example"] == {"content_type": "application/json", "body": example}
    assert ask(model, model.describe()["example"]["body"]) == pytest.approx([5])


def test_a_text_that_is_picked_by_name_is_found_by_the_declared_name(tmp_path):
    model = make_pipeline(FunctionTransformer(picked), CountVectorizer(), LogisticRegression())
    model[1].fit(["good", "bad"])
    model[2].fit(model[1].transform(["good", "bad"]), [1, 0])
    served = Model.load(folder(tmp_path, model, schema_json=declared(("review", "text"))), Config())

    assert ask(served, [["good"], ["bad"]]) == [1, 0]
    assert ask(served, [{"review": "bad"}]) == [0]


def test_a_model_fitted_without_names_takes_the_declared_ones(tmp_path):
    model = LinearRegression().fit(FRAME[["beds", "open"]].to_numpy(float), TARGET)
    served = Model.load(
        folder(tmp_path, model, schema_json=declared(("beds", "integer"), ("open", "boolean"))),
        Config(),
    )

    expected = model.predict([[3.0, 1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ask(served, [{"open": True, "beds": 3}]) == pytest.approx(expected)
        assert ask(served, [[3, True]]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (["90210", 2.5], "Row 1, column 'beds': expected a whole number, got 2.5."),
        (["90210", "two"], "Row 1, column 'beds': expected a whole number, got 'two'."),
        ([90210, 2], "Row 1, column 'zip': expected a text, got 90210."),
        (["90210"], "Row 1 has 1 value, expected 2 ('zip', 'beds')."),
    ],
)
def test_a_cell_that_is_not_of_its_declared_type_is_named(tmp_path, unsaid, row, sentence):
    model = Model.load(folder(tmp_path, unsaid, schema_json=COLUMNS), Config())

    with pytest.raises(BadRequest) as error:
        ask(model, [row])

    assert error.value.message == sentence


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("[", "schema.json beside the model cannot be used: Expecting value"),
        ({"fields": []}, 'it is no object with a list "columns"'),
        ([], 'it is no object with a list "columns"'),
        ({"columns": [{"name": "zip"}]}, "column 1 has the type None, expected one of number, "),
        ({"columns": ["zip"]}, "column 1 has the type None"),
        (declared(("zip", "text"), ("beds", "float")), "column 2 has the type 'float'"),
        (
            {"columns": [{"name": "zip", "type": "text", "values": "north"}]},
            "column 1 has values that are no list of texts, numbers and bools",
        ),
        (
            {"columns": [{"name": "zip", "type": "text", "values": [{"a": 1}]}]},
            "column 1 has values that are no list of texts, numbers and bools",
        ),
        (declared(("zip", "text"), ("zip", "text")), "two columns have one name"),
        (declared(("a", "number")), "schema.json declares 1 columns (a), but the model was fitted"),
        (declared(("a", "number"), ("b", "number")), "was fitted on 2 (beds, open)."),
    ],
)
def test_a_schema_that_is_wrong_stops_the_start(tmp_path, document, sentence):
    model = LinearRegression().fit(FRAME[["beds", "open"]], TARGET)

    with pytest.raises(StartError) as error:
        Model.load(folder(tmp_path, model, schema_json=document), Config())

    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a\n", "MLmodel beside the model cannot be used: it is no object;"),
        ("flavors: [a]\n", '"flavors" is no object;'),
        ("flavors: {python_function: x}\n", '"python_function" is no object;'),
        ("signature: x\n", '"signature" is no object;'),
        ("signature: {inputs: '[{'}\n", "Expecting property name"),
        ("a: [\n", "while parsing a flow"),
    ],
)
def test_an_mlmodel_that_is_wrong_stops_the_start(tmp_path, text, sentence):
    model = LinearRegression().fit(FRAME[["beds", "open"]], TARGET)

    with pytest.raises(StartError) as error:
        Model.load(folder(tmp_path, model, MLmodel=text), Config())

    assert sentence in str(error.value)


@pytest.mark.parametrize("kind", ["text", "date", "any"])
def test_a_column_that_scikit_learn_reads_as_a_number_stays_one(tmp_path, kind):
    model = LinearRegression().fit(FRAME[["beds", "open"]], TARGET)
    schema = declared(("beds", kind), ("open", "boolean"))
    served = Model.load(folder(tmp_path, model, schema_json=schema), Config())

    assert [one["type"] for one in served.describe()["columns"]] == ["number", "number"]
    assert ask(served, [[2, False]]) == pytest.approx(
        model.predict(FRAME[["beds", "open"]][1:2] * 1)
    )


# As mlflow-skinny 3.17 wrote it, without what is not read.
MLMODEL = """\
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: model.joblib
    predict_fn: predict_proba
    python_version: 3.11.7
  sklearn:
    code: null
    pickled_model: model.joblib
    serialization_format: cloudpickle
    sklearn_version: 1.9.0
mlflow_version: 3.17.2
saved_input_example_info:
  artifact_path: input_example.json
signature:
  inputs: '[{"type": "string", "name": "zip", "required": true}, {"type": "long",
    "name": "beds", "required": true}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]'
"""


def test_mlflows_signature_and_method_are_used(tmp_path):
    model = make_pipeline(Kinds(), LogisticRegression())
    model.fit(FRAME[["zip", "beds"]], FRAME.zip == "90210")
    example = {"dataframe_split": {"columns": ["zip", "beds"], "data": [["90210", 2]]}}
    served = Model.load(
        folder(tmp_path, model, MLmodel=MLMODEL, serving_input_example_json=example), Config()
    )

    expected = model.predict_proba(FRAME[["zip", "beds"]][1:2])
    assert served.handler.method == "predict_proba"
    found = ask(served, served.describe()["example"]["body"])
    assert np.array(found["predictions"]) == pytest.approx(expected)
    assert ask(served, "90210,2\n", "text/csv") == pytest.approx(expected)
    assert {one["source"] for one in served.describe()["columns"]} == {"MLmodel"}


def test_the_setting_comes_before_mlflows_method(tmp_path):
    model = LogisticRegression().fit(FRAME[["beds", "open"]], FRAME.open)
    text = MLMODEL.partition("signature")[0]

    served = Model.load(folder(tmp_path, model, MLmodel=text), Config(method="predict"))

    assert served.handler.method == "predict"


def test_a_signature_of_one_tensor_leaves_the_columns_to_the_model(tmp_path):
    model = LinearRegression().fit(FRAME[["beds"]].to_numpy(), TARGET)
    tensor = '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 1]}}]'
    text = f"signature:\n  inputs: '{tensor}'\n"

    served = Model.load(folder(tmp_path, model, MLmodel=text), Config())

    assert ask(served, [[3]]) == pytest.approx(model.predict([[3]]))
