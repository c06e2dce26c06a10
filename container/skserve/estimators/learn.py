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

from skserve.estimators import boosters
from skserve.estimators.columns import ANY, NUMBER, TEXT, UNUSED, Column
from skserve.estimators.methods import fitted_steps, look

Names = tuple[str, ...] | None

_RANK = {"unused": 0, "any": 1, "number": 2, "date": 3, "text": 4, "category": 5}

_DEEP = 10  # nested deeper than any model seen, and no endless loop

# An output column of a step that holds the values of an input column: (input, output).
Kept = list[tuple[int, int]]


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
    return (
        boosters.columns(estimator, count)
        or [NUMBER if _takes_numbers_only(estimator) else ANY] * count
    )


def is_vectorizer(step: object) -> bool:
    """Whether `step` reads raw text: the vectorizers share a method that nothing else has."""
    return callable(look(step, "build_analyzer"))


def is_opaque(step: object) -> bool:
    """Whether `step` reads X in a way that it does not tell: a function, or a class of others.

    What was fitted on names or on a number of columns has told that much.
    """
    if fitted_steps(step) or is_vectorizer(step) or look(step, "n_features_in_") is not None:
        return False
    if is_function(step):
        return look(step, "func") is not None
    asked = callable(look(step, "predict")) or callable(look(step, "transform"))
    return asked and not _is_scikit_learn(type(step))


def is_function(step: object) -> bool:
    """Whether `step` is a FunctionTransformer; without a function it hands X on."""
    return type(step).__name__ == "FunctionTransformer"


def first_step(estimator: object) -> object:
    """Follow pipelines, unions and searches to the first step that tells what it reads of X."""
    for _ in range(_DEEP):
        steps = fitted_steps(estimator)
        telling = [one for one in steps if not (is_opaque(one) or _does_nothing(one))]
        inner = [*telling, *_union(estimator), look(estimator, "best_estimator_")][0]
        if inner is None:
            break
        estimator = inner
    return estimator


def unsaid(estimator: object, deep: int = _DEEP) -> list[object]:
    """Return the steps that meet X, in any part of `estimator`, and do not tell what they read."""
    steps = [one for one in fitted_steps(estimator) if not _does_nothing(one)]
    inner = steps[:1] or [*_union(estimator), *_members(estimator)]
    if not inner:
        return [estimator] if is_opaque(estimator) else []
    return [found for one in inner if deep for found in unsaid(one, deep - 1)]


def learned_later(estimator: object, deep: int = _DEEP) -> dict[str, Column]:
    """Return, by name, what the steps behind those that do not tell learned of their columns."""
    steps = [one for one in fitted_steps(estimator) if not _does_nothing(one)]
    if len(steps) > 1 and is_opaque(steps[0]):
        width, names = _width(steps[1]), _names(steps[1])
        columns = _of_steps(steps[1:], width, names) if width and names else []
        return {
            name: replace(one, kind="any")
            for name, one in zip(names or (), columns, strict=True)
            if one.kind == "text"
        }
    found: dict[str, Column] = {}
    for inner in steps[:1] or [*_union(estimator), *_members(estimator)]:
        if deep:
            found |= learned_later(inner, deep - 1)
    return found


def parameters(step: object) -> list[str]:
    """Return the texts among the attributes of `step`, and in lists among them."""
    values = list(vars(step).values()) if hasattr(step, "__dict__") else []
    values += [one for value in values if isinstance(value, list | tuple) for one in value]
    return [value for value in values if isinstance(value, str)]


def _does_nothing(step: object) -> bool:
    return is_function(step) and look(step, "func") is None


