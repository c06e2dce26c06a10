"""Near which numbers an estimator was fitted, as far as its attributes tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.kept import places
from skserve.estimators.methods import fitted_steps, look


def ranges(estimator: Any, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest value of each column, as far as fitted attributes tell."""
    low, high = np.full(count, -1.0), np.full(count, 1.0)
    routes = look(estimator, "transformers_")
    if isinstance(routes, list):
        names = look(estimator, "feature_names_in_")
        for _, step, chosen in routes:
            at = places(chosen, count, None if names is None else tuple(names))
            if at and not isinstance(step, str):
                low[at], high[at] = ranges(step, len(at))
        return low, high
    inner = [*fitted_steps(estimator)[:1], look(estimator, "best_estimator_")]
    if inner[0] is not None:
        return ranges(inner[0], count)
    for values in _values(estimator, count):
        values = np.where(np.isfinite(values), values, 0.0)
        return values.min(axis=0), values.max(axis=0)
    return low, high


def _values(estimator: Any, count: int) -> Iterator[NDArray[np.float64]]:
    """Yield values near those the estimator was fitted on: arrays (any, count)."""
    least, most = look(estimator, "data_min_"), look(estimator, "data_max_")
    middle, spread = look(estimator, "mean_"), look(estimator, "scale_")
    filled, kept = look(estimator, "statistics_"), look(estimator, "_fit_X")
    if isinstance(least, np.ndarray) and isinstance(most, np.ndarray):
        yield np.vstack([least, most])
    if isinstance(middle, np.ndarray) and isinstance(spread, np.ndarray):
        yield np.vstack([middle - 2 * spread, middle + 2 * spread])
    if isinstance(filled, np.ndarray) and filled.dtype.kind == "f":
        yield np.vstack([filled - np.abs(filled) - 1, filled + np.abs(filled) + 1])
    if isinstance(kept, np.ndarray) and kept.ndim == 2:
        yield np.asarray(kept[:: max(1, len(kept) // 64)], np.float64)
    found = thresholds(estimator)
    if found:
        yield np.column_stack(
            [
                np.quantile(found[column], [0, 1]) if column in found else [-1.0, 1.0]
                for column in range(count)
            ]
        )


def thresholds(estimator: Any) -> dict[int, NDArray[np.float64]]:
    """Return by column where trees split it: the first tree of a forest, or the histogram.

    Later trees split within the same ranges.
    """
    bins = look(look(estimator, "_bin_mapper"), "bin_thresholds_")
    if isinstance(bins, list):
        return {at: np.asarray(edges) for at, edges in enumerate(bins) if len(edges)}
    members = look(estimator, "estimators_")
    first = estimator if members is None else np.ravel(np.asarray(members, object))[0]
    tree = look(first, "tree_")
    feature, threshold = look(tree, "feature"), look(tree, "threshold")
    if not isinstance(feature, np.ndarray) or not isinstance(threshold, np.ndarray):
        return {}
    return {at: threshold[feature == at] for at in set(feature.tolist()) if at >= 0}
