"""Values that encoders of other libraries, or of the user, keep by the names of their columns.

category_encoders, feature-engine and most classes of users' own keep what they learned in a dict of
columns, each with a dict, a Series, a DataFrame or a list by its values. It does not say the type
of a column, but how CSV spells a value: whether 90210 is a text, or True one of the two bools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skserve.estimators.columns import ANY, Column, meaning
from skserve.estimators.kept import Names
from skserve.estimators.methods import look

_DEEP = 3  # encoders within encoders, as in category_encoders


def columns(estimator: object, count: int, names: Names) -> list[Column]:
    """Return a column of any type for each, with the values that were learned, where they tell."""
    found: dict[str, dict[tuple[type, Any], Any]] = {}
    for name, value in _learned(estimator, frozenset(names or ()), _DEEP):
        found.setdefault(name, {})[type(value), value] = value
    columns = [Column("any", tuple(found.get(name, {}).values())) for name in names or ()]
    return [one if any(map(_tells, one.values)) else ANY for one in columns] or [ANY] * count


def _tells(value: Any) -> bool:
    """Whether CSV spells a value as it does another one: "90210", "true", or True itself."""
    return isinstance(value, bool) or (isinstance(value, str) and meaning(value) is not value)


def _learned(step: object, names: frozenset[str], deep: int) -> list[tuple[str, Any]]:
    """Return names of columns with values that were learned there; an inner encoder comes first."""
    attributes = list(getattr(step, "__dict__", {}).values())
    inner = [one for one in attributes if deep and callable(look(one, "transform"))]
    if found := [pair for one in inner for pair in _learned(one, names, deep - 1)]:
        return found
    kept: list[tuple[str, Any]] = []
    for one in attributes:
        if isinstance(one, dict) and names.issuperset(map(str, one)):
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
    return [one for one in values if isinstance(one, str | bool | int | float) and one == one]
