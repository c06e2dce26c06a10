"""What a cell means: the learned value that it equals or spells, whatever the format."""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from skserve.config import Config
from skserve.errors import BadRequest
from skserve.estimators.columns import NUMBER, TEXT, Column, meaning
from skserve.estimators.schema import Schema
from skserve.formats import arrow, csv_tables
from skserve.formats.cells import converted
from skserve.formats.conform import conform
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NPY
from skserve.formats.table import Table
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler

BIG = 2**53
WORTH = (10.0, 20.0, 60.0)  # what the first, second and third learned value add

# The values of a column called `key`, in the order of WORTH.
LEARNED: dict[str, np.ndarray[Any, Any]] = {
    "big": np.array([BIG, BIG + 1, BIG + 3]),
    "small": np.array([-1, 0, 2]),
    "unsigned": np.array([1, BIG + 1, 2**64 - 1], dtype=np.uint64),
    "float": np.array([0.5, 2.0, 1e300]),
    "bools": np.array([True, False, True]),
    "object bools": np.array([True, False, None], dtype=object),
    "object ints": np.array([1, 2, BIG + 1], dtype=object),
    "object floats": np.array([1.0, 2.0, 1e300], dtype=object),
    "codes": np.array(["01", "1", "1.0"], dtype=object),
}
ENCODERS = {
    "one-hot": OneHotEncoder(handle_unknown="ignore"),
    "filled": make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    ),
}


@cache
def line(learned: str, encoder: str = "one-hot") -> EstimatorHandler:
    """Return the line of a model over `key` and a number x: x and what the key is worth."""
    keys = LEARNED[learned]
    frame = pd.DataFrame(
        {
            "key": pd.Series(np.tile(keys, 30), dtype=keys.dtype),
            "x": np.random.default_rng(0).random(90),
        }
    )
    columns = ["key"]
    if encoder == "filled":
        frame["word"], columns = "w", ["key", "word"]
    encode = make_column_transformer((ENCODERS[encoder], columns), remainder="passthrough")
    worth = dict(zip(keys.tolist(), WORTH, strict=True))
    y = frame.x + frame.key.map(lambda key: worth[key]).to_numpy()
    model = make_pipeline(encode, LinearRegression()).fit(frame, y)
    return EstimatorHandler.of(model, None, Config())


def answers(of: EstimatorHandler, body: bytes | str, content_type: str) -> list[Any]:
    """Return what each row of `body` is answered, taken out of its envelope."""
    data = body if isinstance(body, bytes) else body.encode()
    request = of.decode(Call(data, content_type, JSON), None)
    found = json.loads(of.encode(of.predict(request, None), request, None).body)
    return found["predictions"] if isinstance(found, dict) else found


EXACT_ROWS = [
    (JSON, f"[[{BIG + 1}, 0.5]]"),
    (JSON, f"[[{BIG + 1}, 0.5], [{BIG}, 1]]"),
    (JSON, f"[{BIG + 1}, 0.5]"),
    (JSON, f'{{"instances": [[{BIG + 1}, 0.5], [1, 1.5]]}}'),
    (JSON, f'{{"inputs": {{"key": [{BIG + 1}], "x": [0.5]}}}}'),
    (JSON, f'{{"columns": ["x", "key"], "data": [[0.5, {BIG + 1}]]}}'),
    (JSON, f'{{"dataframe_split": {{"columns": ["key", "x"], "data": [[{BIG + 1}, 0.5]]}}}}'),
    (JSON, f'[{{"key": {BIG + 1}, "x": 0.5}}]'),
    (JSON, f'[["{BIG + 1}", 0.5]]'),
    (JSON, f'[["{BIG + 1}.0", 0.5]]'),
    (JSON_LINES, f"[{BIG + 1}, 0.5]\n[{BIG}, 1]\n"),
    (JSON_LINES, f'{{"key": {BIG + 1}, "x": 0.5}}\n'),
    (CSV, f"{BIG + 1},0.5\n"),
    (CSV, f"{BIG + 1}.0,0.5\n"),
    (CSV, f" +{BIG + 1},0.5\n{BIG},1\n"),
    (CSV, f"key,x\n{BIG + 1},0.5\n"),
]


@pytest.mark.parametrize(("content_type", "body"), EXACT_ROWS)
def test_whole_numbers_above_2_to_53_are_exact(content_type, body):
    assert answers(line("big"), body, content_type)[0] == pytest.approx(20.5)


def test_an_array_of_whole_numbers_is_exact():
    body = io.BytesIO()
    np.save(body, np.array([[BIG + 1, 3], [BIG, 3]]))

    assert answers(line("big"), body.getvalue(), NPY) == pytest.approx([23.0, 13.0])


