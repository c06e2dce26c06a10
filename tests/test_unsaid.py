"""Columns whose type the fitted model does not say: what is sent is what the model gets.

Each model answers a table as it answers the DataFrame itself, in every form a body can have, all
rows together and each row alone.
"""

from __future__ import annotations

import json
from functools import cache

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import TruncatedSVD
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from skserve.config import Config
from skserve.errors import BadRequest
from skserve.estimators.schema import Schema
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "ward": RNG.choice(["north", "south"], 60),
        "age": RNG.integers(1, 80, 60) / 2,
        "zip": RNG.choice(["01234", "90210"], 60),
        "beds": RNG.integers(1, 4, 60),
        "seen": RNG.choice(["2024-01-31", "2024-02-01", "2023-12-24"], 60),
        "open": RNG.random(60) > 0.5,
    }
)
TARGET = (
    FRAME.age / 10
    + 5 * (FRAME.ward == "north")
    + 3 * (FRAME.zip == "90210")
    + FRAME.beds
    + (FRAME.seen > "2024")
    + FRAME.open
)
GAPS = FRAME.assign(age=FRAME.age.where(FRAME.age > 5))


class Columns(TransformerMixin, BaseEstimator):
    """Picks columns by name, and records nothing of X."""

    def __init__(self, names):
        self.names = names

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X[self.names]


class Lowercase(TransformerMixin, BaseEstimator):
    """Cleans texts."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return [text.lower() for text in X]


class Months(TransformerMixin, BaseEstimator):
    """Takes dates apart."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return pd.to_datetime(X.iloc[:, 0]).dt.month.to_frame()


class Means(TransformerMixin, BaseEstimator):
    """Encodes words by the mean of the target, as other libraries' encoders do."""

    def fit(self, X, y):
        self.n_features_in_, self.feature_names_in_ = X.shape[1], np.array(X.columns, object)
        self.means_ = {name: y.groupby(X[name]).mean().to_dict() for name in X}
        return self

    def transform(self, X):
        return np.stack([X[name].map(self.means_[name]).fillna(0) for name in X], axis=1)


class Rule(ClassifierMixin, BaseEstimator):
    """A model that is rules alone."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return ((X["ward"] == "north") & (X["age"] > 10)).astype(int).to_numpy()


class ByName(StandardScaler):
    """One of scikit-learn's own that reads X in another way."""

    def fit(self, X, y=None):
        return super().fit(X[["age"]].assign(ward=0.0), y)

    def transform(self, X):
        return np.stack([X["age"], X["ward"] == "north"], axis=1).astype(float)


