"""What the fitted model expects of a table, and what it can be asked.

Everything is learned from the fitted estimator, never from a body. Every look at it goes through
`methods.look`, and nothing is ever printed: an older pickle may survive neither.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from skserve.errors import StartError
from skserve.estimators import boosters, mappings
from skserve.estimators.columns import ANY, Column
from skserve.estimators.declared import Declared, joined
from skserve.estimators.learn import learn, learned_later
from skserve.estimators.methods import METHODS, find, fitted_steps, look
from skserve.estimators.ranges import ranges_of
from skserve.estimators.readers import (
    first_step,
    is_vectorizer,
    parameters,
    reads_dicts,
    unsaid,
)


@dataclass(frozen=True)
class Schema:
    """What one fitted model takes and can do.

    `n_features` is None where the model does not say; `text` models take a list of strings, and
    models of `records` a list of dicts, whose names may differ. An `open` model reads X with a step
    that says nothing of its columns: it is given the names that a body has. `reads` are the texts
    among the parameters of that step, such as names, and `later` is what was learned of columns, by
    name, behind it, or by a model of records.
    A `spaceless` model has underscores for the spaces in the names of its columns.
    `ignores_extra` says that the model looks its columns up by name and ignores others.
    `libsvm_base` is the number of the first column in libsvm text.
    """

    n_features: int | None = None
    names: tuple[str, ...] | None = None
    columns: tuple[Column, ...] = ()
    text: bool = False
    records: bool = False
    open: bool = False
    reads: frozenset[str] = frozenset()
    later: Mapping[str, Column] = field(default_factory=dict)
    spaceless: bool = False
    ignores_extra: bool = False
    libsvm_base: int = 0
    classes: tuple[Any, ...] | None = None
    methods: tuple[str, ...] = ()

    @classmethod
    def of(cls, estimator: object, declared: Declared | None = None) -> Schema:
        """Learn the schema of a fitted estimator, or an empty one of any other object.

        What is declared of its columns beside it is joined with that. Raises StartError where that
        is about another model.
        """
        learned = cls._learned(estimator)
        return learned._with(declared) if declared and declared.columns else learned

    @classmethod
    def _learned(cls, estimator: object) -> Schema:
        labels = look(estimator, "classes_")
        known = cls(
            classes=tuple(labels.tolist()) if isinstance(labels, np.ndarray) else None,
            methods=tuple(name for name in METHODS if find(estimator, name)),
        )
        first = first_step(estimator)
        count, names = _fitted_on(estimator)
        if count is None or is_vectorizer(first) or reads_dicts(first):
            silent = unsaid(estimator)
            if reads_dicts(first) and not silent:
                return replace(known, records=True, later=mappings.of_features(first))
            reads = frozenset(text for step in silent for text in parameters(step))
            later = learned_later(estimator)
            return replace(
                known, text=is_vectorizer(first), open=bool(silent), reads=reads, later=later
            )
        columns = tuple(
            replace(column, low=low, high=high)
            for column, (low, high) in zip(
                learn(estimator, count, names), ranges_of(estimator, count, names), strict=True
            )
        )
        extra = names is not None and isinstance(look(first, "transformers_"), list)
        return replace(
            known,
            n_features=count,
            names=names,
            columns=columns,
            spaceless=boosters.is_spaceless(first),
            ignores_extra=extra,
        )

    def _with(self, declared: Declared) -> Schema:
        """Add what is declared of the columns."""
        columns, names = declared.columns, declared.names
        if self.records:
            pairs = zip(names or (), columns, strict=bool(names))
            known = {name: joined(self.later.get(name, ANY), one) for name, one in pairs}
            return replace(self, later={**self.later, **known})
        if self.text and (not self.open or (len(columns) == 1 and names is None)):
            return self  # its one column is text, whatever it is called
        if self.n_features is None:
            if names:
                columns = tuple(
                    joined(self.later.get(name, ANY), one)
                    for name, one in zip(names, columns, strict=True)
                )
            whole = replace(self, n_features=len(columns), names=names, columns=columns)
            return replace(whole, text=False, open=False, later={})
        by_name = dict(zip(names or (), columns, strict=bool(names)))
        if names and self.names and set(names) <= set(self.names):
            columns = tuple(by_name.get(name, ANY) for name in self.names)
        elif len(columns) != self.n_features or (names and self.names):
            seen = f"{len(columns)} columns" + (f" ({', '.join(names)})" if names else "")
            raise StartError(
                f"{declared.source} declares {seen}, but the model was fitted on "
                f"{self.n_features}" + (f" ({', '.join(self.names)})." if self.names else ".")
            )
        told = tuple(joined(one, other) for one, other in zip(self.columns, columns, strict=True))
        return replace(self, names=self.names or names, columns=told)

    def own(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of a body as the model spells them."""
        return tuple(name.replace(" ", "_") for name in names) if self.spaceless else names

    def takes_names(self, names: Collection[str]) -> bool:
        """Whether a body's column names are handed on to the model, or matched to its own.

        The one column of a text model is its text, unless a step asks for it by name.
        """
        if self.records:
            return True
        if self.text:
            return self.open and (len(names) > 1 or not self.reads.isdisjoint(names))
        return self.open or self.names is not None or numbered(names)

    @cached_property
    def numeric(self) -> bool:
        """Whether X can be a plain float64 array."""
        return not (self.text or self.open or self.records) and all(
            one.kind in ("number", "unused") for one in self.columns
        )

    @cached_property
    def listed(self) -> tuple[bool, ...] | None:
        """Which columns of a Frame are lists of objects, the others being arrays of float64.

        None where X is no Frame, or its cells alone can tell.
        """
        kinds = [one.kind for one in self.columns]
        if self.numeric or self.text or self.open or not {*kinds} <= {"number", "text", "unused"}:
            return None
        return tuple(kind == "text" for kind in kinds)

    @cached_property
    def taken(self) -> tuple[type | None, ...]:
        """The type of cell that each column takes as it is, where one is known."""
        types = {"number": float, "text": str}
        return tuple(types.get(one.kind) if not one.others else None for one in self.columns)

    @cached_property
    def takes_texts(self) -> bool:
        """Whether a text alone can be a row: of a text model, or in a lone column of no numbers."""
        return self.text or [one.kind in ("text", "any") for one in self.columns] == [True]

    @cached_property
    def narrow(self) -> tuple[tuple[int, Column], ...]:
        """The columns whose learned numbers are narrower than float64, with their places."""
        return tuple((at, one) for at, one in enumerate(self.columns) if one.precision)

    def describe(self) -> dict[str, Any]:
        """Say for people and programs what X is, who says so, and give an example of it."""
        names = self.names or (None,) * len(self.columns)
        columns = [
            {
                "name": name,
                "type": column.kind,
                "source": "not said" if column.kind == "any" else column.source,
                **({"values": column.values} if column.values else {}),
                **({"minimum": column.low, "maximum": column.high} if column.limited else {}),
            }
            for name, column in zip(names, self.columns, strict=True)
        ]
        return {
            "input": self._input,
            "n_features": self.n_features,
            "columns": columns,
            "classes": self.classes,
            "methods": self.methods,
            "example": self.example(),
        }

    def example(self) -> dict[str, Any] | None:
        """Return a body that the model takes, or None where the model does not say its columns."""
        row: Any = [column.example for column in self.columns]
        if self.records:
            row = {name: self.later[name].example for name in islice(self.later, _SHOWN)}
        if self.text:
            row = "some text"
        return {"content_type": "application/json", "body": [row]} if row else None

    @property
    def _input(self) -> str:
        return "list of texts" if self.text else "list of objects" if self.records else "table"


_SHOWN = 20  # names in an example, of those that a model of records may have


def numbered(names: Collection[str]) -> bool:
    """Whether these are the names of a DataFrame that was made without any: 0, 1 and so on."""
    return set(names) == set(map(str, range(len(names))))


def _fitted_on(estimator: object) -> tuple[int | None, tuple[str, ...] | None]:
    """Return the number and names of the columns a model was fitted on, as far as it says.

    A pipeline asks its first step; where that passes everything through, the next one knows.
    """
    steps = fitted_steps(estimator)
    asked = [estimator, look(estimator, "best_estimator_"), *steps[:1]]
    asked += [step for one in asked[1:2] for step in fitted_steps(one)[:1]]
    for one in asked:
        if found := boosters.fitted_on(one):
            return found
        if type(one).__name__ == "IsotonicRegression":
            return 1, None  # it does not say so
        count = look(one, "n_features_in_")
        if isinstance(count, int | np.integer):
            names = look(one, "feature_names_in_")
            return int(count), None if names is None else tuple(str(name) for name in names)
    return None, None
