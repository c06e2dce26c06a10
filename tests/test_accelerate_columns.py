"""Mixed columns and texts: the fast paths answer as scikit-learn does over DataFrames."""

from __future__ import annotations

import logging
import pickle
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

from skserve.config import Config
from skserve.errors import ServeError
from skserve.estimators.accelerate import accelerate, probes, proof, registry
from skserve.estimators.columns import Column
from skserve.estimators.frame import Frame, plain
from skserve.estimators.methods import METHODS, find, named
from skserve.estimators.schema import Schema
from skserve.formats.media_types import JSON
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler

rng = np.random.default_rng(0)
COUNT = 240
WORDS = ["good", "bad", "fine", "wine", "the", "naïve", "corked", "of", "Rioja", "2019"]
TEXTS = [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(COUNT)]
TABLE = pd.DataFrame(
    {
        "age": np.where(rng.random(COUNT) < 0.2, np.nan, rng.normal(40, 10, COUNT)),
        "size": rng.normal(size=COUNT),
        "city": pd.Series([f"city {i}" for i in rng.integers(0, 40, COUNT)], dtype=object),
        "kind": pd.Series(rng.choice(["x", "y", "z", "007"], COUNT), dtype=object),
        "gap": pd.Series(rng.choice(["p", "q", None], COUNT), dtype=object),
        "note": pd.Series(TEXTS, dtype=object),
    }
)
TWO = (TABLE["size"] + (TABLE.kind == "x") > 0).astype(int).to_numpy()
THREE = np.array(["low", "mid", "top"])[np.digitize(TABLE["size"], [-0.5, 0.5])]

scaled = make_pipeline(SimpleImputer(), StandardScaler())
filled = make_pipeline(
    SimpleImputer(missing_values=None, strategy="constant", fill_value="?"),
    OneHotEncoder(handle_unknown="ignore"),
)
ignoring = OneHotEncoder(handle_unknown="ignore")


def columns(*routes: Any, last: Any = None, y: Any = TWO, **options: Any) -> Any:
    """Fit a ColumnTransformer of these routes, before `last` if there is one."""
    steps = ColumnTransformer(
        [(str(at), step, chosen) for at, (step, chosen) in enumerate(routes)], **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (steps if last is None else make_pipeline(steps, last)).fit(TABLE, y)


def encoder(**options: Any) -> Any:
    return columns(
        (scaled, ["age", "size"]), (OneHotEncoder(**options), ["city", "kind"]), last=Ridge()
    )


numbers = (scaled, ["age", "size"])
MIXED: dict[str, Any] = {
    "words and numbers": lambda: columns(
        numbers, (ignoring, ["city", "kind"]), (filled, ["gap"]), last=LogisticRegression()
    ),
    "three classes": lambda: columns(
        numbers, (ignoring, ["city", "kind"]), last=LogisticRegression(), y=THREE
    ),
    "no sparse output": lambda: columns(
        numbers, (ignoring, ["city"]), last=LogisticRegression(), sparse_threshold=0
    ),
    "what is left": lambda: columns(
        (ignoring, ["city", "kind", "gap"]),
        ("drop", ["note"]),
        last=LogisticRegression(),
        remainder=scaled,
    ),
    "positions": lambda: columns(
        (scaled, slice(0, 2)),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), [3, 2]),
        (MinMaxScaler(), [False, True, False, False, False, False]),
        last=RandomForestClassifier(12, max_depth=4, random_state=0),
    ),
    "selectors": lambda: columns(
        (scaled, make_column_selector(dtype_include=np.number)),
        (ignoring, make_column_selector(pattern="city|kind")),
        last=Ridge(),
    ),
    "boosting": lambda: columns(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), ["city", "gap"]),
        ("passthrough", ["age", "size"]),
        last=HistGradientBoostingClassifier(max_iter=12),
    ),
    "error": lambda: encoder(),
    "first dropped": lambda: encoder(drop="first", handle_unknown="ignore"),
    "one of two dropped": lambda: encoder(drop="if_binary", handle_unknown="ignore"),
    "infrequent": lambda: encoder(handle_unknown="infrequent_if_exist", min_frequency=7),
    "infrequent and dropped": lambda: encoder(
        handle_unknown="infrequent_if_exist", max_categories=5, drop="first"
    ),
    "dense bools": lambda: encoder(handle_unknown="ignore", sparse_output=False, dtype=bool),
    "missing is a category": lambda: columns((ignoring, ["gap", "kind"]), last=Ridge()),
    "ordinal, infrequent": lambda: columns(
        (
            OrdinalEncoder(
                handle_unknown="use_encoded_value",
                unknown_value=-1,
                encoded_missing_value=-2,
                min_frequency=7,
            ),
            ["city", "gap"],
        ),
        last=Ridge(),
    ),
    "target": lambda: columns((TargetEncoder(), ["city", "kind"]), numbers, last=Ridge()),
    "target of three": lambda: columns(
        (TargetEncoder(), ["city"]), last=LogisticRegression(), y=THREE
    ),
    "bins": lambda: columns(
        (KBinsDiscretizer(3), ["size"]), (ignoring, ["kind"]), last=LogisticRegression()
    ),
    "most frequent": lambda: columns(
        (
            make_pipeline(
                SimpleImputer(missing_values=None, strategy="most_frequent", add_indicator=True),
                ignoring,
            ),
            ["gap", "kind"],
        ),
        last=Ridge(),
    ),
    "a text beside numbers": lambda: columns(
        numbers, (TfidfVectorizer(), "note"), (ignoring, ["kind"]), last=LogisticRegression()
    ),
    "weights": lambda: columns(
        numbers, (ignoring, ["kind"]), last=Ridge(), transformer_weights={"0": 2.0, "1": 0.5}
    ),
    "a transformer": lambda: columns(numbers, (ignoring, ["kind"])),
    "a sparse transformer": lambda: columns((ignoring, ["city"]), sparse_threshold=1.0),
    "a search": lambda: GridSearchCV(
        Pipeline(
            [
                ("c", ColumnTransformer([("n", scaled, ["age"]), ("w", ignoring, ["city"])])),
                ("m", Ridge()),
            ]
        ),
        {"m__alpha": [1, 2]},
        cv=2,
    ).fit(TABLE, TWO),
    "frames between": lambda: columns(
        numbers,
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["kind"]),
        last=Ridge(),
    ).set_output(transform="pandas"),
    "frames": lambda: columns((scaled, ["age", "size"]), ("drop", ["city"])).set_output(
        transform="pandas"
    ),
}

