"""The cell that a message names is the one at fault."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skserve.config import Config
from skserve.errors import BadRequest
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler

FRAME = pd.DataFrame(
    {"ward": ["north", "south"] * 10, "age": np.arange(20.0), "rent": np.arange(20.0) * 2}
)
TARGET = FRAME.age + FRAME.rent
PLAIN = LinearRegression().fit(FRAME[["age", "rent"]].to_numpy(), TARGET)
NAMED = LinearRegression().fit(FRAME[["age", "rent"]], TARGET)
FILLED = make_pipeline(SimpleImputer(), LinearRegression()).fit(
    FRAME[["age", "rent"]].to_numpy(), TARGET
)
MIXED = make_pipeline(
    make_column_transformer(
        (OneHotEncoder(), ["ward"]), (SimpleImputer(), ["age"]), (StandardScaler(), ["rent"])
    ),
    LinearRegression(),
).fit(FRAME, TARGET)
NARROW = LogisticRegression().fit(FRAME[["age", "rent"]].to_numpy(), TARGET > 20)


def refused(model, body, content_type="application/json"):
    handler = EstimatorHandler.of(model, None, Config())
    body = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(BadRequest) as error:
        handler.predict(handler.decode(Call(body.encode(), content_type), None), None)
    return error.value


EMPTY = "A missing value is null or NaN in JSON, an empty cell in CSV."
DIGITS = "A number is digits alone, such as 1234.5, without a unit, a currency or a comma."

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("model", "rows", "begins"),
    [
        (PLAIN, [[1, 2], [1, NAN]], "Row 2, column 2 is missing. "),
        (NAMED, [[1, 2], [1, NAN]], "Row 2, column 'rent' is missing. "),
        (PLAIN, [[1, 2], [INF, 1]], "Row 2, column 1 is infinite. "),
        (FILLED, [[NAN, 1.0], [1.0, 2.0], [INF, 1.0]], "Row 3, column 1 is infinite. "),
        (FILLED, [[NAN, 1.0], [1.0, -INF]], "Row 2, column 2 is infinite. "),
        (MIXED, [["north", NAN, 1.0], ["north", 1.0, NAN]], "Row 2, column 'rent' is missing. "),
        (MIXED, [["north", INF, 1.0]], "Row 1, column 'age' is infinite. "),
        (MIXED, [["north", None, INF]], "Row 1, column 'rent' is infinite. "),
    ],
)
def test_the_cell_that_the_model_refuses_is_named(model, rows, begins):
    assert refused(model, rows).message.startswith(begins)


@pytest.mark.parametrize(
    ("model", "body", "content_type", "message", "hint"),
    [
        (
            PLAIN,
            "1;2\n3;4\n",
            "text/csv",
            "Row 1 has semicolons between its values.",
            "Separate them by commas.",
        ),
        (
            NARROW,
            "1\t2\n",
            "text/csv",
            "Row 1 has tabs between its values.",
            "Separate them by commas.",
        ),
        (
            MIXED,
            "north;1,5;2,5\n",
            "text/csv",
            "Row 1, column 'age': expected a number, got '5;2'.",
            "Separate values by commas, not by semicolons or tabs.",
        ),
        (
            NAMED,
            FRAME[["age", "rent"]].to_json(),
            "application/json",
            "The body is an object of objects, as DataFrame.to_json() writes it: it has no rows.",
            'Write it with to_json(orient="records").',
        ),
        (
            PLAIN,
            FRAME[["age", "rent"]].to_json(orient="index"),
            "application/json",
            "The body is an object of objects, as DataFrame.to_json() writes it: it has no rows.",
            'Write it with to_json(orient="records").',
        ),
        (
            NAMED,
            FRAME[["age", "rent"]].to_json(orient="table"),
            "application/json",
            'The body is a table with its schema, as to_json(orient="table") writes it.',
            'Write it with to_json(orient="records").',
        ),
        (
            NAMED,
            "age;rent\n1;2\n",
            "text/csv; header=present",
            "The header has semicolons between its names.",
            "Separate them by commas.",
        ),
        (
            NAMED,
            "1|2\n",
            "text/csv",
            "Row 1 has vertical bars between its values.",
            "Separate them by commas.",
        ),
        (
            NAMED,
            {"input_data": {"columns": ["age", "rent"], "data": [[1, 2]]}},
            "application/json",
            "The body is an object with the keys 'input_data'.",
            "Send a list of rows, or one of: instances, inputs, dataframe_records, "
            "dataframe_split, or columns and data; beside it only method.",
        ),
        (
            NAMED,
            '[{"age": 1, "rent": ' + "9" * 400 + "}]",
            "application/json",
            "Row 1, column 'rent': " + "9" * 40 + " is too large.",
            "",
        ),
        (
            NAMED,
            '{"age": 1, "rent": 2}\n{"age": 1, "rent": 2}\n',
            "application/json",
            "The body is not JSON: Extra data at line 2, column 1.",
            "JSON Lines is announced by Content-Type: application/jsonlines.",
        ),
        (
            NAMED,
            '[{"age": 1, "rent": 2}, {"age": 1,',
            "application/json",
            "The body is not JSON: Expecting property name enclosed in double quotes at line 1, "
            "column 35.",
            "It breaks off there: send all of it, and close every bracket and quote.",
        ),
        (
            NAMED,
            '[{"age": 1, "rent": 2}, {"ag',
            "application/json",
            "The body is not JSON: Unterminated string starting at at line 1, column 26.",
            "It breaks off there: send all of it, and close every bracket and quote.",
        ),
        (
            NAMED,
            "[1, 2]\n[1, ",
            "application/jsonlines",
            "Line 2 is not JSON: Expecting value at line 1, column 5.",
            "It breaks off there: send all of it, and close every bracket and quote.",
        ),
        (
            NAMED,
            "",
            "application/json",
            "The body is not JSON: Expecting value at line 1, column 1.",
            "It is empty: send rows, such as [[1, 2], [3, 4]].",
        ),
        (
            NAMED,
            "[{'age': 1, 'rent': 2}]",
            "application/json",
            "The body is not JSON: Expecting property name enclosed in double quotes at line 1, "
            "column 3.",
            "JSON has names and texts between double quotes, and no comma behind the last.",
        ),
        (
            NAMED,
            "1,2\n",
            "application/json",
            "The body is not JSON: Extra data at line 1, column 2.",
            "CSV is announced by Content-Type: text/csv.",
        ),
        (
            NAMED,
            "<html>",
            "application/json",
            "The body is not JSON: Expecting value at line 1, column 1.",
            "Send JSON, or name another format in Content-Type, such as text/csv.",
        ),
        (NAMED, "$5,2\n", "text/csv", "Row 1, column 'age': expected a number, got '$5'.", DIGITS),
        (
            NAMED,
            [["5 kg", 2]],
            "application/json",
            "Row 1, column 'age': expected a number, got '5 kg'.",
            DIGITS,
        ),
        (
            NAMED,
            "1,N/A\n",
            "text/csv",
            "Row 1, column 'rent': expected a number, got 'N/A'.",
            EMPTY,
        ),
        (
            NAMED,
            "none,2\n",
            "text/csv",
            "Row 1, column 'age': expected a number, got 'none'.",
            EMPTY,
        ),
        (NAMED, "?,?\n", "text/csv", "Row 1, column 'age': expected a number, got '?'.", EMPTY),
        (NAMED, "old,2\n", "text/csv", "Row 1, column 'age': expected a number, got 'old'.", EMPTY),
        (
            NAMED,
            "years,cost\n1,2\n",
            "text/csv",
            "Row 1, column 'age': expected a number, got 'years'.",
            "If this line is a header, it must name the fitted columns ('age', 'rent'), or be "
            "announced: Content-Type: text/csv; header=present.",
        ),
        (
            MIXED,
            [[90210, 1, 2]],
            "application/json",
            "Row 1, column 'ward': expected a text, got 90210.",
            "The model learned text here: send a string, so that 007 stays 007.",
        ),
        (
            PLAIN,
            "0:1 2:5\n",
            "text/libsvm",
            "Row 1 has the index 2; the model has 2 columns, and indices start at 0.",
            "Send ;base=1 with the type, or set SKSERVE_LIBSVM_BASE, if they start at 1.",
        ),
    ],
)
def test_a_refusal_names_the_cause_and_the_way_out(model, body, content_type, message, hint):
    error = refused(model, body, content_type)

    assert (error.message, error.hint) == (message, hint)


def test_the_base_of_libsvm_is_a_setting_and_a_parameter_comes_before_it():
    handler = EstimatorHandler.of(PLAIN, None, Config(libsvm_base=1))

    def ask(content_type, body):
        request = handler.decode(Call(body, content_type), None)
        return handler.predict(request, None).rows().tolist()

    expected = PLAIN.predict([[1.0, 5.0]])
    assert ask("text/libsvm", b"0 1:1 2:5\n") == pytest.approx(expected)
    assert ask("text/libsvm; base=0", b"0 0:1 1:5\n") == pytest.approx(expected)


class Ward(TransformerMixin, BaseEstimator):
    """Reads a column by its name, and records nothing of X."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.stack([X["ward"].str.len(), X["age"]], axis=1)


BY_NAME = make_pipeline(Ward(), LinearRegression()).fit(FRAME, TARGET)
FAILED = "A step that does not say what it reads of its columns failed on this table: "


@pytest.mark.parametrize(
    ("body", "content_type", "begins", "hint"),
    [
        ([["north", 1]], "application/json", FAILED + "IndexError: ", "the body has no names"),
        ("north,1\n", "text/csv", FAILED + "IndexError: ", "header=present"),
        ([{"age": 1}], "application/json", FAILED + "KeyError: 'ward'", "schema.json"),
        ([{"ward": 7, "age": 1}], "application/json", FAILED + "AttributeError: ", "schema.json"),
        (
            "ward,age\nnorth\n",
            "text/csv; header=present",
            "Row 1 has 1 value, expected 2 ('ward', 'age').",
            "",
        ),
    ],
)
def test_a_step_that_says_nothing_of_its_columns_fails_with_what_it_raised(
    body, content_type, begins, hint
):
    error = refused(BY_NAME, body, content_type)

    assert error.message.startswith(begins)
    assert hint in error.hint