@pytest.mark.skipif(not arrow.INSTALLED, reason="needs pyarrow")
def test_a_parquet_column_of_whole_numbers_is_exact():
    body = io.BytesIO()
    pd.DataFrame({"key": [BIG + 1, BIG], "x": [0.5, 0.5]}).to_parquet(body)

    found = answers(line("big"), body.getvalue(), "application/vnd.apache.parquet")
    assert found == pytest.approx([20.5, 10.5])


# Learned values, a cell of CSV, the same as JSON; what the row [cell, 0.5] is answered.
CELLS = [
    ("object bools", ["True", "true", "TRUE", " true"], ["true", '"true"', '"TRUE"', "1"], 10.5),
    ("object bools", ["False", "false", "FALSE"], ["false", '"false"', "0", "0.0"], 20.5),
    ("object bools", ["", "nan", "NaN"], ["null", '"nan"'], 60.5),
    ("object ints", ["1", "1.0", "01", " 1", "+1", "1e0"], ["1", "1.0", '"1"', '"1.0"'], 10.5),
    ("object ints", [f"{BIG + 1}", f"{BIG + 1}.0"], [f"{BIG + 1}", f'"{BIG + 1}"'], 60.5),
    ("object floats", ["1", "1.0", "1.", "01"], ["1", "1.0", '"1"'], 10.5),
    ("object floats", ["1e300", "1" + "0" * 300, "10e299"], ["1e300", '"1e300"'], 60.5),
    ("small", ["-1", "-1.0", "-01"], ["-1", "-1.0", '"-1"'], 10.5),
    ("small", ["0", "-0", "0.0", "false"], ["0", "-0.0", "false"], 20.5),
    ("unsigned", [str(2**64 - 1)], [str(2**64 - 1), f'"{2**64 - 1}"'], 60.5),
    ("float", ["0.5", ".5", "5e-1"], ["0.5", '"0.5"'], 10.5),
    ("float", ["1e300"], ["1e300"], 60.5),
    ("bools", ["False", "false", "FALSE", "0"], ["false", "0", '"FALSE"'], 20.5),
    ("codes", ["01"], ['"01"'], 10.5),
    ("codes", ["1"], ['"1"'], 20.5),
    ("codes", ["1.0"], ['"1.0"'], 60.5),
]
ROWS = [
    (learned, content_type, cell, right)
    for learned, spelled, typed, right in CELLS
    for content_type, cells in ((CSV, spelled), (JSON, typed))
    for cell in cells
]


@pytest.mark.parametrize(("learned", "content_type", "cell", "right"), ROWS)
def test_a_cell_is_the_learned_value_that_it_means(learned, content_type, cell, right):
    body = f"{cell},0.5\n" if content_type == CSV else f"[[{cell}, 0.5]]"
    alone = answers(line(learned), body, content_type)
    among = answers(
        line(learned),
        body * 2 if content_type == CSV else f"[{body[1:-1]}, {body[1:]}",
        content_type,
    )

    assert alone == pytest.approx([right])
    assert among == pytest.approx([right] * 2)


FILLED = [
    ("object bools", ["True", "true", "TRUE"], ["true", '"true"'], 10.5),
    ("object ints", ["1", "1.0", "01"], ["1", "1.0", '"1.0"'], 10.5),
    ("object floats", ["2", "2.0"], ["2", '"2"'], 20.5),
    ("small", ["2", "2.0"], ["2", "2.0"], 60.5),
    ("bools", ["false", "FALSE"], ["false"], 20.5),
]


@pytest.mark.parametrize(
    ("learned", "content_type", "cell", "right"),
    [
        (learned, content_type, cell, right)
        for learned, spelled, typed, right in FILLED
        for content_type, cells in ((CSV, spelled), (JSON, typed))
        for cell in cells
    ],
)
def test_an_imputer_before_the_encoder_changes_nothing(learned, content_type, cell, right):
    body = f"{cell},0.5,w\n" if content_type == CSV else f'[[{cell}, 0.5, "w"]]'

    assert answers(line(learned, "filled"), body, content_type) == pytest.approx([right])


# scikit-learn's own encoders learn no such mixture; those of other libraries do.
MIXED = Column.of_categories(np.array(["one", "2", 2, "True", True, "yes"], dtype=object))


@pytest.mark.parametrize(
    ("cell", "spelled", "right"),
    [
        ("one", True, "one"),
        ("yes", False, "yes"),
        ("2", False, "2"),
        ("2.0", True, 2),
        ("02", False, 2),
        (2, False, 2),
        (2.0, False, 2),
        ("True", False, "True"),
        ("true", True, True),
        ("TRUE", False, True),
        (True, False, True),
        ("3", True, "3"),
        (3, False, 3),
    ],
)
def test_a_column_of_words_numbers_and_bools_keeps_them_apart(cell, spelled, right):
    found = MIXED.learned(cell, spelled)

    assert (found, type(found)) == (right, type(right))