if sklearn.__version__.startswith("1.3."):  # it knows two classes
    del MIXED["target of three"]


def text(*steps: Any, y: Any = TWO) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pipeline(*steps).fit(TEXTS, y)


def halves(document: str) -> list[str]:
    """Analyze as no analyzer of scikit-learn does."""
    return [document[:5], document[5:]]


TEXT: dict[str, Any] = {
    "counts": lambda: text(CountVectorizer(), MultinomialNB()),
    "bigrams": lambda: text(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(), y=THREE),
    "no unigrams": lambda: text(TfidfVectorizer(ngram_range=(2, 3), norm="l1"), Ridge()),
    "characters": lambda: text(CountVectorizer(analyzer="char", ngram_range=(1, 3)), Ridge()),
    "characters of words": lambda: text(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), ComplementNB()
    ),
    "stop words": lambda: text(
        TfidfVectorizer(stop_words=["the", "of"], sublinear_tf=True, norm=None), Ridge()
    ),
    "own pattern": lambda: text(
        CountVectorizer(token_pattern=r"(?u)\b(\w)\w*", lowercase=False), Ridge()
    ),
    "accents": lambda: text(CountVectorizer(strip_accents="unicode", binary=True), Ridge()),
    "ascii": lambda: text(CountVectorizer(strip_accents="ascii"), Ridge()),
    "own analyzer": lambda: text(CountVectorizer(analyzer=halves), Ridge()),
    "own tokenizer": lambda: text(
        TfidfVectorizer(tokenizer=str.split, token_pattern=None, use_idf=False), Ridge()
    ),
    "hashes": lambda: text(HashingVectorizer(n_features=2**10), SGDClassifier(random_state=0)),
    "positive hashes": lambda: text(
        HashingVectorizer(n_features=64, alternate_sign=False, norm=None, binary=True),
        MultinomialNB(),
    ),
    "two steps": lambda: text(CountVectorizer(), TfidfTransformer(sublinear_tf=True), Ridge()),
    "selected": lambda: text(TfidfVectorizer(), SelectKBest(chi2, k=4), LogisticRegression()),
    "reduced": lambda: text(TfidfVectorizer(), TruncatedSVD(3), LogisticRegression()),
    "a union": lambda: text(
        FeatureUnion(
            [("w", TfidfVectorizer()), ("c", CountVectorizer(analyzer="char"))],
            transformer_weights={"c": 0.5},
        ),
        LogisticRegression(),
    ),
    "a vectorizer": lambda: text(TfidfVectorizer()),
}
CASES = {**MIXED, **TEXT}
_fitted: dict[str, Any] = {}


def fitted(name: str) -> Any:
    if name not in _fitted:
        _fitted[name] = CASES[name]()
    return _fitted[name]


def kernels(model: Any) -> list[tuple[str, Any, Any]]:
    found = [(name, find(model, name), registry.kernel(model, name)) for name in METHODS]
    return [(name, own, fast) for name, own, fast in found if own is not None and fast is not None]


def outcome(method: Any, rows: Any) -> Any:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return method(rows)
        except ValueError as error:
            return str(error)


def same(fast: Any, own: Any) -> bool:
    if isinstance(own, str):
        return fast == own
    return proof.same(fast, own.to_numpy() if hasattr(own, "to_numpy") else own)


