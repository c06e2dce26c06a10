"""What a fitted estimator learned of each column of X: a number, text, or nothing that it says.

A column can have several consumers: the routes of a ColumnTransformer, the parts of a FeatureUnion,
the members of an ensemble. Each says what it learned of the columns it is given, and `_merged` puts
that together: the one that says more wins. Where a step hands a column on as it is, the steps after
it are asked. A class that is not scikit-learn's own says nothing: there the cell stays as sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators import boosters, mappings
from skserve.estimators.columns import ANY, NUMBER, TEXT, UNUSED, Column
from skserve.estimators.kept import Names, kept_by, names_of, places, width_of
from skserve.estimators.methods import fitted_steps, look
from skserve.estimators.readers import (
    DEEP,
    does_nothing,
    held,
    is_opaque,
    is_vectorizer,
    members,
    takes_numbers_only,
    union,
)

_RANK = {"unused": 0, "any": 1, "number": 2, "date": 3, "text": 4, "category": 5}


def learn(estimator: object, count: int, names: Names) -> list[Column]:
    """Return what `estimator` learned of the `count` columns it was fitted on."""
    routes = look(estimator, "transformers_")
    if isinstance(routes, list):
        return _of_routes(routes, count, names)
    steps = fitted_steps(estimator)
    if steps:
        return _of_steps(steps, count, names)
    if is_vectorizer(estimator):
        return [TEXT] * count
    categories = look(estimator, "categories_")
    if isinstance(categories, list) and len(categories) >= count:
        return [Column.of_categories(np.asarray(values)) for values in categories[:count]]
    filled = look(estimator, "statistics_")
    if isinstance(filled, np.ndarray) and len(filled) == count:
        return _of_imputer(filled, look(estimator, "missing_values"))
    found = [_placed(part, places, count, names) for part, places in _parts(estimator, count)]
    if found and look(estimator, "_preprocessor") is not None:  # of gradient boosting: the rest
        return [NUMBER if one.kind == "any" else one for one in _merged(found)]
    if found:
        return _merged(found)
    if known := boosters.columns(estimator, count):
        return known
    if takes_numbers_only(estimator):
        return [NUMBER] * count
    by_name = _held(estimator, names)
    return [by_name.get(name, ANY) for name in names or ()] or [ANY] * count


def _held(step: object, names: Names = None, deep: int = DEEP) -> dict[str, Column]:
    """Return, by name, what a class of others learned itself, and the fitted steps that it holds.

    It does not say the types of its columns, so this only tells how CSV spells their values.
    """
    found: dict[str, Column] = {}
    for one in held(step) if deep else ():
        own = names_of(one)
        if own is None:
            found |= learned_later(one, deep - 1)
        elif names is None or set(own) <= set(names):
            found |= _spelled(own, learn(one, len(own), own))
    return found | mappings.columns(step, names)


def _spelled(names: Names, columns: list[Column]) -> dict[str, Column]:
    """Return, by name, columns of any type with the values that were learned, where they tell."""
    return {
        name: replace(one, kind="any")
        for name, one in zip(names or (), columns, strict=True)
        if one.kind == "text" or one.label or any(map(mappings.tells, one.values))
    }


def learned_later(estimator: object, deep: int = DEEP) -> dict[str, Column]:
    """Return, by name, what the steps behind those that do not tell learned of their columns."""
    steps = [one for one in fitted_steps(estimator) if not does_nothing(one)]
    if len(steps) > 1 and is_opaque(steps[0]):
        width, names = width_of(steps[1]), names_of(steps[1])
        columns = _of_steps(steps[1:], width, names) if width and names else []
        return _spelled(names if columns else (), columns) | _held(steps[0], None, deep)
    if is_opaque(estimator):
        return _held(estimator, None, deep)
    found: dict[str, Column] = {}
    for inner in steps[:1] or [*union(estimator), *members(estimator)]:
        if deep:
            found |= learned_later(inner, deep - 1)
    return found


def _of_routes(routes: list[Any], count: int, names: Names) -> list[Column]:
    """Learn from a fitted ColumnTransformer, which says what becomes of each column."""
    found = []
    for _, step, chosen in routes:
        if isinstance(step, str) and step == "drop":
            continue
        found.append(_placed(step, places(chosen, count, names), count, names))
    return _merged([[UNUSED] * count, *found])


def _of_steps(steps: list[Any], count: int, names: Names) -> list[Column]:
    """Learn from a Pipeline: its first step, and those after it that meet the same columns."""
    columns = learn(steps[0], count, names)
    if len(steps) == 1:
        return columns
    kept = kept_by(steps[0], count, names)
    if does_nothing(steps[0]):
        return _of_steps(steps[1:], count, names)
    width, after = width_of(steps[1]), names_of(steps[1])
    later = _of_steps(steps[1:], width, after) if width else []
    for at, place in kept:
        if place < len(later):
            columns[at] = _handed_on(columns[at], later[place])
    if not kept:
        columns = _guessed(columns, names, later, after)
    return columns


def _guessed(
    columns: list[Column], names: Names, later: list[Column], after: Names
) -> list[Column]:
    """Add to columns of any type what a later step learned under the same name.

    What the first step does to a column is not known, so this only tells how CSV spells a value.
    """
    if names is None or after is None:
        return columns
    known = _spelled(after, later)
    return [
        known[name] if one.kind == "any" and name in known else one
        for name, one in zip(names, columns, strict=True)
    ]


def _handed_on(first: Column, later: Column) -> Column:
    """Join what the step that hands a column on says with what the steps after it learned.

    An imputer has met what was missing. A blank cell is what it fills, if that is not NaN.
    """
    if first.kind == "any" and not first.imputed:
        return later
    says = not isinstance(first.blank, float)
    blank = first.blank if says else later.blank
    # An imputer of NaN hands None on, so where None was learned it is what was missing.
    missing = None if later.missing is None else first.missing
    return replace(_stronger(first, later), missing=missing, blank=blank)


def _of_imputer(filled: NDArray[Any], missing: Any) -> list[Column]:
    """Learn from a SimpleImputer, whose fill values have the types of their columns."""
    if missing is None or (isinstance(missing, str) and not missing):  # pandas.NA compares to none
        text = Column("text", missing=missing, blank=missing)
    else:
        text = TEXT
    number = NUMBER if filled.dtype.kind == "f" else replace(ANY, imputed=True)
    return [text if isinstance(value, str) else number for value in filled.tolist()]


def _placed(part: object, places: Sequence[int], count: int, names: Names) -> list[Column]:
    """Learn from a consumer of some columns; the others it does not use."""
    columns = [UNUSED] * count
    chosen = tuple(names[place] for place in places) if names else None
    passed = isinstance(part, str)  # "passthrough"
    found = [ANY] * len(places) if passed else learn(part, len(places), chosen)
    for place, column in zip(places, found, strict=True):
        columns[place] = _stronger(columns[place], column)
    return columns


def _parts(estimator: object, count: int) -> list[tuple[object, Sequence[int]]]:
    """Return the fitted estimators inside one that is made of others, with the columns of each."""
    everything = range(count)
    drawn = look(estimator, "estimators_features_")
    fitted = look(estimator, "estimators_")
    if isinstance(fitted, list) and isinstance(drawn, list) and len(drawn) == len(fitted):
        return [(one, list(places)) for one, places in zip(fitted, drawn, strict=True)]
    found = [*union(estimator), look(estimator, "_preprocessor"), *members(estimator)]
    return [(one, everything) for one in found if _meets(one, count)]


def _meets(part: object, count: int) -> bool:
    """Whether `part` is fitted on as many columns. Trees are many, and learn nothing."""
    return look(part, "n_features_in_") == count and look(part, "tree_") is None


def _merged(found: Iterable[list[Column]]) -> list[Column]:
    """Put together what several consumers learned of the same columns."""
    result: list[Column] = []
    for columns in found:
        result = [
            _stronger(one, other) for one, other in zip(result or columns, columns, strict=True)
        ]
    return result


def _stronger(one: Column, other: Column) -> Column:
    """Choose the column that says more: its kind, then the values that were learned."""
    ranks = _RANK[one.kind], _RANK[other.kind]
    if ranks[0] != ranks[1]:
        return one if ranks[0] > ranks[1] else other
    return one if one.values or not other.values else other