class Stripped(TransformerMixin, BaseEstimator):
    """Cleans a Series of texts."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X.apply(str.strip)


def lower_series(X):
    return X.str.lower()


def lower_array(X):
    return np.array([text.lower() for text in X.reshape(-1)])


def lower_by_place(X):
    return [X[at].lower() for at in range(len(X))]


def lengths(frame):
    return frame.map(len)


def share(frame):
    return frame.assign(share=frame.age / frame.beds)


def same(X):
    return X


def hot(**options):
    return OneHotEncoder(handle_unknown="ignore", **options)


def fill(*columns):
    return make_column_transformer((SimpleImputer(), list(columns)), remainder="passthrough")


def passed(*columns):
    return ("keep", "passthrough", list(columns))


def pandas_out(step, **options):
    return step.set_output(transform="pandas").set_params(**options)


def linear(*steps):
    return make_pipeline(*steps, LinearRegression())


WARD, ZIP, AGE = "ward", "zip", "age"
CODED = {"verbose_feature_names_out": False}

MODELS = {
    "passed on, encoded by its place": (
        [WARD, AGE],
        lambda: linear(fill(AGE), make_column_transformer((hot(), [1]), remainder="passthrough")),
    ),
    "passed on, encoded by a prefixed name": (
        [WARD, AGE],
        lambda: linear(
            pandas_out(fill(AGE)),
            make_column_transformer((hot(), ["remainder__ward"]), remainder="passthrough"),
        ),
    ),
    "passed on twice": (
        [WARD, ZIP, AGE],
        lambda: linear(
            fill(AGE), fill(0), make_column_transformer((hot(), [1, 2]), remainder="passthrough")
        ),
    ),
    "passed on by a nested pipeline": (
        [WARD, AGE],
        lambda: linear(
            make_column_transformer(
                (SimpleImputer(), [AGE]),
                (make_pipeline("passthrough", FunctionTransformer()), [WARD]),
            ),
            make_column_transformer((hot(), [1]), remainder="passthrough"),
        ),
    ),
    "postcodes passed on": (
        [ZIP, AGE],
        lambda: linear(fill(AGE), make_column_transformer((hot(), [1]), remainder="passthrough")),
    ),
    "imputed words passed on": (
        [WARD, AGE],
        lambda: linear(
            make_column_transformer(
                (SimpleImputer(strategy="most_frequent"), [WARD]), (SimpleImputer(), [AGE])
            ),
            make_column_transformer((hot(), [0]), remainder="passthrough"),
        ),
    ),
    "all passed on, in other places": (
        [AGE, "beds", WARD],
        lambda: linear(
            ColumnTransformer([("w", "passthrough", [2]), ("n", "passthrough", [0, 1])]),
            make_column_transformer((hot(), [0]), remainder="passthrough"),
        ),
    ),
    "numbers passed on": ([AGE, "beds"], lambda: linear(fill(AGE))),
    "a function of text in a route": (
        [WARD, AGE],
        lambda: linear(
            make_column_transformer((FunctionTransformer(lengths), [WARD]), remainder="passthrough")
        ),
    ),
    "a function of all columns": (
        [WARD, ZIP, AGE, "beds"],
        lambda: linear(
            FunctionTransformer(share),
            make_column_transformer((hot(), [WARD, ZIP]), remainder="passthrough"),
        ),
    ),
    "a ufunc of a column": (
        [WARD, AGE],
        lambda: linear(
            make_column_transformer(
                (FunctionTransformer(np.log1p, feature_names_out="one-to-one"), [AGE]),
                (hot(), [WARD]),
            )
        ),
    ),
    "columns picked by a class": (
        [ZIP, WARD, AGE],
        lambda: linear(
            Columns([WARD, AGE]), make_column_transformer((hot(), [WARD]), remainder="passthrough")
        ),
    ),
    "a union of picked columns": (
        [WARD, ZIP, AGE],
        lambda: linear(
            FeatureUnion(
                [
                    ("w", make_pipeline(Columns([WARD, ZIP]), hot())),
                    ("n", make_pipeline(Columns([AGE]), StandardScaler())),
                ]
            )
        ),
    ),
    "a text picked by a class": (
        [WARD, AGE],
        lambda: linear(
            FeatureUnion(
                [
                    ("w", make_pipeline(Columns(WARD), CountVectorizer())),
                    ("n", make_pipeline(Columns([AGE]), StandardScaler())),
                ]
            )
        ),
    ),
    "dates taken apart": (
        ["seen", AGE],
        lambda: linear(make_column_transformer((Months(), ["seen"]), remainder="passthrough")),
    ),
    "another library's encoder": ([WARD, "beds"], lambda: linear(Means())),
    "another library's encoder in a route": (
        [WARD, AGE],
        lambda: linear(make_column_transformer((Means(), [WARD]), remainder="passthrough")),
    ),
    "a search over a class": (
        [WARD, AGE],
        lambda: GridSearchCV(
            linear(
                Columns([WARD, AGE]), make_column_transformer((hot(), [WARD]), remainder="drop")
            ),
            {"linearregression__fit_intercept": [True, False]},
            cv=2,
        ),
    ),
    "scikit-learn's own, read otherwise": ([AGE, WARD], lambda: linear(ByName())),
    "a model of rules": ([WARD, AGE], Rule),
    "bools passed on": (
        ["open", WARD],
        lambda: linear(
            make_column_transformer((hot(), [WARD]), ("passthrough", ["open"])),
        ),
    ),
    "words ordered, then passed on": (
        [WARD, AGE],
        lambda: linear(
            pandas_out(
                make_column_transformer((OrdinalEncoder(), [WARD]), remainder="passthrough"),
                **CODED,
            ),
            make_column_transformer((hot(), [WARD]), remainder="passthrough"),
        ),
    ),
}


def served(model):
    handler = EstimatorHandler.of(model, None, Config())

    def ask(body, content_type="application/json"):
        body = body if isinstance(body, str) else json.dumps(body)
        call = Call(body.encode(), content_type)
        return list(handler.predict(handler.decode(call, None), None).rows())

    return ask


@pytest.fixture(scope="module")
def fitted():
    return {
        name: (FRAME[columns], build().fit(FRAME[columns], TARGET.round().astype(int)))
        for name, (columns, build) in MODELS.items()
    }


def records(ask, frame):
    return ask(frame.to_json(orient="records"))


def split(ask, frame):
    return ask(frame.to_json(orient="split"))


def csv_with_header(ask, frame):
    return ask(frame.to_csv(index=False), "text/csv; header=present")


def records_alone(ask, frame):
    return [one for at in range(8) for one in records(ask, frame.iloc[at : at + 1])]


def csv_alone(ask, frame):
    return [one for at in range(8) for one in csv_with_header(ask, frame.iloc[at : at + 1])]


def lines(ask, frame):
    return ask(frame.to_json(orient="records", lines=True), "application/jsonlines")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", [records, split, csv_with_header, records_alone, csv_alone, lines])
def test_a_table_is_answered_as_the_model_answers_it(fitted, name, form):
    frame, model = fitted[name]

    found = form(served(model), frame)

    assert found == pytest.approx(model.predict(frame)[: len(found)], rel=1e-12)


class Coded(TransformerMixin, BaseEstimator):
    """Keeps what it learned as category_encoders does: a list of columns, in an inner encoder."""

    def fit(self, X, y=None):
        self.n_features_in_, self.feature_names_in_ = X.shape[1], np.array(X.columns, object)
        values = {name: list(dict.fromkeys(X[name])) for name in X}
        self.mapping = [
            {"col": name, "mapping": pd.Series(range(len(kept)), kept)}
            for name, kept in values.items()
        ]
        return self

    def transform(self, X):
        known = {one["col"]: one["mapping"] for one in self.mapping}
        found = {
            name: [float(known[name].get(cell, -1)) for cell in X[name].tolist()] for name in X
        }
        return pd.DataFrame(found)


class Outer(Coded):
    """Numbers the codes of an inner encoder."""

    def fit(self, X, y):
        self.inner = Coded().fit(X)
        self.n_features_in_, self.feature_names_in_ = X.shape[1], np.array(X.columns, object)
        codes = self.inner.transform(X)
        self.mapping = {name: y.groupby(codes[name]).mean() for name in codes}
        return self

    def transform(self, X):
        codes = self.inner.transform(X)
        return np.stack([codes[name].map(self.mapping[name]).fillna(-9) for name in X], axis=1)


TOLD_APART = {
    "numerals": ["1", "2", "30"],
    "postcodes": ["01234", "90210", "1e5"],
    "truth words": ["true", "false", "x"],
    "bools": pd.Series([True, False, True], dtype=object),
    "words and a numeral": ["north", "7", "south"],
    "whole numbers": [1, 2, 30],
}


@pytest.mark.parametrize("step", [Coded, Outer, Means])
@pytest.mark.parametrize("name", TOLD_APART)
def test_what_an_encoder_of_others_keeps_tells_how_csv_spells_it(step, name):
    frame = pd.DataFrame({"a": list(TOLD_APART[name]) * 20, "n": FRAME.age.round()})
    frame["a"] = frame["a"].astype(pd.Series(TOLD_APART[name]).dtype)
    model = make_pipeline(step(), LinearRegression()).fit(frame, TARGET)

    ask = served(model)
    for form in (records, csv_with_header, csv_alone, lines):
        found = form(ask, frame)
        assert found == pytest.approx(model.predict(frame)[: len(found)])


@pytest.mark.parametrize(
    "name", [name for name in MODELS if not {"picked", "rules", "search"} & set(name.split())]
)
def test_rows_without_names_are_matched_where_the_model_knows_its_own(fitted, name):
    frame, model = fitted[name]
    assert Schema.of(model).names
    ask = served(model)

    assert ask(frame.to_json(orient="values")) == pytest.approx(model.predict(frame))
    plain = ask(frame.to_csv(index=False, header=False), "text/csv")
    assert plain == pytest.approx(model.predict(frame))


# ------------------------------------------------------------- what classes keep of their columns


class Shares(TransformerMixin, BaseEstimator):
    """Encodes values by how often they occur, and keeps no names but those of its dict."""

    def fit(self, X, y=None):
        self.shares_ = {name: X[name].value_counts(normalize=True).to_dict() for name in X}
        return self

    def transform(self, X):
        return np.stack([X[name].map(self.shares_[name]).fillna(0) for name in X], axis=1)


class Holder(BaseEstimator):
    """A class of the user's own around a fitted model."""

    def __init__(self, model):
        self.model = model

    def fit(self, X, y):
        self.model_ = self.model.fit(X, y)
        return self

    def predict(self, X):
        return self.model_.predict(X)