letters = st.text(st.sampled_from("aàİß good\N{SNOWMAN}\n1_-"), max_size=30)
ODD = {
    "age": st.sampled_from([np.nan, 0.0, -0.0, 1e300, 1e-300, np.inf]) | st.floats(0, 99),
    "size": st.floats(-9, 9),
    "city": st.sampled_from(["city 1", "city 39", "", "City 1"]) | letters,
    "kind": st.sampled_from(["x", "007", "7", ""]) | letters,
    "gap": st.sampled_from(["p", None]) | letters,
    "note": st.sampled_from(TEXTS) | letters,
}


def some_rows(data: st.DataObject, most: int) -> Frame:
    """Draw up to `most` rows of the table, with an odd cell in some columns."""
    count = data.draw(st.integers(1, most))
    cells: list[Any] = []
    for column in TABLE:
        some = TABLE[column].iloc[:count].tolist()
        if data.draw(st.booleans()):
            some[data.draw(st.integers(0, count - 1))] = data.draw(ODD[column])
        number = TABLE[column].dtype != object
        cells.append(np.array(some, np.float64) if number else some)
    return Frame(cells, list(TABLE), count)


@pytest.mark.parametrize("name", MIXED)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_mixed_rows_are_answered_alike_alone_and_together(name, data):
    model = fitted(name)
    frame = some_rows(data, 12)
    pairs = kernels(model)
    assert pairs
    for method, own, fast in pairs:
        ask = registry.falling_back(fast, own)
        assert same(outcome(ask, frame), outcome(own, frame.plain())), method
        assert same(outcome(ask, frame[:1]), outcome(own, frame[:1].plain())), method


@pytest.mark.parametrize("name", TEXT)
@settings(max_examples=6, deadline=None)
@given(texts=st.lists(st.sampled_from(TEXTS) | letters, min_size=1, max_size=9))
def test_texts_are_answered_alike_alone_and_together(name, texts):
    for method, own, fast in kernels(fitted(name)):
        ask = registry.falling_back(fast, own)
        assert same(outcome(ask, texts), outcome(own, texts)), method
        assert same(outcome(ask, texts[:1]), outcome(own, texts[:1])), method


@pytest.mark.parametrize("name", CASES)
def test_each_is_proved_and_answers_ordinary_rows(name):
    model = fitted(name)
    schema = Schema.of(model)
    rows = probes.of(model, schema)
    assert rows is not None

    for method, own, fast in kernels(model):
        objection = proof.objection(fast, named(own, schema.names), rows, 0.0)
        assert objection == (proof.FRAMES if name == "frames" else None), method
        plain(fast(rows.ordinary[:1]))  # declines nothing here


@pytest.mark.parametrize("name", CASES)
def test_each_is_a_value_that_can_be_written_down(name):
    model = fitted(name)
    rows = probes.of(model, Schema.of(model))

    for _, _, fast in kernels(model):
        again = pickle.loads(pickle.dumps(fast))
        assert same(plain(again(rows.ordinary[:3])), plain(fast(rows.ordinary[:3])))


def test_a_request_makes_no_data_frame(monkeypatch):
    model = fitted("words and numbers")
    line = EstimatorHandler.of(model, None, Config())
    expected = model.predict(TABLE[:2]).tolist()
    records = orjson.loads(TABLE[:2].to_json(orient="records"))
    monkeypatch.setattr(Frame, "plain", None)

    request = line.decode(Call(orjson.dumps(records), JSON), None)
    assert line.predict(request, None).rows().tolist() == expected


def test_frames_are_no_difference_to_warn_of(caplog):
    with caplog.at_level(logging.INFO, "skserve"):
        EstimatorHandler.of(fitted("frames"), None, Config())

    assert "transform (answers with DataFrames)" in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_declared_whole_numbers_and_bools_are_proved(caplog):
    table = pd.DataFrame(
        {
            "whole": np.arange(40) % 9,
            "flag": np.arange(40) % 3 == 0,
            "word": pd.Series(["a", "b"] * 20, dtype=object),
        }
    )
    routes = [("n", StandardScaler(), ["whole", "flag"]), ("w", ignoring, ["word"])]
    model = make_pipeline(ColumnTransformer(routes), LogisticRegression())
    model.fit(table, np.arange(40) % 2)
    learned = Schema.of(model)
    declared = tuple(map(Column, ("integer", "boolean")))
    schema = replace(learned, columns=(*declared, learned.columns[2]))
    methods = {"predict": named(model.predict, schema.names)}

    rows = probes.of(model, schema)
    assert [one.dtype.kind for one in rows.ordinary.columns[:2]] == ["i", "b"]
    assert [one.dtype.kind for one in rows.odd[0].columns[:2]] == ["f", "b"]
    assert "predict" in accelerate(model, methods, schema)


def test_off_answers_as_scikit_learn_does_and_auto_likewise():
    model = fitted("a text beside numbers")
    records = orjson.dumps(orjson.loads(TABLE[:9].to_json(orient="records")))
    answers = []
    for mode in ("off", "auto"):
        line = EstimatorHandler.of(model, None, Config(accelerate=mode))
        try:
            request = line.decode(Call(records, JSON), None)
            answers.append(line.encode(line.predict(request, None), request, None).body)
        except ServeError as error:
            answers.append(error.message.encode())

    assert answers[0] == answers[1]
