"""One mixed row in plain Python: the arrays' answers to the last bit, and no work in vain."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from skserve.estimators.accelerate import accelerate, registry
from skserve.estimators.accelerate.blocks import NARROW
from skserve.estimators.accelerate.kernel import Declined, for_one
from skserve.estimators.drift import Learned
from skserve.estimators.frame import Frame
from skserve.estimators.methods import METHODS, find
from skserve.estimators.schema import Schema
from skserve.formats.conform import conform
from skserve.formats.table import Table
from tests.test_accelerate_columns import (
    MIXED,
    TABLE,
    fitted,
    kernels,
    outcome,
    same,
    some_rows,
)

# What takes a column of texts, bins, weights, or is a transformer itself, goes through arrays.
ARRAYS = {
    "a text beside numbers",
    "bins",
    "weights",
}
# Their numbers are one array, which BLAS multiplies: many rows in another order than one.
ONE_ARRAY = {"ordinal, infrequent", "target", "target of three"}
ALONE = sorted(MIXED.keys() - ARRAYS - {"a transformer", "a sparse transformer", "frames"})


def bits(answer: Any) -> Any:
    return answer.dtype, answer.shape, answer.tobytes()


# Where numbers are cast to float32, scikit-learn's own validation warns of huge ones.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("name", ALONE)
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_a_row_is_answered_to_the_last_bit_as_among_others(name, data):
    rows = some_rows(data, 6)
    for method, own, fast in kernels(fitted(name)):
        one = for_one(fast)
        for at in range(len(rows)):
            row = rows[at : at + 1]
            try:
                answer = one(row.cells)
            except Declined:
                continue
            except ValueError as error:  # scikit-learn itself was asked, and refuses
                assert same(str(error), outcome(own, row.plain())), method
                continue
            assert same(answer, outcome(own, row.plain())), method
            for beside, place in ((row, 0), (rows, at))[: 1 if name in ONE_ARRAY else 2]:
                with suppress(Declined, ValueError):  # for what is in another row
                    assert bits(answer) == bits(fast(beside)[place : place + 1]), method


@pytest.mark.parametrize("name", MIXED)
def test_what_takes_a_row_by_itself_is_known(name):
    row = Frame(
        [np.array([2.5]), np.array([0.5]), ["city 1"], ["x"], ["p"], ["good wine"]], list(TABLE), 1
    )
    for method, _, fast in kernels(fitted(name)):
        found = registry.alone_or_together(fast, method, row)
        assert (found is not fast) == (name in ALONE and method != "transform"), method


def wide(count: int) -> Any:
    """Fit a model of so many numbers and one column of words."""
    rng = np.random.default_rng(0)
    names = [f"n{at}" for at in range(count)]
    table = pd.DataFrame(rng.normal(size=(40, count)), columns=names)
    table["word"] = pd.Series(rng.choice(["a", "b"], 40), dtype=object)
    routes = [("n", StandardScaler(), names), ("w", OneHotEncoder(), ["word"])]
    model = make_pipeline(ColumnTransformer(routes), Ridge())
    return model.fit(table, rng.normal(size=40)), table


@pytest.mark.parametrize(("count", "taken"), [(NARROW, True), (NARROW + 1, False)])
def test_numbers_that_blas_adds_up_are_left_to_it(count, taken):
    model, table = wide(count)
    kernel = registry.kernel(model, "predict")
    cells = [np.array([cell]) for cell in table.iloc[0, :-1]]
    row = Frame([*cells, ["a"]], list(table), 1)

    assert (registry.alone_or_together(kernel, "predict", row) is not kernel) == taken


def test_a_way_that_is_wrong_for_one_row_is_not_used(monkeypatch, caplog):
    model, schema = fitted("words and numbers"), Schema.of(fitted("words and numbers"))
    monkeypatch.setattr(OneHotEncoder, "__module__", "sklearn.preprocessing._encoders")
    from skserve.estimators.accelerate.families import encoders

    right = encoders.OneHot.for_one

    def wrong(self: Any) -> Any:
        row = right(self)
        return lambda cells: row(cells)._replace(values=[2.0] * len(cells))

    monkeypatch.setattr(encoders.OneHot, "for_one", wrong)
    methods = {name: own for name in METHODS if (own := find(model, name)) is not None}

    assert "decision_function" not in accelerate(model, methods, schema)
    assert "differs from scikit-learn's" in caplog.text


json_cells = {
    "age": st.none() | st.floats(allow_nan=False) | st.integers(-9, 9) | st.booleans(),
    "size": st.none() | st.floats(allow_nan=False) | st.integers(-9, 9),
    "city": st.none() | st.sampled_from(["city 1", ""]),
    "kind": st.none() | st.sampled_from(["x", "007"]),
    "gap": st.none() | st.sampled_from(["p", "P"]),
    "note": st.just("good"),
}


@settings(max_examples=60, deadline=None)
@given(record=st.fixed_dictionaries(json_cells), spelled=st.booleans())
def test_a_lone_row_has_the_cells_and_counts_that_it_has_among_others(record, spelled):
    model = fitted("words and numbers")
    schema = Schema.of(model)
    row = [record[name] for name in TABLE]
    if spelled:
        row = ["" if cell is None else str(cell) for cell in row]

    def frame(rows: list[Any]) -> Frame:
        return conform(Table(rows, tuple(TABLE), spelled=spelled), schema)

    alone, twice = frame([row]), frame([row, row])
    assert str(list(alone.cells)) == str(list(twice[:1].cells))
    assert [type(one) for one in alone.columns] == [type(one) for one in twice.columns]
    learned = Learned(schema)
    nothing = [[0] * len(row)] * 3
    counts = learned.count(alone) or nothing
    assert [[2 * one for one in some] for some in counts] == (learned.count(twice) or nothing)


def test_limits_count_in_a_lone_row():
    table = pd.DataFrame({"n": [0.0, 1.0], "w": pd.Series(["a", "b"], dtype=object)})
    routes = [("n", MinMaxScaler(), ["n"]), ("w", OneHotEncoder(), ["w"])]
    model = ColumnTransformer(routes).fit(table)
    learned = Learned(Schema.of(model))

    def counted(*cells: Any) -> Any:
        return learned.count(Frame.of_row(cells, (False, True), ("n", "w")))

    assert counted(2.0, "c") == [[0, 0], [0, 1], [1, 0]]
    assert counted(float("nan"), None) == [[1, 1], [0, 0], [0, 0]]
    assert counted(0.5, "b") is None
