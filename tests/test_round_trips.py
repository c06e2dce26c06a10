"""What pandas writes is read as pandas meant it: random frames, and models fitted on them.

A text holds less than a frame: "5" beside 5 in one column, and "" beside a missing text, are one
in CSV. Such columns are not made here.
"""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from skserve.config import Config
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler

ROWS = 12
HUGE = [2**53, 2**53 + 1, 2**53 + 3, -(2**60) - 1]
WORDS = ["north", "007", "1.0", "true", "nan", "NA", "a,b", 'say "x"', "line\nbreak", "é", " x "]

# Each kind of column: the values it is drawn from, its dtype, and whether it may have gaps.
KINDS = {
    "float": ([0.0, -1.5, 2.25, 1e6, 0.001], "float64", True),
    "narrow float": ([0.1, -1.5, 3.7], "float32", True),
    "whole": ([0, 1, -7, 12345], "int64", False),
    "huge": (HUGE, "int64", False),
    "whole with gaps": ([0.0, 1.0, 5.0, 90210.0], "float64", True),
    "bool": ([True, False], "bool", False),
    "object of bools": ([True, False], "object", True),
    "object of whole numbers": ([1, 2, 30], "object", True),
    "object of huge ones": (HUGE, "object", True),
    "words": (WORDS, "object", True),
    "str": (WORDS, "str", True),
    "categories": (["north", "south", "007"], "category", True),
    "categories of numbers": ([1, 2, 30], "category", False),
    "small whole": ([0, 1, 250], "uint8", False),
    "dates": (["2024-01-05 00:00", "2023-12-24 18:30", "1969-07-20 20:17"], "datetime64[us]", True),
    "nullable whole": ([1, 2, 30], "Int64", True),
    "nullable bool": ([True, False], "boolean", True),
    "nullable float": ([0.5, 1.0, 7.25], "Float64", True),
    "nullable text": (WORDS, "string", True),
}
NUMBERS = {"float", "narrow float", "small whole", "whole", "huge", "whole with gaps", "bool"}


def most_frequent():
    return SimpleImputer(strategy="most_frequent")


def one_hot():
    return OneHotEncoder(handle_unknown="ignore")


STEPS = {
    "one-hot": one_hot,
    "ordinal": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "filled, one-hot": lambda: make_pipeline(most_frequent(), one_hot()),
}
SCALED = {
    "filled, scaled": lambda: make_pipeline(SimpleImputer(), StandardScaler()),
    "filled": SimpleImputer,
    **STEPS,
}
MODELS = [LinearRegression, lambda: DecisionTreeRegressor(random_state=0)]


@st.composite
def columns(draw):
    kind = draw(st.sampled_from(sorted(KINDS)))
    values, dtype, gaps = KINDS[kind]
    cells = draw(st.lists(st.sampled_from(values), min_size=ROWS, max_size=ROWS))
    if gaps:
        missing = draw(st.sets(st.integers(0, ROWS - 1), max_size=4))
        cells = [None if at in missing else cell for at, cell in enumerate(cells)]
    assume(any(cell is not None for cell in cells))
    step = draw(st.sampled_from(sorted(SCALED if kind in NUMBERS else STEPS)))
    return pd.Series(cells, dtype=dtype), SCALED[step]()


@st.composite
def fitted(draw):
    """Draw a frame and a model that was fitted on it."""
    drawn = draw(st.lists(columns(), min_size=1, max_size=4))
    frame = pd.DataFrame({f"c{at}": cells for at, (cells, _) in enumerate(drawn)})
    table = ColumnTransformer([(f"c{at}", step, [f"c{at}"]) for at, (_, step) in enumerate(drawn)])
    model = make_pipeline(table, draw(st.sampled_from(MODELS))())
    target = np.arange(ROWS) + 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.fit(frame, target)
            return frame, model, model.predict(frame)
        except (TypeError, ValueError):
            assume(False)  # scikit-learn takes no such column


BODIES = {
    "csv": (lambda frame: frame.to_csv(index=False), "text/csv; header=present"),
    "csv without header": (lambda frame: frame.to_csv(index=False, header=False), "text/csv"),
    "records": (
        lambda frame: frame.to_json(orient="records", double_precision=15),
        "application/json",
    ),
    "split": (lambda frame: frame.to_json(orient="split", double_precision=15), "application/json"),
    "values": (
        lambda frame: frame.to_json(orient="values", double_precision=15),
        "application/json",
    ),
    "lines": (
        lambda frame: frame.to_json(orient="records", lines=True, double_precision=15),
        "application/jsonlines",
    ),
}


def check(form, drawn):
    """Compare what is served with what the model answers to the frame."""
    frame, model, expected = drawn
    write, content_type = BODIES[form]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        handler = EstimatorHandler.of(model, None, Config())

        def ask(rows):
            call = Call(write(rows).encode(), content_type, "application/json")
            request = handler.decode(call, None)
            found = json.loads(handler.encode(handler.predict(request, None), request, None).body)
            return np.ravel(found["predictions"] if isinstance(found, dict) else found)

        assert ask(frame) == pytest.approx(expected)
        for at in range(0, ROWS, 5):
            assert ask(frame.iloc[at : at + 1]) == pytest.approx(expected[at : at + 1])


@pytest.mark.parametrize("form", BODIES)
@given(drawn=fitted())
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_what_pandas_writes_is_read_as_pandas_meant_it(form, drawn):
    check(form, drawn)


@pytest.mark.soak
@pytest.mark.parametrize("form", BODIES)
@given(drawn=fitted())
@settings(max_examples=250, suppress_health_check=list(HealthCheck))
def test_what_pandas_writes_is_read_so_in_many_more_tables(form, drawn):
    check(form, drawn)


def test_gradient_boosting_with_categories_of_its_own_reads_what_pandas_writes():
    frame = pd.DataFrame(
        {"ward": pd.Categorical(["north", "south", None] * 20), "age": np.arange(60) / 2}
    )
    model = HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=5)
    model.fit(frame, frame.age + 9 * (frame.ward == "north"))
    handler = EstimatorHandler.of(model, None, Config())

    for write, content_type in BODIES.values():
        request = handler.decode(Call(write(frame).encode(), content_type), None)
        found = handler.predict(request, None).rows()
        assert list(found) == pytest.approx(model.predict(frame))
