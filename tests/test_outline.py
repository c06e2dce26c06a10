"""What a model is made of, as `GET /` says it."""

from __future__ import annotations

import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skserve.estimators.outline import DEPTH, LETTERS, STEPS, outline, spelled

PLAIN = {"name": None, "class": "LogisticRegression"}


class Broken(LogisticRegression):
    """As an older pickle: its parameters fail when they are read."""

    @property
    def C(self):  # noqa: N802
        raise RuntimeError

    @C.setter
    def C(self, value):  # noqa: N802
        pass


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (LogisticRegression(), PLAIN),
        (LogisticRegression(C=0.5), PLAIN | {"parameters": {"C": "0.5"}}),
        ("passthrough", {"name": None, "class": "passthrough"}),
        (object(), {"name": None, "class": "object"}),
        (
            make_pipeline(StandardScaler(), LogisticRegression()),
            {
                "name": None,
                "class": "Pipeline",
                "flow": "series",
                "steps": [
                    {"name": "standardscaler", "class": "StandardScaler"},
                    {"name": "logisticregression", "class": "LogisticRegression"},
                ],
            },
        ),
        (
            FeatureUnion([("a", StandardScaler()), ("b", "drop")]),
            {
                "name": None,
                "class": "FeatureUnion",
                "flow": "parallel",
                "steps": [
                    {"name": "a", "class": "StandardScaler"},
                    {"name": "b", "class": "drop"},
                ],
            },
        ),
    ],
)
def test_a_model_is_a_tree_of_its_steps(estimator, expected):
    assert outline(estimator) == expected


def test_a_fitted_column_transformer_names_the_columns_of_each_step():
    made = ColumnTransformer([("some", StandardScaler(), [0, 2])], remainder="drop")
    fitted = made.fit([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])

    steps = outline(fitted)["steps"]

    assert steps[0] == {"name": "some", "class": "StandardScaler", "columns": ["0", "2"]}
    assert steps[1] == {"name": "remainder", "class": "drop", "columns": ["1"]}


def test_a_search_shows_what_it_found():
    search = GridSearchCV(LogisticRegression(), {"C": [0.25]}, cv=2)
    search.fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])

    [step] = outline(search)["steps"]

    assert step["parameters"] == {"C": "0.25"}


def test_what_cannot_be_read_is_left_out():
    assert outline(Broken())["class"] == "Broken"


def test_a_deep_or_broad_model_is_cut():
    deep = LogisticRegression()
    for _ in range(30):
        deep = make_pipeline(deep)
    broad = StackingClassifier([(str(at), LogisticRegression()) for at in range(500)])
    depth, node = 0, outline(deep)
    while "steps" in node:
        depth, node = depth + 1, node["steps"][0]

    assert depth == DEPTH
    assert len(outline(broad)["steps"]) == STEPS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        ("a", "'a'"),
        ((1, 2.5), "(1, 2.5)"),
        ([True, "x"], "[True, 'x']"),
        (print, "print"),
        (FunctionTransformer(), "FunctionTransformer"),
        ("x" * 1000, "'" + "x" * (LETTERS - 1) + "..."),
    ],
)
def test_only_plain_values_are_spelled(value, text):
    assert spelled(value) == text