def _is_scikit_learn(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "sklearn"


def _takes_numbers_only(estimator: object) -> bool:
    """Whether the code that reads X is scikit-learn's own, and says that it takes numbers alone.

    A subclass that overrides the method reads X itself.
    """
    read = next(
        (
            base
            for base in type(estimator).__mro__
            if {"transform", "predict", "kneighbors", "score_samples"} & set(vars(base))
        ),
        type(estimator),
    )
    return _is_scikit_learn(read) and not _takes_more(estimator)


def _takes_more(estimator: object) -> bool:
    """Whether scikit-learn's tags allow more than numbers: strings, categories, objects."""
    if (tags := look(estimator, "__sklearn_tags__")) is not None:  # from 1.6 on
        found = _called(tags)
        takes = look(found, "input_tags")
        names = ("string", "categorical", "dict")
        return bool(look(found, "no_validation")) or any(look(takes, name) for name in names)
    found = _called(look(estimator, "_get_tags")) or {}
    kinds = {"string", "categorical", "dict", "1dlabels"}
    return bool(found.get("no_validation")) or bool(kinds & set(found.get("X_types", ())))


def _called(function: Any) -> Any:
    """Call a method of a loaded object; None where it fails, as an old pickle may."""
    try:
        return function()
    except Exception:
        return None


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
    kept = _kept(steps[0], count, names)
    if _does_nothing(steps[0]):
        return _of_steps(steps[1:], count, names)
    width, after = _width(steps[1]), _names(steps[1])
    later = _of_steps(steps[1:], width, after) if width else []
    for at, place in kept:
        if place < len(later):
            columns[at] = _handed_on(columns[at], later[place])
    if not kept:
        columns = _guessed(columns, names, later, after)
    return columns


def _width(step: object) -> int:
    """Return the number of columns that `step` was fitted on, or 0 where it does not say."""
    width = look(step, "n_features_in_")
    return int(width) if isinstance(width, int | np.integer) else 0


def _names(step: object) -> Names:
    """Return the names of the columns that `step` was fitted on."""
    known = look(step, "feature_names_in_")
    return None if known is None else tuple(str(name) for name in known)


def _guessed(
    columns: list[Column], names: Names, later: list[Column], after: Names
) -> list[Column]:
    """Add to columns of any type what a later step learned under the same name.

    What the first step does to a column is not known, so this only tells how CSV spells a value.
    """
    if names is None or after is None:
        return columns
    known = {
        name: replace(one, kind="any")
        for name, one in zip(after, later, strict=True)
        if one.kind == "text"
    }
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


def _kept(step: object, count: int, names: Names) -> Kept:
    """Return which columns of what `step` puts out hold the values of a column of X."""
    if _does_nothing(step):
        return [(at, at) for at in range(count)]
    filled = look(step, "statistics_")
    if isinstance(filled, np.ndarray) and filled.ndim == 1 and len(filled) == count:
        return _kept_by_imputer(step, filled)
    inner = fitted_steps(step)
    if inner:
        return _kept_by_steps(inner, count, names)
    routes, outputs = look(step, "transformers_"), look(step, "output_indices_")
    if not isinstance(routes, list) or not isinstance(outputs, dict):
        return []
    kept: Kept = []
    for name, route, chosen in routes:
        if (isinstance(route, str) and route == "drop") or name not in outputs:
            continue
        taken = places(chosen, count, names)
        of_them = tuple(names[at] for at in taken) if names else None
        begin = outputs[name].start or 0
        whole = isinstance(route, str)  # "passthrough"
        inside = [(at, at) for at in range(len(taken))]
        kept += [
            (taken[at], begin + place)
            for at, place in (inside if whole else _kept(route, len(taken), of_them))
        ]
    return kept


def _kept_by_imputer(step: object, filled: NDArray[Any]) -> Kept:
    """Match columns to those that a SimpleImputer puts out: all but the ever missing ones."""
    everything = look(step, "keep_empty_features") or look(step, "strategy") == "constant"
    kept = [at for at, value in enumerate(filled.tolist()) if everything or value == value]
    return [(at, place) for place, at in enumerate(kept)]


def _kept_by_steps(steps: list[Any], count: int, names: Names) -> Kept:
    kept = _kept(steps[0], count, names)
    for step in steps[1:]:
        next_ones = _kept(step, _width(step), _names(step))
        kept = [(at, end) for at, place in kept for start, end in next_ones if start == place]
    return kept


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
    members = look(estimator, "estimators_")
    if isinstance(members, list) and isinstance(drawn, list) and len(drawn) == len(members):
        return [(one, list(places)) for one, places in zip(members, drawn, strict=True)]
    found = [*_union(estimator), look(estimator, "_preprocessor"), *_members(estimator)]
    return [(one, everything) for one in found if _meets(one, count)]


def _members(estimator: object) -> list[Any]:
    """Return the fitted estimators that a search, an ensemble or another wrapper is made of."""
    names = ("best_estimator_", "estimator_", "regressor_", "classifier_")
    found = [one for name in names if (one := look(estimator, name)) is not None]
    members = look(estimator, "estimators_")
    if isinstance(members, list):
        found += members
    for one in look(estimator, "calibrated_classifiers_") or []:
        found.append(look(one, "estimator"))
    return found or [one for one in [look(estimator, "estimator")] if one is not None]


def _meets(part: object, count: int) -> bool:
    """Whether `part` is fitted on as many columns. Trees are many, and learn nothing."""
    return look(part, "n_features_in_") == count and look(part, "tree_") is None


def _union(estimator: object) -> list[Any]:
    """Return the parts of a FeatureUnion."""
    parts = look(estimator, "transformer_list")
    return [part for _, part in parts if not isinstance(part, str)] if parts else []


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


def places(chosen: Any, count: int, names: Names) -> list[int]:
    """Resolve a ColumnTransformer's columns (names, numbers, a slice, a mask) to positions."""
    known = list(names or ())
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = known.index(chosen.start) if chosen.start is not None else 0
            stop = known.index(chosen.stop) + 1 if chosen.stop is not None else count
            return list(range(start, stop))
        return list(range(count))[chosen]
    wanted: list[Any] = [chosen] if np.isscalar(chosen) else list(chosen)
    if wanted and all(isinstance(one, bool | np.bool_) for one in wanted):
        return [place for place, one in enumerate(wanted) if one]
    return [known.index(one) if isinstance(one, str) else int(one) % count for one in wanted]
