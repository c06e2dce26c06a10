"""Which columns a step hands on: those of its output that hold the values of one of X."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators import boosters
from skserve.estimators.methods import fitted_steps, look
from skserve.estimators.readers import does_nothing

Names = tuple[str, ...] | None

# An output column of a step that holds the values of an input column: (input, output).
Kept = list[tuple[int, int]]


def kept_by(step: object, count: int, names: Names) -> Kept:
    """Return which columns of what `step` puts out hold the values of a column of X."""
    if does_nothing(step):
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
            for at, place in (inside if whole else kept_by(route, len(taken), of_them))
        ]
    return kept


def _kept_by_imputer(step: object, filled: NDArray[Any]) -> Kept:
    """Match columns to those that a SimpleImputer puts out: all but the ever missing ones."""
    everything = look(step, "keep_empty_features") or look(step, "strategy") == "constant"
    kept = [at for at, value in enumerate(filled.tolist()) if everything or value == value]
    return [(at, place) for place, at in enumerate(kept)]


def _kept_by_steps(steps: list[Any], count: int, names: Names) -> Kept:
    kept = kept_by(steps[0], count, names)
    for step in steps[1:]:
        next_ones = kept_by(step, width_of(step), names_of(step))
        kept = [(at, end) for at, place in kept for start, end in next_ones if start == place]
    return kept


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


def width_of(step: object) -> int:
    """Return the number of columns that `step` was fitted on, or 0 where it does not say."""
    if found := boosters.fitted_on(step):
        return found[0]
    width = look(step, "n_features_in_")
    return int(width) if isinstance(width, int | np.integer) else 0


def names_of(step: object) -> Names:
    """Return the names of the columns that `step` was fitted on."""
    if found := boosters.fitted_on(step):
        return found[1]
    known = look(step, "feature_names_in_")
    return None if known is None else tuple(str(name) for name in known)
