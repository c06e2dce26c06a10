"""Between which values the columns of a fitted model lay, as far as the model keeps it.

MinMaxScaler, MaxAbsScaler, QuantileTransformer and KBinsDiscretizer do. A value beyond them is
answered like any other: it is only a sign that the data have changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from skserve.estimators.kept import places
from skserve.estimators.methods import fitted_steps, look

Ranges = list[tuple[float, float]]
ANY = (-math.inf, math.inf)


def ranges_of(estimator: object, count: int, names: tuple[str, ...] | None) -> Ranges:
    """Return the least and the greatest value that a model keeps of each of its columns.

    They are infinite where it keeps none.
    """
    found = [ANY] * count
    routes = look(estimator, "transformers_")
    if isinstance(routes, list):
        for _, step, chosen in routes:
            if not isinstance(step, str):
                at = places(chosen, count, names)
                own = tuple(names[place] for place in at) if names else None
                for place, one in zip(at, ranges_of(step, len(at), own), strict=True):
                    found[place] = _narrower(found[place], one)
        return found
    steps = fitted_steps(estimator)
    inner = look(estimator, "best_estimator_")
    for step in steps if inner is None else [inner]:
        if look(step, "n_features_in_") not in (count, None):
            break
        found = list(map(_narrower, found, ranges_of(step, count, names)))
        if not _keeps_values(step):
            break
    return list(map(_narrower, found, _stored(estimator, count)))


def _keeps_values(step: object) -> bool:
    """Whether the step after this one meets the same values in the same columns."""
    if type(step).__name__ == "FunctionTransformer":
        return look(step, "func") is None
    return isinstance(look(step, "statistics_"), np.ndarray)


def _stored(step: object, count: int) -> Ranges:
    greatest, edges = look(step, "max_abs_"), look(step, "bin_edges_")
    quantiles = look(step, "quantiles_")
    pairs: Sequence[Any] = [look(step, "data_min_"), look(step, "data_max_")]
    if isinstance(greatest, np.ndarray):
        pairs = [-greatest, greatest]
    elif isinstance(quantiles, np.ndarray) and quantiles.ndim == 2:
        pairs = [quantiles[0], quantiles[-1]]
    elif isinstance(edges, np.ndarray):
        pairs = [[one[0] for one in edges], [one[-1] for one in edges]]
    if any(one is None or len(one) != count for one in pairs):
        return [ANY] * count
    return [
        (float(low), float(high)) if low <= high else ANY
        for low, high in zip(*pairs, strict=True)  # NaN is a column without values
    ]


def _narrower(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return max(one[0], other[0]), min(one[1], other[1])