class Held(TransformerMixin, BaseEstimator):
    """Knows its columns, and hands those of an encoder on, as feature-engine's wrapper does."""

    def fit(self, X, y=None):
        self.n_features_in_, self.feature_names_in_ = X.shape[1], np.array(X.columns, object)
        self.encoder_ = hot().fit(X)
        return self

    def transform(self, X):
        return self.encoder_.transform(X)


class Filled(TransformerMixin, BaseEstimator):
    """Fills texts, as feature-engine's imputer does."""

    def fit(self, X, y=None):
        self.n_features_in_, self.feature_names_in_ = X.shape[1], np.array(X.columns, object)
        self.fills_ = dict.fromkeys(X, "none")
        return self

    def transform(self, X):
        return X.fillna(self.fills_)


class Typed(Filled):
    """Keeps the dtypes of its columns, as category_encoders' encoders do."""

    def fit(self, X, y=None):
        self.feature_dtypes_in_ = list(X.dtypes)
        return super().fit(X, y)

    def transform(self, X):
        return X[["open"]].astype(float) * 2


class BoolMeans(Means):
    """Keeps numpy's bools, as a list of unique values has them."""

    def fit(self, X, y):
        super().fit(X, y)
        self.means_ = {
            name: {
                np.bool_(one) if isinstance(one, bool) else one: mean for one, mean in of.items()
            }
            for name, of in self.means_.items()
        }
        return self


