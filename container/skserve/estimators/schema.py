"""What the fitted model expects of a table, and what it can be asked.

Everything is learned from the fitted estimator, never from a body. Every look at it goes through
`methods.look`, and nothing is ever printed: an older pickle may survive neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from skserve.estimators.columns import Column, first_step, is_vectorizer, learn
from skserve.estimators.methods import METHODS, find, fitted_steps, look


@dataclass(frozen=True)
class Schema:
    """What one fitted model takes and can do.

    `n_features` is None where the model does not say; `text` models take a list of strings.
    """

    n_features: int | None = None
    names: tuple[str, ...] | None = None
    columns: tuple[Column, ...] = ()
    text: bool = False
    classes: tuple[Any, ...] | None = None
    methods: tuple[str, ...] = ()

    @classmethod
    def of(cls, estimator: object) -> Schema:
        """Learn the schema of a fitted estimator, or an empty one of any other object."""
        methods = tuple(name for name in METHODS if find(estimator, name))
        labels = look(estimator, "classes_")
        classes = tuple(labels.tolist()) if isinstance(labels, np.ndarray) else None
        if is_vectorizer(first_step(estimator)):
            return cls(text=True, classes=classes, methods=methods)
        count, names = _fitted_on(estimator)
        if count is None:
            return cls(classes=classes, methods=methods)
        columns = tuple(learn(estimator, count, names))
        return cls(count, names, columns, classes=classes, methods=methods)

    @cached_property
    def numeric(self) -> bool:
        """Whether X can be a plain float64 array."""
        return not self.text and all(one.kind in ("number", "unused") for one in self.columns)

    def describe(self) -> dict[str, Any]:
        """Say for people and programs what X is, with an example of it."""
        names = self.names or (None,) * len(self.columns)
        columns = [
            {
                "name": name,
                "type": column.kind,
                **({"values": column.values} if column.values else {}),
            }
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


def _fitted_on(estimator: object) -> tuple[int | None, tuple[str, ...] | None]:
    """Return the number and names of the columns a model was fitted on, as far as it says.

    A pipeline asks its first step; where that passes everything through, the next one knows.
    """
    steps = fitted_steps(estimator)
    asked = [estimator, look(estimator, "best_estimator_"), *steps[:1]]
    asked += [step for one in asked[1:2] for step in fitted_steps(one)[:1]]
    for one in asked:
        count = look(one, "n_features_in_")
        if isinstance(count, int | np.integer):
            names = look(one, "feature_names_in_")
            return int(count), None if names is None else tuple(str(name) for name in names)
    return None, None
