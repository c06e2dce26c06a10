"""What is learned of a fitted estimator, however it is wrapped."""

from __future__ import annotations

import csv
import io
import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.ensemble import (
    BaggingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC

from skserve.errors import BadRequest
from skserve.estimators.columns import Column
from skserve.estimators.frame import plain
from skserve.estimators.methods import find, named
from skserve.estimators.schema import Schema
from skserve.formats.conform import conform as framed
from skserve.formats.table import Table


def conform(table: Table, schema: Schema) -> Any:
    """Return X as scikit-learn takes it."""
    return plain(framed(table, schema))


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

    assert kinds(Schema.of(model)) == ["text", "any"]


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
        "source": "model",
        "values": ("Lima", "Oslo", "Rome"),
    }
    assert described["classes"] == (0, 1)
    example = described["example"]["body"]
    named(model.predict, Schema.of(model).names)(conform(Table(example), Schema.of(model)))


@pytest.mark.parametrize(
    ("learned", "kind"),
    [
        (np.array([1, 2, 3]), "number"),
        (np.array([1.5, np.nan]), "number"),
        (np.array([True, False]), "number"),
        (np.array(["1", "2"]), "text"),
        (np.array([1, 2, None], dtype=object), "text"),
        (np.array([2**53, 2**53 + 1]), "text"),
        (np.array(["2026-01-01"], dtype="datetime64[ns]"), "date"),
    ],
    ids=str,
)
def test_the_categories_decide_the_kind(learned, kind):
    assert Column.of_categories(learned).kind == kind


RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "a": RNG.normal(size=60).round(3),
        "b": RNG.normal(size=60).round(3),
        "zip": RNG.choice(["01234", "1234", "99"], 60),
        "city": RNG.choice(["Rome", "", "Oslo"], 60),
        "k": RNG.choice([1, 2, 3], 60),
        "huge": RNG.choice([2**53, 2**53 + 1, 2**53 + 3], 60),
        "boxed": pd.Series(RNG.choice([10, 20], 60), dtype=object),
    }
)
TARGET = (
    TABLE["a"] - 2 * TABLE["b"] + TABLE["zip"].map({"01234": 5.0, "1234": -5.0, "99": 0.0})
    + TABLE["city"].map({"Rome": 3.0, "": -3.0, "Oslo": 0.0})
    + (TABLE["huge"] - 2**53) + 7 * (TABLE["boxed"] == 10)
)  # fmt: skip
SCALE, HOT = StandardScaler, lambda: OneHotEncoder(handle_unknown="ignore")
CODES = ["zip", "city", "huge", "boxed"]


def ct(*routes, **options):
    return ColumnTransformer([(str(i), *one) for i, one in enumerate(routes)], **options)


def full():
    return ct((SCALE(), ["a", "b"]), (HOT(), CODES))


def add_sum(frame):
    return frame.assign(sum=frame["a"] + frame["b"])


