"""Tables of kinds that users have brought: each body is answered as the model answers its frame.

`test_unsaid.py` has those of which the model does not say the types of its columns.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

from skserve.config import Config
from skserve.errors import BadRequest
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler

ROWS = 12
TARGET = np.arange(ROWS) * 1.5
NUMBERS = np.arange(ROWS) / 8 - 0.5
HOT = OneHotEncoder(handle_unknown="ignore")
MARKED = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
FREQUENT = SimpleImputer(strategy="most_frequent")


def column(*values, dtype=None):
    return pd.Series(list(values) * (ROWS // len(values)), dtype=dtype)


def encoded(cells, *steps):
    """Make a frame of a column and numbers, and the steps that read the column."""
    return pd.DataFrame({"a": cells, "n": NUMBERS}), make_column_transformer(
        (make_pipeline(*steps), ["a"]), remainder="passthrough"
    )


def lengths(frame):
    return frame.map(len)


def numbers(*names):
    values = {name: NUMBERS ** (at + 1) for at, name in enumerate(names)}
    return pd.DataFrame(values), FunctionTransformer()


DATES = pd.to_datetime(["2024-01-05 00:00", "2024-02-07 12:30", "2023-03-09 00:00"] * (ROWS // 3))

TABLES = {
    "float32 one-hot": encoded(column(0.1, 0.25, 3.7, dtype="float32"), HOT),
    "float16 ordinal": encoded(column(0.1, 2.0, 3.3, dtype="float16"), MARKED),
    "float32 with gaps": encoded(column(0.1, None, 3.7, dtype="float32"), FREQUENT, HOT),
    "float32 alone": (pd.DataFrame({"a": column(0.1, 0.25, 3.7, dtype="float32")}), HOT),
    "dates": encoded(DATES, HOT),
    "dates with gaps": encoded(DATES.where(np.arange(ROWS) % 4 > 0), HOT),
    "dates alone": (pd.DataFrame({"a": DATES}), HOT),
    "names of a split body": numbers("data", "index", "columns", "method"),
    "names of an envelope": numbers("instances", "inputs"),
    "a name that is a form of a row": numbers("features"),
    "names that are numbers": numbers("1", "0"),
    "names that CSV quotes": numbers("a b", "c,d", 'say "x"', "é", " e"),
}


def body(form, frame):
    """Write a frame as pandas does."""
    if form.startswith("csv"):
        return frame.to_csv(index=False, header=form == "csv"), (
            "text/csv; header=present" if form == "csv" else "text/csv"
        )
    options = {"double_precision": 15, "date_format": "iso"}
    if form == "lines":
        return frame.to_json(orient="records", lines=True, **options), "application/jsonlines"
    orient = {"reversed": "records", "instances": "records"}.get(form, form)
    frame = frame[frame.columns[::-1]] if form == "reversed" else frame
    written = frame.to_json(orient=orient, **options)
    return f'{{"instances": {written}}}' if form == "instances" else written, "application/json"


def served(model):
    """Return a function that asks a model, without HTTP."""
    handler = EstimatorHandler.of(model, None, Config())

    def ask(sent, content_type):
        request = handler.decode(Call(sent.encode(), content_type, "application/json"), None)
        found = json.loads(handler.encode(handler.predict(request, None), request, None).body)
        return found["predictions"] if isinstance(found, dict) else found

    return ask


@pytest.fixture(scope="module", params=TABLES)
def asked(request):
    """A frame, what its model answers to it, and a function that asks the served model."""
    frame, steps = TABLES[request.param]
    model = make_pipeline(steps, LinearRegression()).fit(frame, TARGET)
    return frame, model.predict(frame), served(model)


@pytest.mark.parametrize(
    "form", ["csv", "csv without header", "records", "reversed", "split", "values", "lines",
             "instances"]
)  # fmt: skip
def test_a_body_is_answered_as_the_model_answers_its_frame(asked, form):
    frame, expected, ask = asked

    assert ask(*body(form, frame)) == pytest.approx(expected)
    for at in (0, 4, 8):
        assert ask(*body(form, frame[at : at + 1])) == pytest.approx(expected[at : at + 1])


@pytest.mark.parametrize("kind", ["float32", "datetime64[ns]"])
@pytest.mark.parametrize("form", ["csv without header", "values"])
def test_an_array_without_names_is_answered_as_the_model_answers_it(form, kind):
    cells = DATES if kind.startswith("date") else np.resize([0.1, 0.25, 3.7], ROWS)
    frame = pd.DataFrame({"a": cells, "b": cells[::-1]}).astype(kind)
    model = make_pipeline(HOT, LinearRegression()).fit(frame.to_numpy(), TARGET)

    assert served(model)(*body(form, frame)) == pytest.approx(model.predict(frame.to_numpy()))


@pytest.mark.parametrize("form", ["csv", "records", "split", "lines", "instances"])
def test_names_that_pandas_counts_are_the_places_of_columns(form):
    frame = pd.DataFrame({0: NUMBERS, 1: NUMBERS**2, 2: NUMBERS**3})
    model = LinearRegression().fit(frame, TARGET)

    found = served(model)(*body(form, frame))

    assert found == pytest.approx(model.predict(frame))


@pytest.mark.parametrize(
    "steps", [HOT, FunctionTransformer(lengths)], ids=["one-hot", "a function"]
)
@pytest.mark.parametrize(
    "sent",
    ["north", {"data": "north"}, {"data": ["north"]}, {"instances": "north"}, ["north"]],
    ids=str,
)
def test_a_text_alone_is_a_row_of_a_lone_column(steps, sent):
    frame = pd.DataFrame({"a": column("north", "south")})
    model = make_pipeline(steps, LinearRegression())
    model.fit(frame, TARGET)

    assert served(model)(json.dumps(sent), "application/json") == pytest.approx(
        model.predict(frame[:1])
    )


def test_columns_by_name_are_a_table():
    frame, steps = numbers("a", "b")
    model = make_pipeline(steps, LinearRegression()).fit(frame, TARGET)
    sent = json.dumps({"b": frame.b.tolist(), "a": frame.a.tolist(), "method": "predict"})

    assert served(model)(sent, "application/json") == pytest.approx(model.predict(frame))


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"a": [1, 2]}, "Missing: 'b'"),
        ({"a": [1], "b": [2], "c": [3]}, "Unexpected: 'c'"),
        ({"a": [1], "b": [1, 2]}, "not lists of one length"),
    ],
)
def test_columns_by_name_that_do_not_fit_are_named(sent, told):
    frame, steps = numbers("a", "b")
    model = make_pipeline(steps, LinearRegression()).fit(frame, TARGET)

    with pytest.raises(BadRequest, match=told):
        served(model)(json.dumps(sent), "application/json")


@pytest.mark.parametrize("names", [["1", "0", "2"], ["2", "1", "0"]])
@pytest.mark.parametrize("form", ["csv", "records", "split", "lines"])
def test_names_that_pandas_counts_are_refused_in_another_order(form, names):
    """scikit-learn itself would go by the places, the names say something else."""
    frame = pd.DataFrame({"0": NUMBERS, "1": NUMBERS**2, "2": NUMBERS**3})
    model = LinearRegression().fit(frame.to_numpy(), TARGET)

    with pytest.raises(BadRequest, match="fitted without names"):
        served(model)(*body(form, frame[names]))


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        ([1, "west", 3], "column 'a' is 'west', a category that the model never met."),
        ([1, None, 3], "column 'a' is missing, and the model met no missing value there."),
        ([1, "north", 90210], "column 'b' is 90210, a category that the model never met."),
        ([1, "north", None], "column 'b' is missing, and the model met no missing value there."),
    ],
)
def test_a_category_that_the_model_never_met_is_named_by_its_cell(row, cell):
    frame = pd.DataFrame({"n": NUMBERS, "a": column("north", "south"), "b": column(3, 4)})
    steps = make_column_transformer((OrdinalEncoder(), ["a"]), (OrdinalEncoder(), ["b"]))
    model = make_pipeline(steps, LinearRegression()).fit(frame, TARGET)

    with pytest.raises(BadRequest) as refused:
        served(model)(json.dumps([[0, "north", 3], row]), "application/json")
    assert str(refused.value) == f"Row 2, {cell}"
