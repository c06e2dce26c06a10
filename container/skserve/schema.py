"""What the fitted model expects of a table.

Everything is learned from the fitted estimator, never from a body: the number and names of the
columns, which hold text, which are dropped unseen, what the model can be asked. Every look at the
estimator goes through `methods.look`, and nothing is ever printed: an older pickle may survive
neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.methods import METHODS, find, fitted_steps, look

# Where an estimator that wraps another keeps the fitted one.
_INNER = ("best_estimator_", "estimator_", "regressor_", "classifier_", "estimators_", "estimator")


@dataclass(frozen=True)
class Column:
    """One column of X: `number` is float64, `text` is str, `unused` never reaches the model.

    `values` are the categories that the model learned, where it learned any. `meanings` gives, for
    those of a text column that are not strings, the learned value for its spelling. `missing` is
    what the model met in place of a missing text.
    """

    kind: str = "number"
    values: tuple[Any, ...] = ()
    meanings: dict[str, Any] = field(default_factory=dict)
    missing: float | None = math.nan

    @property
    def example(self) -> Any:
        """A value that fits."""
        return self.values[0] if self.values else "text" if self.kind == "text" else 0.0

    @classmethod
    def of_categories(cls, values: NDArray[Any]) -> Column:
        """Make the column whose fitted encoder learned `values`: (n_categories,)."""
        learned = values.tolist()
        present = tuple(value for value in learned if value is not None and value == value)
        if not any(isinstance(value, str | bool) for value in present) or values.dtype.kind == "b":
            return cls(values=present)  # numbers, though pandas may have kept them as objects
        return cls(
            "text",
            present,
            {str(value): value for value in present if not isinstance(value, str)},
            None if any(value is None for value in learned) else math.nan,
        )


@dataclass(frozen=True)
class Schema:
    """What one fitted model takes and can do.

    `n_features` is None where the model does not say; `text` models take a list of strings.
    `frames` says that X is a DataFrame whenever the model was fitted with names.
    """

    n_features: int | None = None
    names: tuple[str, ...] | None = None
    columns: tuple[Column, ...] = ()
    text: bool = False
    classes: tuple[Any, ...] | None = None
    methods: tuple[str, ...] = ()
    frames: bool = True

    @classmethod
    def of(cls, estimator: object) -> Schema:
        """Learn the schema of a fitted estimator, or an empty one of any other object."""
        methods = tuple(name for name in METHODS if find(estimator, name))
        classes = look(estimator, "classes_")
        known = cls(
            methods=methods,
            classes=tuple(classes.tolist()) if isinstance(classes, np.ndarray) else None,
        )
        if _is_vectorizer(_first(estimator)):
            return replace(known, text=True)
        count = look(estimator, "n_features_in_")
        if not isinstance(count, int | np.integer):
            return known
        names = look(estimator, "feature_names_in_")
        columns = [Column()] * int(count)
        spelled = None if names is None else tuple(str(name) for name in names)
        _learn(estimator, list(range(int(count))), columns, spelled)
        return replace(known, n_features=int(count), names=spelled, columns=tuple(columns))

    @property
    def numeric(self) -> bool:
        """Whether X can be a plain float64 array."""
        return not self.text and all(column.kind != "text" for column in self.columns)

    def describe(self) -> dict[str, Any]:
        """Say for people and programs what X is, with an example of it."""
        names = self.names or (None,) * len(self.columns)
        columns = [
            {"name": name, "type": column.kind}
            | ({"values": column.values} if column.values else {})
            for name, column in zip(names, self.columns, strict=True)
        ]
        example = ["some text"] if self.text else [[column.example for column in self.columns]]
        return {
            "input": "list of texts" if self.text else "table",
            "n_features": self.n_features,
            "columns": columns,
            "classes": self.classes,
            "methods": self.methods,
            "example": {"content_type": "application/json", "body": example},
        }


def _inner(estimator: object) -> Any:
    """Return the fitted estimator that a search, a calibration or an ensemble wraps."""
    for name in _INNER:
        inner = look(estimator, name)
        if isinstance(inner, list | tuple) and inner:
            inner = inner[0]
        if inner is not None and not isinstance(inner, str | type | np.ndarray | list | tuple):
            return inner
    return None


def _first(estimator: object) -> object:
    """Follow wrappers and pipelines to the step that meets X first."""
    for _ in range(10):  # deeper nesting than anyone has shown, and no endless loop
        parts = fitted_steps(estimator) or [
            part for _, part in look(estimator, "transformer_list") or []
        ]
        inner = parts[0] if parts else _inner(estimator)
        if inner is None:
            break
        estimator = inner
    return estimator


def _is_vectorizer(step: object) -> bool:
    """Whether `step` reads raw text: the vectorizers share a method that nothing else has."""
    return callable(look(step, "build_analyzer"))


def _learn(
    estimator: object, at: list[int], columns: list[Column], names: tuple[str, ...] | None
) -> None:
    """Set `columns[i]` for each i in `at`, the columns of X that `estimator` is given."""
    routes = look(estimator, "transformers_")
    if isinstance(routes, list):
        _learn_routes(routes, at, columns, names)
        return
    steps = fitted_steps(estimator)
    for step, after in zip_longest(steps, steps[1:]):
        _learn(step, at, columns, names)
        if not _keeps_columns(step, after, len(at), names):
            return
    learned = look(estimator, "categories_")
    if isinstance(learned, list) and len(learned) == len(at):
        for place, values in zip(at, learned, strict=True):
            columns[place] = Column.of_categories(np.asarray(values))
        return
    filled = look(estimator, "statistics_")
    if isinstance(filled, np.ndarray) and filled.dtype.kind in "OU" and len(filled) == len(at):
        for place, value in zip(at, filled, strict=True):
            if isinstance(value, str):
                columns[place] = Column("text")
        return
    inner = (
        None if fitted_steps(estimator) else look(estimator, "_preprocessor") or _inner(estimator)
    )
    if inner is not None and inner is not estimator:
        _learn(inner, at, columns, names)


def _keeps_columns(step: object, after: object, count: int, names: tuple[str, ...] | None) -> bool:
    """Whether the step `after` in a pipeline meets the columns that `step` was given."""
    filled = look(step, "statistics_")
    if isinstance(filled, np.ndarray) and len(filled) == count and filled.dtype.kind in "OU":
        return True  # an imputer of text
    known = look(after, "feature_names_in_")
    return names is not None and known is not None and tuple(known) == names


def _learn_routes(
    routes: list[Any], at: list[int], columns: list[Column], names: tuple[str, ...] | None
) -> None:
    """Learn from a fitted ColumnTransformer, which says what becomes of each column."""
    used: set[int] = set()
    for _, step, chosen in routes:
        places = [at[i] for i in _places(chosen, len(at), names)]
        if isinstance(step, str) and step == "drop":
            continue
        used.update(places)
        if isinstance(step, str):
            continue
        if _is_vectorizer(_first(step)):
            for place in places:
                columns[place] = Column("text")
        else:
            before = [columns[place] for place in places]
            _learn(step, places, columns, names)
            for place, column in zip(places, before, strict=True):
                if column.kind == "text":
                    columns[place] = column  # another route has said so already
    for place in at:
        if place not in used:
            columns[place] = Column("unused")


def _places(chosen: Any, count: int, names: tuple[str, ...] | None) -> list[int]:
    """Resolve a ColumnTransformer's columns (names, numbers, a slice, a mask) to positions."""
    if isinstance(chosen, str) or np.isscalar(chosen):
        chosen = [chosen]
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            known = list(names or ())
            start = known.index(chosen.start) if chosen.start is not None else 0
            stop = known.index(chosen.stop) + 1 if chosen.stop is not None else count
            return list(range(start, stop))
        return list(range(count))[chosen]
    wanted = list(chosen)
    if wanted and all(isinstance(one, bool | np.bool_) for one in wanted):
        return [place for place, one in enumerate(wanted) if one]
    return [
        (names or ()).index(one) if isinstance(one, str) else int(one) % count for one in wanted
    ]
