"""The proof at load: a kernel and the estimator's own method answer the same rows alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Declined, Kernel
from skserve.estimators.learn import places
from skserve.estimators.methods import fitted_steps, look

# Rows drawn at random, besides those at the ends of the ranges.
DRAWN = 24

# Two floats are equal when they differ by no more than this part of the largest in the answer.
# Last bits differ in scikit-learn itself between one row and many; a wrong path differs by far.
TOLERANCE = 1e-9


def holds(kernel: Kernel, own: Callable[[Any], Any], rows: NDArray[np.float64]) -> bool:
    """Whether `kernel` answers `rows` as `own` does: together, one alone, and with NaN."""
    missing = rows[:2].copy()
    missing[0, 0], missing[1] = np.nan, np.nan
    apart = rows[:-1], rows[:1], rows[-1:], missing[:1], missing[1:]  # zeros may be declined
    return all(_agree(kernel, own, some) for some in apart)


def probe(estimator: Any, count: int) -> NDArray[np.float64]:
    """Draw rows that cover the ranges `estimator` was fitted on, a quarter beyond each end."""
    low, high = _ranges(estimator, count)
    drawn = np.random.default_rng(0).uniform(-0.25, 1.25, (DRAWN, count))
    return np.vstack([low + drawn * (high - low), low, high, np.zeros(count)])


def _agree(kernel: Kernel, own: Callable[[Any], Any], rows: NDArray[np.float64]) -> bool:
    """Whether the answers are equal. To decline is never wrong; to refuse what `own` answers is."""
    try:
        fast = _answer(kernel, rows)
    except Declined:
        return True
    return _same(fast, _answer(own, rows))


def _answer(method: Callable[[Any], Any], rows: NDArray[np.float64]) -> Any:
    """Return the answer, or what it failed with: rows are refused, and an old pickle may fail."""
    try:
        return method(rows.copy())
    except Declined:
        raise
    except Exception as error:
        return type(error)


def _same(fast: Any, slow: Any) -> bool:
    if type(fast) is not type(slow):
        return False
    if isinstance(slow, type):  # of the error
        return fast is slow
    if isinstance(slow, tuple) and len(slow) == 2:
        return _same(fast[0], slow[0]) and _same_neighbours(fast[1], *slow)
    if isinstance(slow, list | tuple):
        return len(fast) == len(slow) and all(map(_same, fast, slow))
    if not isinstance(slow, np.ndarray) or (fast.shape, fast.dtype) != (slow.shape, slow.dtype):
        return False
    if slow.dtype.kind == "f":
        return np.allclose(fast, slow, rtol=TOLERANCE, atol=_slack(slow), equal_nan=True)
    return np.array_equal(fast, slow)


def _same_neighbours(fast: NDArray[Any], distances: NDArray[Any], slow: NDArray[Any]) -> bool:
    """Whether the indices are equal but among ties, which scikit-learn puts in any order.

    The last place may be tied with a neighbour that is not in the answer.
    """
    if (fast.shape, fast.dtype) != (slow.shape, slow.dtype):
        return False
    tied = np.diff(distances, axis=1) <= _slack(distances)
    at_the_end = np.ones((len(slow), 1), bool)
    free = np.hstack([tied, at_the_end]) | np.hstack([~at_the_end, tied])
    return bool(np.all((fast == slow) | free))


def _slack(values: NDArray[Any]) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return TOLERANCE * max(1.0, float(finite.max(initial=0.0)))


def _ranges(estimator: Any, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest value of each column, as far as fitted attributes tell."""
    low, high = np.full(count, -1.0), np.full(count, 1.0)
    routes = look(estimator, "transformers_")
    if isinstance(routes, list):
        names = look(estimator, "feature_names_in_")
        for _, step, chosen in routes:
            at = places(chosen, count, None if names is None else tuple(names))
            if at and not isinstance(step, str):
                low[at], high[at] = _ranges(step, len(at))
        return low, high
    inner = [*fitted_steps(estimator)[:1], look(estimator, "best_estimator_")]
    if inner[0] is not None:
        return _ranges(inner[0], count)
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
    thresholds = _thresholds(estimator)
    if thresholds:
        yield np.column_stack(
            [
                np.quantile(thresholds[column], [0, 1]) if column in thresholds else [-1.0, 1.0]
                for column in range(count)
            ]
        )


def _thresholds(estimator: Any) -> dict[int, NDArray[np.float64]]:
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