class Plain(BaseEstimator, TransformerMixin):
    """A user's transformer that records nothing of what it was fitted on."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


def R(*steps):  # noqa: N802
    return make_pipeline(*steps, LinearRegression())


NUMBERS = ["a", "b", "k"]


def first_only():
    return R(ct((SCALE(), ["a"])))


def imputed():
    return make_pipeline(SimpleImputer(strategy="most_frequent"), HOT())


def steps(*ones):
    return Pipeline([(str(place), one) for place, one in enumerate(ones)])


PASS = "passthrough"
CITY, ZIP, TEXTS = ["city"], ["zip"], ["zip", "city"]
# A frame's columns (all, where None) and a model of them.
WRAPPED = {
    "routes": (None, lambda: R(full())),
    "voting over parts": (
        NUMBERS,
        lambda: VotingRegressor([("n", first_only()), ("h", HistGradientBoostingRegressor())]),
    ),
    "voting over text": (
        None,
        lambda: VotingRegressor([("n", first_only()), ("t", R(full()))]),
    ),
    "stacking": (
        NUMBERS,
        lambda: StackingRegressor([("n", first_only()), ("m", LinearRegression())]),
    ),
    "nested routes": (
        NUMBERS,
        lambda: R(ct((ct((SCALE(), ["a"])), ["a", "b"]), (PASS, ["b", "k"]))),
    ),
    "nested names": (
        None,
        lambda: R(ct((SCALE(), ["a", "b"]), (ct((HOT(), ZIP), (HOT(), CITY)), TEXTS))),
    ),
    "nested, other order": (
        ["k", "city", "zip", "a"],
        lambda: R(ct((ct((HOT(), CITY), (SCALE(), ["k"])), ["city", "k"]), (SCALE(), ["a"]))),
    ),
    "union of routes": (
        None,
        lambda: R(FeatureUnion([("n", ct((SCALE(), ["a"]))), ("t", ct((HOT(), CODES)))])),
    ),
    "union of encoders": (
        TEXTS,
        lambda: R(FeatureUnion([("a", HOT()), ("b", OneHotEncoder())])),
    ),
    "function first": (
        None,
        lambda: R(FunctionTransformer(add_sum), ct((SCALE(), ["a", "sum"]), (HOT(), CODES))),
    ),
    "nothing first": (None, lambda: steps(PASS, full(), LinearRegression())),
    "nothing before a model": (NUMBERS, lambda: steps(PASS, LinearRegression())),
    "search over steps": (
        NUMBERS,
        lambda: GridSearchCV(steps(SCALE(), LinearRegression()), {"0": [PASS]}),
    ),
    "function in a route": (
        None,
        lambda: R(ct((make_pipeline(FunctionTransformer(), HOT()), CODES))),
    ),
    "imputer in a route": (None, lambda: R(ct((imputed(), TEXTS)))),
    "remainder estimator": (["zip", "a"], lambda: R(ct((HOT(), ZIP), remainder=SCALE()))),
    "bagging": (NUMBERS, lambda: BaggingRegressor(LinearRegression(), 3, max_features=2)),
    "target": (None, lambda: TransformedTargetRegressor(R(full()))),
    "pandas out": (None, lambda: R(full().set_params(sparse_threshold=0))),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_served_answer_is_the_models_own(name):
    """Rows as CSV without a header, as records in another order, and one by one."""
    chosen, build = WRAPPED[name]
    frame = TABLE if chosen is None else TABLE[chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build().fit(frame, TARGET)
        expected = model.predict(frame)
    schema = Schema.of(model)
    rows = json.loads(frame.to_json(orient="values"))
    spelled = list(csv.reader(io.StringIO(frame.to_csv(index=False, header=False))))
    turned = frame[frame.columns[::-1]]
    records = Table(json.loads(turned.to_json(orient="values")), tuple(turned.columns))

    for table in (Table(rows), Table(spelled, spelled=True), records):
        assert named(model.predict, schema.names)(conform(table, schema)) == pytest.approx(expected)
    assert named(model.predict, schema.names)(conform(Table(rows[:1]), schema)) == pytest.approx(
        expected[:1]
    )


def test_a_calibrated_pipeline_learns_from_the_fitted_copies():
    model = CalibratedClassifierCV(make_pipeline(full(), LogisticRegression()), cv=2)
    model.fit(TABLE, TARGET > 0)

    X = conform(Table(json.loads(TABLE.to_json(orient="values"))), Schema.of(model))

    assert (named(model.predict, Schema.of(model).names)(X) == model.predict(TABLE)).all()


def test_columns_in_another_order_make_rows_that_the_fast_paths_take():
    X = conform(Table(np.array([[2.0, 1.0], [4.0, 3.0]]), ("b", "a")), Schema(2, ("a", "b")))

    assert X.flags.c_contiguous
    assert X.tolist() == [[1, 2], [3, 4]]


def test_names_that_cannot_be_matched_are_refused():
    model = R(StandardScaler()).fit(TABLE[NUMBERS].to_numpy(), TARGET)

    with pytest.raises(BadRequest, match="fitted without names"):
        conform(Table([[1.0, 2.0, 3.0]], ("k", "b", "a")), Schema.of(model))


def test_names_are_handed_on_to_a_step_that_does_not_say_its_own():
    model = R(Plain()).fit(TABLE[NUMBERS], TARGET)
    schema = Schema.of(model)

    assert schema.n_features is None
    X = conform(Table([[1.0, 2.0, 3.0]], ("k", "b", "a")), schema)
    assert X.to_dict("records") == [{"k": 1.0, "b": 2.0, "a": 3.0}]


def test_a_text_pipeline_may_begin_with_a_function():
    model = make_pipeline(FunctionTransformer(lower), CountVectorizer(), LogisticRegression())
    model.fit(["RED wine", "WHITE wine"] * 5, [0, 1] * 5)

    assert Schema.of(model).text


def lower(texts):
    return [text.lower() for text in texts]


@pytest.mark.parametrize(("missing", "cell"), [("", ""), (None, ""), (np.nan, ""), (pd.NA, "")])
def test_an_imputer_meets_what_it_calls_missing(missing, cell):
    X = np.array([["x"], ["x"], ["y"], [missing]], dtype=object)
    imputer = SimpleImputer(missing_values=missing, strategy="most_frequent")
    model = R(imputer, OneHotEncoder()).fit(X, [1.0, 1.0, 5.0, 1.0])

    served = conform(Table([[cell], ["y"]], spelled=True), Schema.of(model))

    assert named(model.predict, Schema.of(model).names)(served) == pytest.approx([1.0, 5.0])


DATES = pd.DataFrame({"d": pd.to_datetime(["2026-01-01 00:00", "2026-01-02 12:30"] * 3)})


@pytest.mark.parametrize(
    "cell",
    ["2026-01-02 12:30", "2026-01-02T12:30:00", "2026-01-02T13:30:00+01:00", 1767357000000],
)
def test_a_date_is_one_of_those_that_an_encoder_learned(cell):
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(DATES)

    X = plain(framed(Table([[cell], [None]]), Schema.of(encoder)))

    assert encoder.transform(X).tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize("cell", ["02/01/2026", "soon", True, ["2026-01-01"], ""])
def test_what_is_no_date_is_named(cell):
    schema = Schema.of(OneHotEncoder().fit(DATES))

    with pytest.raises(BadRequest, match="column 'd': expected a date, got") as raised:
        conform(Table([[cell]]), schema)
    assert "2024-01-31" in raised.value.hint


def test_truth_is_a_number_where_numbers_were_learned():
    model = R(SCALE()).fit(pd.DataFrame({"f": [True, False] * 5}), [1.0, 0.0] * 5)

    X = conform(Table([["True"], ["False"], ["1"]], spelled=True), Schema.of(model))

    assert X.tolist() == [[1.0], [0.0], [1.0]]
