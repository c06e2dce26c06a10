"""Categories of CatBoost, which keeps hashes: it is asked for the spelling that it learned."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skserve.config import Config
from skserve.errors import BadRequest
from skserve.estimators.columns import Ambiguous
from skserve.estimators.labels import Labels
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler


class Leaves:
    """Falls into other leaves for the labels that it knows, in the second of its three columns."""

    def __init__(self, *known, importance=1.0):
        self.known, self.importance = known, importance
        self.asked = []

    def calc_leaf_indexes(self, rows, thread_count):
        ((_, label, other),) = rows
        assert other == "kept"
        self.asked.append(label)
        return np.array([[1 + self.known.index(label) if label in self.known else 0]])

    def get_feature_importance(self, **options):
        return np.array([0.0, self.importance, 0.0])


@pytest.mark.parametrize(
    ("known", "cell", "label"),
    [
        (["1"], "True", "1"),
        (["0"], "True", "1"),
        (["false"], "True", "true"),
        (["false"], "true", "true"),
        (["False"], True, "True"),
        (["1"], "true", "1"),
        (["0"], "FALSE", "0"),
        (["1"], True, "1"),
        (["True"], "True", "True"),
        (["True"], "true", "True"),
        (["True"], True, "True"),
        (["true"], "TRUE", "true"),
        (["1", "True"], "True", "True"),
        (["12"], "12.0", "12"),
        (["12"], "012", "12"),
        (["12"], 12.0, "12"),
        (["12.0"], 12.0, "12.0"),
        (["12.0"], "12.00", "12.0"),
        (["012", "12"], "012", "012"),
        (["1.5"], 1.5, "1.5"),
        (["north"], "12.0", "12.0"),
        (["north"], 12.0, 12),
        (["north"], 12, 12),
        (["north"], "north", "north"),
        (["north"], "west", "west"),
        (["nan"], "nan", "nan"),
    ],
)
@pytest.mark.parametrize("spelled", [True, False])
def test_the_category_that_a_cell_means_is_the_one_that_the_model_knows(
    known, cell, label, spelled
):
    found = Labels(Leaves(*known), [0.0, "", "kept"], 1).of(cell, spelled and type(cell) is str)

    assert (found, type(found)) == (label, type(label))


def test_a_word_for_a_bool_in_csv_is_refused_where_the_model_does_not_tell_what_it_learned():
    labels = Labels(Leaves("north"), [0.0, "", "kept"], 1)

    with pytest.raises(Ambiguous, match="keeps hashes"):
        labels.of("True", True)
    assert labels.of("True", False) == "True"
    assert labels.of(True, False) is True


def test_a_column_on_which_no_answer_depends_takes_any_word():
    assert Labels(Leaves(importance=0.0), [0.0, "", "kept"], 1).of("True", True) == "True"


def test_a_model_is_asked_once_for_a_category():
    model = Leaves("1")
    labels = Labels(model, [0.0, "", "kept"], 1)

    assert [labels.of("TRUE", True) for _ in range(3)] == ["1"] * 3
    assert len(model.asked) == len(set(model.asked))


# ------------------------------------------------------------------------- CatBoost itself

# In the soak, where catboost is installed: with what it needs it weighs more than 350 MB.

ROWS = 240
RNG = np.random.default_rng(3)
BOOLS = RNG.random(ROWS) > 0.5
WARDS = RNG.choice(["north", "south", "west"], ROWS)
TARGET = 3 * BOOLS + (WARDS == "north") + RNG.random(ROWS) / 10

COLUMNS = {
    "bools": BOOLS,
    "bools as objects": BOOLS.astype(object),
    "bools as texts": np.where(BOOLS, "True", "False"),
    "bools as small texts": np.where(BOOLS, "true", "false"),
    "whole numbers": np.where(BOOLS, 12, 7),
    "fractions as texts": np.where(BOOLS, "12.0", "7.0"),
    "postcodes": np.where(BOOLS, "01234", "90210"),
    "many whole numbers": np.where(BOOLS, RNG.integers(0, 9, ROWS), RNG.integers(10, 19, ROWS)),
}

FITS = {
    "one-hot": {"one_hot_max_size": 20},
    "counted": {"one_hot_max_size": 1, "max_ctr_complexity": 1},
    "by default": {},
}


FRAME = pd.DataFrame({"n": RNG.random(ROWS), "a": BOOLS, "ward": WARDS})


def fitted(cells, options):
    catboost = pytest.importorskip("catboost")
    frame = pd.DataFrame({"n": RNG.random(ROWS), "a": cells, "ward": WARDS})
    model = catboost.CatBoostRegressor(
        iterations=20, verbose=False, thread_count=1, allow_writing_files=False, **options
    )
    return frame, model.fit(frame, TARGET, cat_features=["a", "ward"])


def served(model):
    handler = EstimatorHandler.of(model, None, Config())

    def ask(body, content_type):
        call = Call(body.encode(), content_type)
        return list(handler.predict(handler.decode(call, None), None).rows())

    return ask


@pytest.mark.soak
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", COLUMNS)
def test_a_body_is_answered_as_catboost_answers_its_frame(name, fit):
    frame, model = fitted(COLUMNS[name], FITS[fit])
    ask, frame = served(model), frame[:24]
    expected = model.predict(frame)

    assert ask(frame.to_csv(index=False), "text/csv") == pytest.approx(expected)
    assert ask(frame.to_json(orient="records", double_precision=15), "application/json") == (
        pytest.approx(expected)
    )
    if name == "bools":
        smaller = frame.to_csv(index=False).replace("True", "true").replace("False", "false")
        assert ask(smaller, "text/csv") == pytest.approx(expected)
        texts = json.dumps(frame.assign(a=frame.a.astype(str)).to_dict("records"))
        assert ask(texts, "application/json") == pytest.approx(expected)


class Holder:
    """A class of the user's own around a model."""

    def __init__(self, model):
        self.model = model

    def predict(self, X):
        return self.model.predict(X)


