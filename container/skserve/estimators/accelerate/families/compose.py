"""What is composed of steps: Pipeline, ColumnTransformer, FeatureUnion, the best of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import itemgetter
from typing import Any

import numpy as np

from skserve.estimators.accelerate.blocks import NARROW, Terms, beside, scaled, taken
from skserve.estimators.accelerate.families.scalers import Same
from skserve.estimators.accelerate.kernel import Builder, Kernel, OneRow, for_one, one_row
from skserve.estimators.accelerate.registry import Part, kernel, part
from skserve.estimators.frame import Frame
from skserve.estimators.kept import places
from skserve.estimators.methods import fitted_steps, look


@dataclass(frozen=True, eq=False)
class Chain:
    """One step after the other."""

    steps: tuple[Part, ...]
    last: Part

    def __call__(self, X: Any) -> Any:
        """Return what the last step makes of what the others make of X."""
        for step in self.steps:
            X = taken(step(X))
        return self.last(X)

    def for_one(self) -> OneRow | None:
        """Return the steps in plain Python, as many as have such a way; the others get an array."""
        lead = [step for step in takewhile(bool, map(for_one, self.steps)) if step]
        if not lead:
            return None
        rest, last = self.steps[len(lead) :], for_one(self.last)

        def row(cells: Sequence[Any]) -> Any:
            made: Any = cells
            for step in lead:
                made = step(made)
            if last and not rest:
                return last(made)
            X = made.numbers() if type(made) is Terms else one_row(made)
            for one in rest:
                X = taken(one(X))
            return self.last(X)

        return row


def _pipeline(estimator: Any, method: str) -> Kernel | None:
    """Each step by its kernel, or by itself, with the names it knows, where that has no answer."""
    *transformers, last = fitted_steps(estimator) or [None]
    steps = [part(step, "transform") for step in transformers] + [part(last, method)]
    found = [step for step in steps if step is not None]
    if len(found) < len(steps) or not any(step.fast for step in found):
        return None
    return Chain(tuple(found[:-1]), found[-1])


@dataclass(frozen=True, eq=False)
class Route:
    """A transformer and the columns it gets: a single one may come as a list of cells."""

    columns: tuple[int, ...]
    names: tuple[str, ...] | None
    alone: bool
    step: Kernel
    weight: float | None

    def __call__(self, X: Any) -> Any:
        """Return what the transformer makes of its columns."""
        if isinstance(X, Frame):
            X = X.columns[self.columns[0]] if self.alone else X.take(self.columns, self.names)
        else:
            X = X[:, self.columns[0]] if self.alone else X.take(self.columns, axis=1)
        made = self.step(X)
        return made if self.weight is None else scaled(taken(made), self.weight)

    def for_one(self) -> OneRow | None:
        """Return what the transformer makes of its cells of a row, by itself and not weighted."""
        step = for_one(self.step)
        if step is None or self.alone or self.weight is not None:
            return None
        if len(self.columns) == 1:
            (at,) = self.columns
            return lambda cells: step((cells[at],))
        take = itemgetter(*self.columns)
        return lambda cells: step(take(cells))


@dataclass(frozen=True, eq=False)
class Beside:
    """What several transformers make, side by side; `sparse` is None where they decide."""

    routes: tuple[Kernel, ...]
    sparse: bool | None

    def __call__(self, X: Any) -> Any:
        """Return Blocks, or an array where all make arrays."""
        made = [taken(route(X)) for route in self.routes]
        some = any(getattr(one, "sparse", False) for one in made)
        return beside(made, len(X), some if self.sparse is None else self.sparse)

    def for_one(self) -> OneRow | None:
        """Return Terms, or a list where all make lists, as arrays are made of many rows."""
        known = tuple(map(for_one, self.routes))
        steps = tuple(one for one in known if one)
        sparse = bool(self.sparse)
        if len(steps) < len(known):
            return None

        def row(cells: Sequence[Any]) -> Terms | list[Any]:
            columns: list[int] = []
            values: list[Any] = []
            at, mixed, wide = 0, sparse, False
            for step in steps:
                made = step(cells)
                if type(made) is Terms:
                    mixed = True
                    columns += [at + one for one in made.columns] if at else made.columns
                    values += made.values
                    at += made.width
                else:
                    columns += range(at, at + len(made))
                    values += made
                    at += len(made)
                    wide = wide or len(made) > NARROW
            return Terms(columns, values, at, wide) if mixed else values

        return row


def _column_transformer(estimator: Any, method: str) -> Kernel | None:
    """The columns of each route through its kernel, side by side."""
    routes, count = look(estimator, "transformers_"), look(estimator, "n_features_in_")
    if method != "transform" or not isinstance(routes, list):
        return None
    names = look(estimator, "feature_names_in_")
    known = None if names is None else tuple(names)
    weights = look(estimator, "transformer_weights") or {}
    found = []
    for name, step, chosen in routes:
        columns = places(chosen, count, known)
        if (isinstance(step, str) and step == "drop") or not columns:
            continue
        alone = np.isscalar(chosen) and not isinstance(chosen, bool)
        asked = Same() if isinstance(step, str) else part(step, "transform")
        if asked is None or (isinstance(step, str) and alone):
            return None
        its = None if known is None else tuple(known[at] for at in columns)
        found.append(Route(tuple(columns), its, alone, asked, weights.get(name)))
    return Beside(tuple(found), look(estimator, "sparse_output_")) if _some(found) else None


def _some(routes: Sequence[Route]) -> bool:
    """Whether any route has a kernel."""
    return any(not isinstance(one.step, Part) or one.step.fast for one in routes)


@dataclass(frozen=True, eq=False)
class Scaled:
    """What a kernel makes, times a number."""

    inner: Kernel
    weight: float

    def __call__(self, X: Any) -> Any:
        """Return Blocks or an array."""
        return scaled(taken(self.inner(X)), self.weight)


def _union(estimator: Any, method: str) -> Kernel | None:
    weights = look(estimator, "transformer_weights") or {}
    found: list[Kernel] = []
    fast = False
    for name, step in look(estimator, "transformer_list") or []:
        if isinstance(step, str) and step == "drop":
            continue
        asked = Same() if isinstance(step, str) else part(step, "transform")
        if asked is None:
            return None
        fast = fast or isinstance(asked, Same) or asked.fast is not None
        found.append(Scaled(asked, weights[name]) if name in weights else asked)
    return Beside(tuple(found), None) if fast and method == "transform" else None


def _search(estimator: Any, method: str) -> Kernel | None:
    """GridSearchCV and its like answer by what they found best."""
    return kernel(look(estimator, "best_estimator_"), method)


KERNELS: dict[str, Builder] = {
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _union,
    "GridSearchCV": _search,
    "HalvingGridSearchCV": _search,
    "HalvingRandomSearchCV": _search,
    "Pipeline": _pipeline,
    "RandomizedSearchCV": _search,
}
