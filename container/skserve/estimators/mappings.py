"""Values that encoders of other libraries, or of the user, keep by the names of their columns.

category_encoders, feature-engine and most classes of users' own keep what they learned in a dict of
columns, each with a dict, a Series, a DataFrame or a list by its values. It does not say the type
of a column, but how CSV spells a value: whether 90210 is a text, or True one of the two bools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skserve.estimators.columns import Column, meaning
from skserve.estimators.kept import Names, names_of
from skserve.estimators.methods import look

_DEEP = 3  # encoders within encoders, as in category_encoders


def columns(step: object, names: Names = None) -> dict[str, Column]:
    """Return, by name, columns of any type with the values that were learned, where they tell.

    Without `names`, whatever the step keeps by strings is taken for columns.
    """
    found: dict[str, dict[tuple[type, Any], Any]] = {}
    for name, value in _learned(step, frozenset(names or ()), _DEEP):
        found.setdefault(name, {})[type(value), value] = value
    made = {name: Column("any", tuple(values.values())) for name, values in found.items()}
    return {name: one for name, one in made.items() if any(map(tells, one.values))}


def of_features(vectorizer: object) -> dict[str, Column]:
    """Return, by name, the columns of a DictVectorizer: a feature of it is `name`, or `name=text`.

    There are as many as words in a text, where it counts those.
    """
    separator, features = look(vectorizer, "separator"), look(vectorizer, "feature_names_") or []
    texts: dict[str, list[Any]] = {}
    for feature in map(str, features):
        name, between, text = feature.partition(separator)
        kept = texts.setdefault(name, [])
        if between and (tells(text) or not kept):
            kept.append(text)
    numbers = frozenset(features).intersection(texts)
    return {
        name: Column("any", (*kept, *(_BITS if name in numbers else ()))) if kept else _NUMBERS
        for name, kept in texts.items()
    }


_BITS = (0, 1)  # what False and True are to it
_NUMBERS = Column("any", _BITS)


def tells(value: Any) -> bool:
    """Whether CSV spells a value as it does another one: "90210", "true", or True itself."""
    return isinstance(value, bool) or (isinstance(value, str) and meaning(value) is not value)


def _learned(step: object, names: frozenset[str], deep: int) -> list[tuple[str, Any]]:
    """Return names of columns with values that were learned there; an inner encoder comes first."""
    attributes = list(getattr(step, "__dict__", {}).values())
    inner = [one for one in attributes if deep and callable(look(one, "transform"))]
    if found := [pair for one in inner for pair in _learned(one, names, deep - 1)]:
        return found
    dtypes = look(step, "feature_dtypes_in_")  # of category_encoders
    pairs = zip(names_of(step) or (), dtypes if isinstance(dtypes, list) else (), strict=False)
    kept: list[tuple[str, Any]] = [
        (name, (False, True)) for name, dtype in pairs if str(dtype) == "bool"
    ]
    for one in attributes:
        if isinstance(one, dict) and (not names or names.issuperset(map(str, one))):
            kept += [(str(name), values) for name, values in one.items()]
        elif isinstance(one, list):  # of category_encoders' OrdinalEncoder
            of_columns = [part for part in one if isinstance(part, dict) and "col" in part]
            kept += [(str(part["col"]), part.get("mapping")) for part in of_columns]
    return [(name, value) for name, values in kept for value in _values(values)]


def _values(kept: Any) -> list[Any]:
    """Return the plain values by which something is kept for a column."""
    index = look(kept, "index")  # of a Series or a DataFrame; a method of a list
    listed = kept if isinstance(kept, Mapping | list | tuple) else look(index, "tolist")
    values = listed() if callable(listed) else listed or ()
    plain = [one.item() if isinstance(one, np.generic) else one for one in values]
    return [one for one in plain if isinstance(one, str | bool | int | float) and one == one]