def as_categories(X):
    return X.astype("category")


KEPT = {
    "a dict of names": lambda: linear(Shares()),
    "a model": lambda: Holder(linear(hot())),
    "a model of routes": lambda: Holder(linear(make_column_transformer((hot(), ["zip", "open"])))),
    "an encoder": lambda: linear(Held()),
    "fills, then means": lambda: linear(Filled(), Means()),
    "fills, then an encoder": lambda: linear(Filled(), Held()),
    "dtypes": lambda: linear(Typed()),
    "numpy's bools": lambda: linear(BoolMeans()),
    "categories of a later booster": lambda: make_pipeline(
        FunctionTransformer(as_categories),
        lightgbm.LGBMRegressor(n_estimators=5, min_data_per_group=2, min_child_samples=2,
                               cat_smooth=1, n_jobs=1, verbose=-1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("form", [records, csv_with_header])
def test_a_cell_of_csv_is_the_value_that_a_class_keeps_of_its_column(name, form):
    frame = FRAME[["zip", "open"]]
    model = KEPT[name]().fit(frame, TARGET)

    assert form(served(model), frame) == pytest.approx(model.predict(frame))


# ------------------------------------------------------------------------------------- texts

TEXTS = ["Fresh bread", "stale bread", "FRESH", "stale"] * 5
LABELS = [1, 0, 1, 0] * 5

TEXT_MODELS = {
    "a vectorizer": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()),
    "a cleaner class": lambda: make_pipeline(Lowercase(), TfidfVectorizer(), LogisticRegression()),
    "two cleaners": lambda: make_pipeline(
        Lowercase(), FunctionTransformer(same), TfidfVectorizer(), LogisticRegression()
    ),
    "a cleaner in a union": lambda: make_pipeline(
        FeatureUnion([("a", make_pipeline(Lowercase(), TfidfVectorizer()))]), LogisticRegression()
    ),
}

TEXT_MODELS |= {
    f"a cleaner of {name}": lambda step=step: make_pipeline(
        step, TfidfVectorizer(), LogisticRegression()
    )
    for name, step in {
        "a Series": FunctionTransformer(lower_series),
        "a Series, by a class": Stripped(),
        "an array": FunctionTransformer(lower_array),
        "a list, by place": FunctionTransformer(lower_by_place),
    }.items()
}

TEXT_MODELS |= {
    f"{name} of vectorizers": lambda wrap=wrap: wrap(
        make_pipeline(TfidfVectorizer(), LogisticRegression())
    )
    for name, wrap in {
        "a vote": lambda model: VotingClassifier([("a", model), ("b", model)], voting="soft"),
        "a stack": lambda model: StackingClassifier([("a", model)], cv=2),
        "a calibration": lambda model: CalibratedClassifierCV(model, cv=2),
        "one against the rest": OneVsRestClassifier,
        "a threshold": lambda model: FixedThresholdClassifier(model, threshold=0.5),
        "a search of calibrations": lambda model: GridSearchCV(
            CalibratedClassifierCV(model, cv=2), {"method": ["sigmoid"]}, cv=2
        ),
        "a frozen one": lambda model: CalibratedClassifierCV(
            FrozenEstimator(model.fit(TEXTS, LABELS))
        ),
    }.items()
}


class Threshold(ClassifierMixin, BaseEstimator):
    """A class of the user's own around a model."""

    def __init__(self, model):
        self.model = model

    def fit(self, X, y):
        self.model.fit(X, y)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return (self.model.predict_proba(X)[:, 1] > 0.5).astype(int)


class Named(Threshold):
    """Keeps its models by name, and one more in a list."""

    def fit(self, X, y):
        super().fit(X, y)
        self.model_, self.more, self.model = {"en": self.model}, [self.model], None
        return self

    def predict(self, X):
        return self.model_["en"].predict(X)


class Parts(Threshold):
    """Keeps the steps of a model apart, and calls them itself."""

    def fit(self, X, y):
        self.texts, self.less, self.last = TfidfVectorizer(), TruncatedSVD(2), LogisticRegression()
        self.last.fit(self.less.fit_transform(self.texts.fit_transform(X)), y)
        return self

    def predict(self, X):
        return self.last.predict(self.less.transform(self.texts.transform(X)))


TEXT_MODELS |= {
    f"{name}, a class of the user's own": lambda wrap=wrap: wrap(
        make_pipeline(TfidfVectorizer(), LogisticRegression())
    )
    for name, wrap in {
        "a threshold": Threshold,
        "models by name": Named,
        "parts": Parts,
        "a threshold in another": lambda model: Named(Threshold(model)),
        "a threshold of a cleaner": lambda model: Threshold(make_pipeline(Lowercase(), model)),
    }.items()
}


class Selector(TransformerMixin, BaseEstimator):
    """Picks a column by the name in its parameter, as DataFrames alone have it."""

    def __init__(self, column="text"):
        self.column = column

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X.loc[:, self.column]


class Placed(Selector):
    """Takes the first column."""

    def transform(self, X):
        return X.iloc[:, 0]


class Squeezed(Selector):
    """Picks a list of columns."""

    def transform(self, X):
        return X[["text"]].squeeze(axis=1)


SELECTORS = {
    "a class by its parameter": Columns("text"),
    "a class that locates": Selector(),
    "a class that picks a list": Squeezed(None),
    "a class that goes by the place": Placed(None),
}

TEXT_MODELS |= {
    f"a selector, {name}": lambda step=step: make_pipeline(
        step, TfidfVectorizer(), LogisticRegression()
    )
    for name, step in SELECTORS.items()
}

TEXT_BODIES = {
    "a list": (["FRESH bread", "Stale"], "application/json"),
    "rows of one": ([["FRESH bread"], ["Stale"]], "application/json"),
    "instances": ({"instances": ["FRESH bread", "Stale"]}, "application/json"),
    "inputs": ({"inputs": ["FRESH bread", "Stale"]}, "application/json"),
    "inputs by column": ({"inputs": {"text": ["FRESH bread", "Stale"]}}, "application/json"),
    "data": ({"data": ["FRESH bread", "Stale"]}, "application/json"),
    "data in rows": ({"data": [["FRESH bread"], ["Stale"]]}, "application/json"),
    "a column": ({"text": ["FRESH bread", "Stale"]}, "application/json"),
    "records": ([{"text": "FRESH bread"}, {"text": "Stale"}], "application/json"),
    "csv": ("FRESH bread\nStale\n", "text/csv"),
    "csv with a header": ("review\nFRESH bread\nStale\n", "text/csv; header=present"),
    "lines": ('"FRESH bread"\n"Stale"\n', "application/jsonlines"),
    "records in lines": ('{"t": "FRESH bread"}\n{"t": "Stale"}\n', "application/jsonlines"),
    "one text": ("FRESH bread", None),
    "one named text": ({"text": "FRESH bread"}, "application/json"),
    "one text as inputs": ({"inputs": "FRESH bread"}, "application/json"),
}


@cache
def text_model(name):
    texts = np.array(TEXTS) if name == "a cleaner of an array" else pd.Series(TEXTS)
    if "selector" in name:
        texts = pd.DataFrame({"text": TEXTS})
    return served(TEXT_MODELS[name]().fit(texts, LABELS))


@pytest.mark.parametrize("model", TEXT_MODELS)
@pytest.mark.parametrize("body", TEXT_BODIES)
def test_a_text_model_takes_a_text_in_every_form(model, body):
    ask = text_model(model)
    sent, content_type = TEXT_BODIES[body]

    found = ask(json.dumps(sent)) if content_type is None else ask(sent, content_type)

    assert found == [1, 0][: len(found)]
    assert len(found) == (1 if body.startswith("one") else 2)


@pytest.mark.parametrize("name", [name for name in SELECTORS if "place" not in name])
def test_a_selector_finds_its_text_beside_other_columns(name):
    ask = text_model(f"a selector, {name}")

    for sent in (
        [{"id": 1, "text": "FRESH bread"}, {"id": 2, "text": "Stale"}],
        {"id": [1, 2], "text": ["FRESH bread", "Stale"]},
        {"columns": ["text", "id"], "data": [["FRESH bread", 1], ["Stale", 2]]},
    ):
        assert ask(sent) == [1, 0]


def test_a_model_of_a_text_and_another_column_names_the_one_that_is_not_there():
    frame = pd.DataFrame({"text": TEXTS, "age": range(len(TEXTS))})
    parts = [
        ("t", make_pipeline(Columns("text"), TfidfVectorizer())),
        ("n", Columns(["age"])),
    ]
    ask = served(make_pipeline(FeatureUnion(parts), LogisticRegression()).fit(frame, LABELS))

    assert ask({"text": ["fresh", "stale"], "age": [1, 2]}) == [1, 0]
    with pytest.raises(BadRequest, match="failed on this table: KeyError.*age") as refused:
        ask(["fresh", "stale"])
    assert "columns by name" in refused.value.hint


def test_rows_that_a_class_of_the_users_own_counts_otherwise_are_refused():
    ask = text_model("a threshold, a class of the user's own")

    with pytest.raises(BadRequest, match="predict returned 2 rows for 3: a step that does not say"):
        ask([{"id": 1, "review": "FRESH"}] * 3)


# ----------------------------------------------------------------------------------- boosters


def categories(frame, *names, dtype=None):
    return frame.assign(
        **{name: pd.Categorical(frame[name].astype(dtype or frame[name].dtype)) for name in names}
    )


def _lightgbm(frame, names, **options):
    learner = lightgbm.LGBMRegressor(
        n_estimators=20,
        min_data_per_group=2,
        min_child_samples=2,
        cat_smooth=1,
        n_jobs=1,
        verbose=-1,
    )
    return learner.fit(categories(frame, *names, **options), TARGET)


def _xgboost(frame, names, **options):
    learner = xgboost.XGBRegressor(n_estimators=20, enable_categorical=True, n_jobs=1)
    return learner.fit(categories(frame, *names, **options), TARGET)


BOOSTED = {
    "words": ([AGE, WARD], [WARD], {}),
    "whole numbers": (["beds", AGE], ["beds"], {}),
    "postcodes": ([ZIP, AGE, WARD], [ZIP, WARD], {}),
    "numbers alone": ([AGE, "beds"], [], {}),
}


@pytest.mark.parametrize("fit", [_lightgbm, _xgboost])
@pytest.mark.parametrize("name", BOOSTED)
@pytest.mark.parametrize("form", [records, split, csv_with_header, records_alone, csv_alone, lines])
def test_a_booster_meets_the_categories_that_it_learned(fit, name, form):
    columns, categorical, options = BOOSTED[name]
    model = fit(FRAME[columns], categorical, **options)

    found = form(served(model), FRAME[columns])

    expected = model.predict(categories(FRAME[columns], *categorical, **options))
    assert found == pytest.approx(expected[: len(found)])


def ordered(frame):
    return frame.assign(ward=pd.Categorical(frame.ward, ["south", "north"], ordered=True))


@pytest.mark.parametrize(
    "columns", [[AGE, WARD], [WARD, AGE, "zip"], ["zip", AGE, WARD], [WARD]], ids=str
)
@pytest.mark.parametrize("form", [records, csv_with_header, csv_alone, lines])
def test_lightgbm_meets_the_ordered_categories_that_it_learned(columns, form):
    frame = ordered(FRAME[columns])
    model = _lightgbm(frame, [name for name in columns if name == "zip"])

    found = form(served(model), frame)

    expected = model.predict(categories(frame, *[name for name in columns if name == "zip"]))
    assert found == pytest.approx(expected[: len(found)])


def test_ordered_categories_that_may_be_in_two_columns_are_refused_without_blame():
    frame = ordered(FRAME[[WARD]]).assign(flag=FRAME.open.astype(int))

    with pytest.raises(BadRequest) as refused:
        served(_lightgbm(frame, []))([["north", 1]])
    assert "or ordered ones, and its file does not say which is which" in refused.value.hint


def test_columns_of_numbers_named_as_categories_are_not_taken_for_the_ordered_ones():
    frame = ordered(FRAME[[WARD, AGE, "zip"]]).assign(zip=FRAME.zip.astype(int))
    model = lightgbm.LGBMRegressor(n_estimators=5, min_child_samples=2, n_jobs=1, verbose=-1)
    model.fit(frame, TARGET, categorical_feature=["zip"])

    with pytest.raises(BadRequest) as refused:
        served(model)(frame.to_json(orient="records"))
    assert "or ordered ones, and its file does not say which is which" in refused.value.hint


def test_lightgbm_has_underscores_for_the_spaces_in_names():
    frame = FRAME[[AGE, "beds"]].set_axis(["age of it", "no of beds"], axis=1)
    model = _lightgbm(frame, [])
    assert Schema.of(model).names == ("age_of_it", "no_of_beds")

    ask = served(model)
    for form in (records, split, csv_with_header, lines):
        assert form(ask, frame) == pytest.approx(model.predict(frame))
    assert ask({"age of it": 1.0, "no_of_beds": 2}) == pytest.approx(
        model.predict(frame.iloc[:1].assign(**{"age of it": 1.0, "no of beds": 2}))
    )


def test_a_category_that_lightgbm_never_met_is_missing_to_it():
    model = _lightgbm(FRAME[[AGE, WARD]], [WARD])
    unknown = pd.DataFrame({AGE: [3.5], WARD: pd.Categorical([None], ["north", "south"])})

    assert served(model)([[3.5, "west"]]) == pytest.approx(model.predict(unknown))


def test_a_category_that_xgboost_never_met_is_refused_with_those_it_knows():
    ask = served(_xgboost(FRAME[[AGE, WARD]], [WARD]))

    with pytest.raises(BadRequest, match="column 'ward': expected a category, got 'west'") as error:
        ask([[3.5, "west"]])
    assert error.value.hint == "The model learned 'north', 'south'."


# ------------------------------------------------------------------------------- one column


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ([1, 2, 3], "application/json"),
        ({"instances": [1, 2, 3]}, "application/json"),
        ([[1], [2], [3]], "application/json"),
        ("1\n2\n3\n", "text/csv"),
        ("1,2,3\n", "text/csv"),
        ("1\n2\n3\n", "application/jsonlines"),
    ],
)
def test_isotonic_regression_takes_a_flat_list_as_its_column(body, content_type):
    model = IsotonicRegression().fit([1, 2, 3, 4], [1, 4, 6, 9])

    assert served(model)(body, content_type) == [1, 4, 6]


