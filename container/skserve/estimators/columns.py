"""What a fitted estimator learned of each column of X: a number, text, or nothing at all.

A column can have several consumers: the routes of a ColumnTransformer, the parts of a FeatureUnion,
the members of an ensemble. Each says what it learned of the columns it is given, and `_merged` puts
that together: text before numbers, numbers before a column that no step reads.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.methods import fitted_steps, look

EXACT = 2**53  # above it a float64 no longer tells one whole number from the next

# How pandas, JSON and spreadsheets write the two values of a column of bools.
TRUTH = {
    word: value
    for value in (True, False)
    for word in (str(value), str(value).lower(), str(value).upper())
}

_RANK = {"unused": 0, "number": 1, "date": 2, "text": 3}


@dataclass(frozen=True)
class Column:
    """One column of X.

    `number` is float64. `text` is a column of objects: strings, or whatever `values` the model
    learned there. `unused` never reaches an estimator. `date` is not supported and says so.
    `missing` stands for null and NaN in a text column, `blank` for an empty cell of CSV.
    """

    kind: str = "number"
    values: tuple[Any, ...] = ()
    missing: Any = math.nan
    blank: Any = math.nan

    @classmethod
    def of_categories(cls, learned: NDArray[Any]) -> Column:
        """Make the column whose fitted encoder learned the categories `learned`."""
        if learned.dtype.kind == "M":
            return cls("date")
        values = learned.tolist()
        present = tuple(one for one in values if one is not None and one == one)
        exact = learned.dtype.kind in "biu" and all(abs(one) < EXACT for one in present)
        if exact or learned.dtype.kind == "f":
            return cls(values=present)
        missing = None if any(one is None for one in values) else math.nan
        known = len(present) < len(values)
        return cls("text", present, missing, "" if "" in present and not known else missing)

    @cached_property
    def strings(self) -> frozenset[str]:
        """The learned values that are strings."""
        return frozenset(one for one in self.values if isinstance(one, str))

    @cached_property
    def others(self) -> dict[Any, Any]:
        """The other learned values, by value: True, 1 and 1.0 are one key, as in scikit-learn.

        What is neither a number nor a bool, such as a date, is found by its spelling.
        """
        return {
            one if isinstance(one, int | float) else str(one): one
            for one in self.values
            if not isinstance(one, str)
        }

    def learned(self, cell: Any, spelled: bool) -> Any:
        """Return the learned value that equals `cell`, or else the one that it means.

        A cell of CSV (`spelled`) has no type. Raises Ambiguous where it spells a learned string
        and means another learned value too, and TypeError for a cell that can be neither.
        """
        if not isinstance(cell, str):
            if isinstance(cell, int | float) and self.others:
                return self.others.get(cell, cell)
            raise TypeError
        if not self.others:
            return cell
        means = meaning(cell)
        found = self.others.get(means)
        if found is None and isinstance(means, int) and EXACT <= abs(means) <= sys.float_info.max:
            nearest = self.others.get(float(means))
            found = nearest if isinstance(nearest, float) else None
        if cell in self.strings:
            if spelled and found is not None:
                raise Ambiguous
            return cell
        if found is not None:
            return found
        if self.strings:
            return cell
        return means if means == means else self.missing

    @property
    def example(self) -> Any:
        """A value that fits."""
        return self.values[0] if self.values else "text" if self.kind == "text" else 0.0


class Ambiguous(ValueError):
    """A cell could be either of two learned values."""


def meaning(text: str) -> Any:
    """Return the bool or the number that `text` spells, whole numbers exactly, or `text` itself."""
    word = text.strip()
    if word in TRUTH:
        return TRUTH[word]
    if "_" in word:  # Python reads 1_000, no file format does
        return text
    try:
        return int(word)
    except ValueError:
        pass
    try:
        number = float(word)
    except ValueError:
        return text
    # A float64 stands for several whole numbers from here on, and the text for one.
    if EXACT <= abs(number) < math.inf and (exact := Decimal(word)) == exact.to_integral_value():
        return int(exact)
    return number


NUMBER, UNUSED, TEXT = Column(), Column("unused"), Column("text")
Names = tuple[str, ...] | None


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
    return _merged(found) if found else [NUMBER] * count


def is_vectorizer(step: object) -> bool:
    """Whether `step` reads raw text: the vectorizers share a method that nothing else has."""
    return callable(look(step, "build_analyzer"))


def first_step(estimator: object) -> object:
    """Follow pipelines, unions and searches to the step that meets X first."""
    for _ in range(10):  # deeper nesting than anyone has shown, and no endless loop
        steps = [one for one in fitted_steps(estimator) if not _is_function(one)]
        inner = [*steps, *_union(estimator), look(estimator, "best_estimator_")][0]
        if inner is None:
            break
        estimator = inner
    return estimator


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
    if _is_function(steps[0]) and look(steps[0], "func") is None:
        return _of_steps(steps[1:], count, names)  # it does nothing
    if isinstance(look(steps[0], "statistics_"), np.ndarray):
        after = _of_steps(steps[1:], count, names)
        return [_imputed(one, other) for one, other in zip(columns, after, strict=True)]
    known = look(steps[1], "feature_names_in_")
    if names is None or known is None:
        return columns
    kept = tuple(str(name) for name in known)
    later = dict(zip(kept, _of_steps(steps[1:], len(kept), kept), strict=True))
    return _merged([columns, [later.get(name, UNUSED) for name in names]])


def _imputed(imputer: Column, later: Column) -> Column:
    """Join what an imputer says of a column with what the steps after it learned of its values.

    Only the imputer has met what was missing. A blank cell is what it fills, if that is not NaN.
    """
    says = not isinstance(imputer.blank, float)
    blank = imputer.blank if says else later.blank
    return replace(_stronger(imputer, later), missing=imputer.missing, blank=blank)


def _of_imputer(filled: NDArray[Any], missing: Any) -> list[Column]:
    """Learn from a SimpleImputer, whose fill values have the types of their columns."""
    if missing is None or (isinstance(missing, str) and not missing):  # pandas.NA compares to none
        text = Column("text", missing=missing, blank=missing)
    else:
        text = TEXT
    return [text if isinstance(value, str) else NUMBER for value in filled.tolist()]


def _placed(part: object, places: Sequence[int], count: int, names: Names) -> list[Column]:
    """Learn from a consumer of some columns; the others it does not use."""
    columns = [UNUSED] * count
    chosen = tuple(names[place] for place in places) if names else None
    passed = isinstance(part, str)  # "passthrough"
    found = [NUMBER] * len(places) if passed else learn(part, len(places), chosen)
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
    found = _union(estimator)
    for name in ("best_estimator_", "estimator_", "regressor_", "classifier_", "_preprocessor"):
        found.append(look(estimator, name))
    if isinstance(members, list):
        found += members
    for one in look(estimator, "calibrated_classifiers_") or []:
        found.append(look(one, "estimator"))
    if not any(found):
        found.append(look(estimator, "estimator"))
    return [(one, everything) for one in found if _meets(one, count)]


def _meets(part: object, count: int) -> bool:
    """Whether `part` is fitted on as many columns. Trees are many, and learn nothing."""
    return look(part, "n_features_in_") == count and look(part, "tree_") is None


def _union(estimator: object) -> list[Any]:
    """Return the parts of a FeatureUnion."""
    parts = look(estimator, "transformer_list")
    return [part for _, part in parts if not isinstance(part, str)] if parts else []


def _is_function(step: object) -> bool:
    return type(step).__name__ == "FunctionTransformer"


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