@pytest.mark.soak
@pytest.mark.parametrize("around", [
    lambda model: Pipeline([("same", FunctionTransformer(type_kept).fit(FRAME)), ("model", model)]),
    Holder,
])  # fmt: skip
def test_a_step_before_catboost_is_given_the_bool_that_it_was_fitted_on(around):
    frame, model = fitted(BOOLS, {})
    ask, frame = served(around(model)), frame[:24]

    found = ask(frame.to_csv(index=False), "text/csv; header=present")
    assert found == pytest.approx(model.predict(frame))


def type_kept(X):
    assert X.a.dtype == bool
    return X


@pytest.mark.soak
def test_a_category_that_catboost_counts_only_beside_another_is_refused_without_blame():
    catboost = pytest.importorskip("catboost")
    wards = np.resize(["north", "north", "south", "south"], ROWS)
    frame = pd.DataFrame({"a": np.resize([True, False], ROWS), "ward": wards})
    target = frame.a ^ (frame.ward == "north")
    model = catboost.CatBoostClassifier(
        iterations=5, depth=2, verbose=False, thread_count=1, allow_writing_files=False,
        one_hot_max_size=1, max_ctr_complexity=2, random_seed=1,
    ).fit(frame, target, cat_features=["a", "ward"])  # fmt: skip
    ask = served(model)
    importance = model.get_feature_importance()
    assert importance.min() > 0, importance

    with pytest.raises(BadRequest, match="keeps hashes of its categories") as refused:
        ask("a,ward\nTrue,north\n", "text/csv")
    assert "deploy.py pack --example" in refused.value.hint
    assert ask('[[true, "north"]]', "application/json") == model.predict(frame[:1].assign(
        a=True, ward="north")).tolist()  # fmt: skip