def test_a_model_that_reads_nothing_takes_what_is_sent():
    model = DummyClassifier().fit(FRAME[[WARD]], TARGET > 5)

    assert len(served(model)([["north"], [None], [3]])) == 3


# --------------------------------------------------------------------------- dropped columns

DROPPING = make_pipeline(
    make_column_transformer((hot(), [WARD]), (StandardScaler(), [AGE])), LinearRegression()
).fit(FRAME, TARGET)


@pytest.mark.parametrize(
    "columns",
    [
        [WARD, AGE],
        [AGE, WARD],
        [WARD, AGE, "zip"],
        [WARD, "new", AGE],
        ["new", "newer", *FRAME.columns],
    ],
)
@pytest.mark.parametrize("form", [records, split, csv_with_header, lines])
def test_columns_that_the_model_drops_may_be_missing_and_others_are_ignored(form, columns):
    frame = FRAME.assign(new="?", newer=1)

    found = form(served(DROPPING), frame[columns])

    assert found == pytest.approx(DROPPING.predict(FRAME))


@pytest.mark.parametrize("record", [{WARD: "north", AGE: 3.0}, {WARD: "north", AGE: 3.0, "new": 1}])
def test_one_bare_record_may_leave_out_and_add_columns(record):
    expected = DROPPING.predict(FRAME.assign(**record)[:1])

    assert served(DROPPING)(record) == pytest.approx(expected)


def test_a_column_that_the_model_reads_may_not_be_missing():
    with pytest.raises(BadRequest, match=r"Missing: 'ward'\.$"):
        served(DROPPING)([{AGE: 3.0, "row": 1}])


def test_a_model_that_reads_every_column_refuses_others():
    model = linear(StandardScaler()).fit(FRAME[[AGE, "beds"]], TARGET)

    with pytest.raises(BadRequest, match="Unexpected: 'new'"):
        served(model)([{AGE: 3.0, "beds": 1, "new": 1}])