@pytest.mark.parametrize("cell", ["2", "True"])
def test_a_cell_of_csv_that_could_be_two_learned_values_is_refused(cell):
    schema = Schema(n_features=1, columns=(MIXED,), names=("key",))
    with pytest.raises(BadRequest) as refused:
        conform(Table([["one"], [cell]], spelled=True), schema)

    assert refused.value.message == (
        f"Row 2, column 'key': {cell!r} can be a text or another value; the model learned both."
    )


@pytest.mark.parametrize("cell", ["7", "7.0", "1_0", "one", "truth", "9" * 400, "9" * 5000, "inf"])
def test_an_unknown_cell_stays_unknown(cell):
    """It adds the mean of what the known ones add, which is none of theirs."""
    for learned in ("object ints", "big"):
        assert answers(line(learned), f"{cell},0.5\n", CSV) == pytest.approx([30.5])


@given(st.integers(-(2**70), 2**70))
def test_every_spelling_of_a_whole_number_means_that_number(number):
    for spelling in (str(number), f" {number} ", f"{number}.0", f"{number}e0"):
        assert meaning(spelling) == number


@given(st.floats(allow_nan=False))
def test_every_float_that_python_writes_means_that_float(number):
    column = Column.of_categories(np.array([number, "word"], dtype=object))

    assert column.learned(repr(number), spelled=True) == number


def test_whole_numbers_in_an_ordinal_encoder_are_exact():
    keys = LEARNED["big"]
    model = make_pipeline(
        make_column_transformer((OrdinalEncoder(), ["key"]), remainder="passthrough")
    ).fit(pd.DataFrame({"key": keys, "x": [0.0, 0.5, 1.0]}))
    of = EstimatorHandler.of(model, None, Config())

    assert answers(of, f"[[{BIG + 3}, 1], [{BIG + 1}, 0.5]]", JSON) == [[2.0, 1.0], [1.0, 0.5]]


@pytest.mark.parametrize("column", [NUMBER, TEXT, Column("text", missing=None, blank="")])
@given(cells=st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab_1. ")))
def test_cells_read_all_at_once_equal_those_read_one_by_one(column, cells):
    for spelled in (False, True):
        sent = [cell for cell in cells if isinstance(cell, str)] if spelled else cells
        at_once = outcome_of(sent, column, spelled)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("skserve.formats.cells._plainly", lambda *_: None)
            assert repr(at_once) == repr(outcome_of(sent, column, spelled))


def outcome_of(cells: list[Any], column: Column, spelled: bool) -> Any:
    try:
        rows = [[cell] for cell in cells]
        return converted(Table(rows, spelled=spelled), Schema(1), 0, column)
    except BadRequest as error:
        return str(error)


@given(
    lines=st.lists(
        st.lists(st.text("ab 1.,\u00e9_-", max_size=4), min_size=1, max_size=3).map(",".join),
        min_size=1,
        max_size=5,
    ),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
    width=st.integers(1, 4),
)
def test_columns_are_split_as_records_are(lines, end, last, width):
    data = (end.join(lines) + end * last).encode()
    try:
        expected = list(csv_tables._records(data, 0, Schema(n_features=width)))
    except BadRequest:  # a blank line
        expected = []
    found = csv_tables._columns(data, 0, width)

    alike = {len(row) for row in expected} == {width} and len(expected) > 1 < width
    assert (found is not None) == alike
    assert list(found or expected) == expected


def test_a_large_csv_names_the_row_and_column_that_do_not_fit():
    table = pd.DataFrame({"n": [0.0, 1.0], "w": pd.Series(["a", "b"], dtype=object)})
    model = make_column_transformer((SimpleImputer(), ["n"]), (OneHotEncoder(), ["w"])).fit(table)
    line = EstimatorHandler.of(
        make_pipeline(model, LinearRegression()).fit(table, [1, 2]), None, Config()
    )

    def said(body: str) -> str:
        with pytest.raises(BadRequest) as caught:
            line.decode(Call(body.encode(), CSV), None)
        return str(caught.value)

    assert "Row 3, column 'n': expected a number, got 'x'" in said("w,n\na,1\nb,\na,x\n")
    assert "Row 2 has 3 values, expected 2" in said("n,w\n1,a\n1,a,2\n")
    assert "Row 2 is a blank line" in said("n,w\n1,a\n\n2,b\n")
