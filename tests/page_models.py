"""Models for the tests of the page and of the OpenAPI: one for each kind of answer and of name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from tests import zoo

HOSTILE = [
    "<script>document.title = 'hacked'</script>",
    "a \"quoted\" 'name'",
    "two\nlines\tand a tab",
    "\u202eright to left\u05e2\u05d1",
    "</textarea><img src=x onerror=alert(1)>",
    "&lt;b&gt; %41 \\ \u2028",
]

# It reads lines of numbers between semicolons, which nothing but the script can know, or npy.
SCRIPT = """
import io

import numpy as np


class Refused(Exception):
    status_code = 400


def input_fn(body, content_type):
    if content_type == "application/x-npy":
        return np.load(io.BytesIO(body))
    try:
        text = body if isinstance(body, str) else body.decode()
        rows = [[float(cell) for cell in line.split(";")] for line in text.splitlines()]
    except ValueError:
        raise Refused("semicolons between numbers are expected") from None
    if not rows or any(len(row) != 4 for row in rows):
        raise Refused("four numbers a line are expected")
    return rows
"""


def mixed() -> Any:
    """Text with known values, a bool, a number that may be missing; its classes are words."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "island": rng.choice(["Biscoe", "Dream", "007"], 200),
            "tagged": rng.random(200) < 0.5,
            "mass": np.where(rng.random(200) < 0.2, np.nan, rng.normal(4000, 500, 200).round(-1)),
        }
    )
    columns = ColumnTransformer(
        [
            ("known", OneHotEncoder(handle_unknown="ignore"), ["island", "tagged"]),
            ("mass", make_pipeline(SimpleImputer(), MinMaxScaler()), ["mass"]),
        ]
    )
    y = np.where(X.island == "Dream", "small", np.where(X.tagged, "tall", "wide"))
    return make_pipeline(columns, LogisticRegression()).fit(X, y)


def scaled() -> Any:
    """A transformer."""
    return StandardScaler().fit(load_iris(return_X_y=True)[0])


def hostile() -> Any:
    """Names and categories that a page could take for markup."""
    X = pd.DataFrame(dict.fromkeys(HOSTILE, HOSTILE * 4))
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([(HOSTILE[0], encoder, HOSTILE)])
    return make_pipeline(columns, LogisticRegression()).fit(X, HOSTILE * 4)


def numbers() -> Any:
    """Columns of numbers with such names."""
    X = pd.DataFrame(np.eye(2, len(HOSTILE)), columns=HOSTILE)
    return LinearRegression().fit(X, [0.0, 1.0])


def many_names() -> list[str]:
    return [f"{HOSTILE[at % len(HOSTILE)]} {at}" for at in range(10_000)]


def wide() -> Any:
    """10,000 columns with such names."""
    X = pd.DataFrame(np.eye(2, 10_000), columns=many_names())
    return LinearRegression().fit(X, [0.0, 1.0])


def many() -> Any:
    """10,000 such categories in one column."""
    X = pd.DataFrame({"word": many_names()})
    return make_pipeline(OrdinalEncoder(), LinearRegression()).fit(X, np.arange(10_000.0))


MODELS = {"mixed": mixed, "scaled": scaled, "hostile": hostile, "numbers": numbers}
MODELS |= {"wide": wide, "many": many}
MODELS |= {name: zoo.MODELS[name] for name in ("iris", "text", "wine")}


def make(name: str, folder: Path) -> Path:
    """Save a model in a folder of its name, `script` as iris with a script of its own."""
    made = folder / name
    made.mkdir(parents=True)
    if name == "script":
        (made / "code").mkdir()
        (made / "code" / "inference.py").write_text(SCRIPT)
    joblib.dump(MODELS["iris" if name == "script" else name](), made / "model.joblib")
    return made
