"""What LightGBM, XGBoost and CatBoost know of their columns, each in a way of its own.

Their categories are columns of a DataFrame whose values the booster numbers itself. What each keeps
of them in a saved model was read from LightGBM 4.7, XGBoost 3.2 and CatBoost 1.2.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from skserve.estimators.columns import ANY, NUMBER, TEXT, Column
from skserve.estimators.labels import UNKNOWN, Labels
from skserve.estimators.methods import look

_LOST = (
    "The model learned categories in this column, and its file does not hold them, so no value can "
    "be matched to one. Save it with XGBoost 3.1 or later, or put a OneHotEncoder before it."
)


def fitted_on(estimator: object) -> tuple[int, tuple[str, ...] | None] | None:
    """Return the number and names of a booster's columns that scikit-learn's way does not give."""
    library = _library(estimator)
    if library == "catboost":  # a loaded model says that it has seen 0 columns
        names = tuple(str(name) for name in look(estimator, "feature_names_") or ())
        numbered = names == tuple(map(str, range(len(names))))
        return (len(names), None if numbered else names) if names else None
    if library == "lightgbm" and callable(look(estimator, "num_feature")):  # a plain Booster
        names = tuple(estimator.feature_name())  # type: ignore[attr-defined]
        numbered = names == tuple(f"Column_{at}" for at in range(len(names)))
        return len(names), None if numbered else names
    return None


def is_spaceless(estimator: object) -> bool:
    """Whether the names that a model keeps have underscores where its columns' have spaces."""
    return _library(estimator) == "lightgbm"


def columns(estimator: object, count: int) -> list[Column] | None:
    """Return what a booster learned of its `count` columns, or None of any other estimator."""
    learned = _LEARNED.get(_library(estimator))
    if learned is None:
        return None
    found = [NUMBER] * count
    for at, column in learned(estimator).items():
        if at < count:
            found[at] = column
    return found


def _library(estimator: object) -> str:
    """Name the booster's library; a class of the user's own may inherit from one."""
    for base in type(estimator).__mro__:
        name = base.__module__.partition(".")[0]
        if name in _LEARNED:
            return name
    return ""


def _lightgbm(estimator: Any) -> dict[int, Column]:
    """Find the columns of pandas categories: the booster numbers them in their order."""
    booster = look(estimator, "booster_") or estimator
    categories = look(booster, "pandas_categorical")
    if not categories:
        return {}
    model = booster.model_to_string(num_iteration=1)
    told = re.search(r"\[categorical_feature: ([0-9,]+)\]", model)
    at = [int(number) for number in told[1].split(",")] if told else []
    ranges = re.search(r"^feature_infos=(.*)$", model, re.MULTILINE)
    infos = ranges[1].split() if ranges else []
    if len(at) < len(categories):  # the others are ordered, and numbers to the booster
        at = _with_ordered(at, categories, infos)
    # Others may have been named to fit, as columns of numbers.
    if len(at) != len(categories) or not _hold(at, categories, infos):
        mixed = Column("category", refusal=_MIXED)
        return dict.fromkeys([*at, *_numbered(categories, infos)], mixed)
    return {
        number: Column("category", tuple(values))
        for number, values in zip(at, categories, strict=True)
    }


def _with_ordered(at: list[int], categories: list[list[Any]], infos: list[str]) -> list[int]:
    """Add to the columns `at` those of ordered categories, which lie in the range of their numbers.

    Where several columns may be meant, all of them are added.
    """
    free = [number for number in _numbered(categories, infos) if number not in at]
    chosen = itertools.combinations(free, len(categories) - len(at))
    tried = (sorted([*at, *more]) for more in itertools.islice(chosen, _MOST_TRIED))
    possible = [one for one in tried if _hold(one, categories, infos)]
    return possible[0] if len(possible) == 1 else sorted([*at, *free]) if possible else []


def _numbered(categories: list[list[Any]], infos: list[str]) -> list[int]:
    """Return the columns whose numbers can be those of some of the categories."""
    most = max(map(len, categories))
    return [number for number, info in enumerate(infos) if _highest(info) < most]


def _hold(at: list[int], categories: list[list[Any]], infos: list[str]) -> bool:
    """Whether the columns `at` hold the numbers of these categories, as far as they are known."""
    return all(
        number >= len(infos) or _highest(infos[number]) < len(values)
        for number, values in zip(at, categories, strict=True)
    )


def _highest(info: str) -> float:
    """Return the largest number of a column that holds whole numbers from 0 on, else infinity.

    It is a range, [0:3], or of a column of categories a list, 0:3:1, where -1 is a missing one.
    """
    if info == "none":  # it was the same everywhere
        return 0
    numbers = [number for number in info.strip("[]").split(":") if number != "-1"]
    return max(map(int, numbers), default=0) if all(map(str.isdecimal, numbers)) else math.inf


_MOST_TRIED = 1000  # choices of columns for ordered categories

_MIXED = (
    "The model learned categories from a category column and from a column of numbers, or ordered "
    "ones, and its file does not say which is which. Fit it with all of them as category columns "
    "without an order."
)


def _xgboost(estimator: Any) -> dict[int, Column]:
    """Find the columns of categories, and what they are where the model's file has them."""
    booster = estimator.get_booster() if callable(look(estimator, "get_booster")) else estimator
    kinds = look(booster, "feature_types") or []
    at = [number for number, kind in enumerate(kinds) if kind == "c"]
    if not at:
        return {}
    learner = json.loads(booster.save_raw("json"))["learner"]
    model = learner["gradient_booster"].get("model") or learner["gradient_booster"].get(
        "gbtree", {}
    )
    encoded = model.get("model", model).get("cats", {}).get("enc", [])
    lost = Column("category", refusal=_LOST)
    return {
        number: Column("category", values, closed=True)
        if number < len(encoded) and (values := _categories(encoded[number]))
        else lost
        for number in at
    }


def _categories(encoded: dict[str, Any]) -> tuple[Any, ...]:
    """Read the categories of one column: numbers, or the bytes of all strings with their ends."""
    values, ends = encoded["values"], encoded.get("offsets")
    if ends is None:
        return tuple(values)
    text = bytes(value & 0xFF for value in values)
    return tuple(text[a:b].decode() for a, b in zip(ends[:-1], ends[1:], strict=True))


def _catboost(estimator: Any) -> dict[int, Column]:
    """Find the columns of categories, of which a model keeps only hashes, and those of text."""
    if not callable(look(estimator, "get_cat_feature_indices")):
        return {}
    categories = np.asarray(estimator.get_cat_feature_indices(), int).tolist()
    kinds = (
        (estimator.get_text_feature_indices, TEXT),
        (estimator.get_embedding_feature_indices, ANY),
    )
    found = {int(at): column for indices, column in kinds for at in np.asarray(indices(), int)}
    others = [*categories, *found]
    row: list[Any] = [0.0] * max(
        [len(look(estimator, "feature_names_") or ()), *(at + 1 for at in others)]
    )
    for at in others:
        row[at] = UNKNOWN
    for at in categories:
        found[at] = Column("category", label=Labels(estimator, row, at).of)
    return found


_LEARNED: dict[str, Callable[[Any], dict[int, Column]]] = {
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "catboost": _catboost,
}
