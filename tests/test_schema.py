"""What is learned of a fitted estimator, however it is wrapped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC

from skserve.methods import find
from skserve.schema import Column, Schema
from skserve.table import Table, conform

FRAME = pd.DataFrame(
    {
        "city": ["Rome", "Oslo", "Rome", "Lima"] * 5,
        "level": [1, 2, 3, 2] * 5,
        "age": [20.0, 30.5, np.nan, 50.0] * 5,
        "note": ["a", "b", "c", "d"] * 5,
        "flag": pd.Series([True, False, None, True] * 5, dtype=object),
    }
)
Y = [0, 1, 0, 1] * 5
ENCODED = ColumnTransformer(
    [
        ("city", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["city"]),
        ("level", OneHotEncoder(), ["level"]),
        ("age", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
        ("flag", OrdinalEncoder(), ["flag"]),
    ]
)


def kinds(schema: Schema) -> list[str]:
    return [column.kind for column in schema.columns]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda pipe: pipe,
        lambda pipe: GridSearchCV(pipe, {"logisticregression__C": [1.0, 2.0]}, cv=2),
        lambda pipe: CalibratedClassifierCV(pipe, cv=2),
        lambda pipe: VotingClassifier([("a", pipe)]),
        lambda pipe: make_pipeline(FunctionTransformer(), pipe),
    ],
    ids=["pipeline", "search", "calibrated", "voting", "nested"],
)
def test_column_kinds_are_found_through_wrappers(wrap):
    model = wrap(make_pipeline(ENCODED, LogisticRegression())).fit(FRAME, Y)

    schema = Schema.of(model)

    if not isinstance(model, type(make_pipeline(None))) or len(model.steps) == 2:
        assert schema.names == tuple(FRAME.columns)
    assert kinds(schema) == ["text", "number", "number", "unused", "text"]


def test_values_that_are_not_text_keep_their_meaning():
    model = make_pipeline(ENCODED, LogisticRegression()).fit(FRAME, Y)
    schema = Schema.of(model)

    spelled = conform(Table([["Rome", "2", "", "x", "True"]], spelled=True), schema)
    parsed = conform(Table([["Rome", 2, None, 5, True]]), schema)

    assert spelled["flag"].tolist() == parsed["flag"].tolist() == [True]
    assert model.predict(spelled) == model.predict(parsed)


def test_a_selector_and_a_scalar_column_are_resolved():
    columns = ColumnTransformer(
        [
            ("words", CountVectorizer(), "note2"),
            ("numbers", StandardScaler(), make_column_selector(dtype_include=np.number)),
        ],
        remainder="drop",
    )
    frame = FRAME[["level", "city"]].assign(note2=["red wine", "white", "red", "rose wine"] * 5)
    model = make_pipeline(columns, LogisticRegression()).fit(frame, Y)

    assert kinds(Schema.of(model)) == ["number", "unused", "text"]


@pytest.mark.parametrize(
    "columns", [[0], slice(0, 1), [True, False], np.array([0]), slice("a", "a")]
)
def test_every_way_to_name_columns_is_resolved(columns):
    X = pd.DataFrame({"a": ["x", "y"] * 5, "b": [1.0, 2.0] * 5})
    model = ColumnTransformer([("t", OneHotEncoder(), columns)], remainder="passthrough").fit(X)

    assert kinds(Schema.of(model)) == ["text", "number"]


def test_gradient_boosting_keeps_its_own_categories():
    X = pd.DataFrame({"c": pd.Categorical(["u", "v"] * 20), "n": np.arange(40.0)})
    model = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=2).fit(X, [0, 1] * 20)
    schema = Schema.of(model)

    X2 = conform(Table([["u", 1.0], ["v", 2.0], ["u", 3.0]]), schema)

    assert kinds(schema) == ["text", "number"]
    assert model.predict(X2).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "first", [CountVectorizer(), TfidfVectorizer(), HashingVectorizer(n_features=16)]
)
def test_a_text_model_takes_strings(first):
    documents = ["red wine", "white wine"] * 5
    alone = first.fit(documents)
    piped = make_pipeline(FeatureUnion([("a", first)]), LogisticRegression()).fit(
        documents, [0, 1] * 5
    )

    assert Schema.of(alone).text
    assert Schema.of(piped).text
    assert conform(Table([["red"], ["white"]]), Schema.of(piped)) == ["red", "white"]


def test_methods_are_those_that_the_model_has():
    X, y = np.random.default_rng(0).normal(size=(20, 2)), Y
    assert Schema.of(SVC().fit(X, y)).methods == ("predict", "decision_function")
    assert Schema.of(StandardScaler().fit(X)).methods == ("transform",)
    assert Schema.of(NearestNeighbors().fit(X)).methods == ("kneighbors",)
    assert Schema.of(KNeighborsClassifier().fit(X, y)).methods[0] == "predict"
    many = MultiOutputClassifier(LogisticRegression()).fit(X, np.c_[y, y])
    assert Schema.of(many).methods[:2] == ("predict", "predict_proba")


def test_a_pipeline_hands_on_the_methods_of_its_last_step():
    X = np.random.default_rng(0).normal(size=(20, 2))
    model = make_pipeline(StandardScaler(), NearestNeighbors(n_neighbors=2)).fit(X)

    distances, indices = find(model, "kneighbors")(X[:3])

    assert indices[:, 0].tolist() == [0, 1, 2]
    assert Schema.of(model).methods == ("kneighbors",)


def test_an_object_that_fails_to_say_is_asked_no_further():
    class Sulky:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    assert Schema.of(Sulky()) == Schema()
    assert Schema.of({"model": 1}) == Schema()


def test_a_schema_describes_itself():
    model = make_pipeline(ENCODED, LogisticRegression()).fit(FRAME, Y)
    described = Schema.of(model).describe()

    assert described["columns"][0] == {
        "name": "city",
        "type": "text",
        "values": ("Lima", "Oslo", "Rome"),
    }
    assert described["classes"] == (0, 1)
    example = described["example"]["body"]
    model.predict(conform(Table(example), Schema.of(model)))


def test_numbers_kept_as_objects_are_numbers():
    assert Column.of_categories(np.array([1, 2, None], dtype=object)).kind == "number"
    assert Column.of_categories(np.array([True, False])).kind == "number"
    assert Column.of_categories(np.array(["1", "2"])).kind == "text"
