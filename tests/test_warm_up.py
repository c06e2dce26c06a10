"""A made-up row is answered before the first request, unless a user's code would be called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skserve.config import Config
from skserve.inference.calls import Request
from skserve.inference.model import Model
from tests import zoo

CALLED: list[int] = []


def counted(values: Any) -> Any:
    CALLED.append(len(values))
    return values


def own_words(document: str) -> list[str]:
    CALLED.append(1)
    return document.split()


def loaded(
    estimator: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Model, list[Request]]:
    """Load a model, and return it with the requests that it is going to be asked."""
    joblib.dump(estimator, folder / "model.joblib")
    model = Model.load(folder, Config())
    asked: list[Request] = []
    own = model.handler.predict

    def predict(request: Request, context: Any) -> Any:
        asked.append(request)
        return own(request, context)

    monkeypatch.setattr(model.handler, "predict", predict)
    CALLED.clear()
    return replace(model), asked


@pytest.mark.parametrize("make", [zoo.iris, zoo.mixed, zoo.objects, zoo.text, zoo.named])
def test_a_model_answers_a_made_up_row(make, tmp_path, monkeypatch):
    model, asked = loaded(make(), tmp_path, monkeypatch)

    model.warm_up()

    assert [request.n_rows for request in asked] == [1]


FUNCTIONS = {
    "a function": (make_pipeline(FunctionTransformer(counted), Ridge()), np.ones((9, 2))),
    "an analyzer": (make_pipeline(CountVectorizer(analyzer=own_words), Ridge()), ["a b"] * 9),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_the_users_is_not_called_for_it(name, tmp_path, monkeypatch):
    estimator, rows = FUNCTIONS[name]
    model, asked = loaded(estimator.fit(rows, np.arange(9)), tmp_path, monkeypatch)

    model.warm_up()

    assert (asked, CALLED) == ([], [])
