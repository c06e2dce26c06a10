"""The proof at load: a kernel and the estimator's own method answer the same rows alike."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Declined, Kernel
from skserve.estimators.accelerate.probes import Probes, with_odd_rows
from skserve.estimators.frame import plain

# Two floats are equal when they differ by no more than this part of the largest in the answer.
# Last bits differ in scikit-learn itself between one row and many; a wrong path differs by far.
TOLERANCE = 1e-9

# Ordinary rows that are asked together, beside all of them: within what each kernel takes.
TOGETHER = 48

# Odd rows that are asked one by one whatever the time.
LEAST_APART = 2

FRAMES = "answers with DataFrames"
DIFFERS = "differs from scikit-learn's"
DECLINES = "declines ordinary rows"

Own = Callable[[Any], Any]


def holds(kernel: Kernel, own: Own, rows: NDArray[np.float64]) -> bool:
    """Whether `kernel` answers `rows` as `own` does: together, one alone, and with NaN."""
    return not objection(kernel, own, with_odd_rows(rows, {}), time.perf_counter())


def objection(kernel: Kernel, own: Own, probes: Probes, deadline: float) -> str | None:
    """Say why a kernel is not to be used; None where it answers as `own` does.

    A row's answer is its own, so the estimator is asked about many rows at once, and the kernel
    about all, some and one of them. Odd rows are asked one by one too, until the deadline
    (perf_counter): a step without a kernel may take long.
    """
    rows = probes.ordinary
    parts = [slice(None), slice(TOGETHER), slice(1), slice(len(rows) - 1, None)]
    found = list(_compared(kernel, _answer(own, plain(rows)), rows, parts))
    if set(found) == {DECLINES}:
        return DECLINES
    for odd in probes.odd:
        slow = _answer(own, plain(odd))
        if not isinstance(slow, type) or len(odd) == 1:
            found += _compared(kernel, slow, odd, chain([slice(None)], _each(odd, deadline)))
            continue
        for one in _each(odd, deadline):
            found += _compared(kernel, _answer(own, plain(odd[one])), odd[one], [slice(None)])
    return next((one for one in found if one not in (None, DECLINES)), None)


def _each(rows: Any, deadline: float) -> Iterator[slice]:
    """Yield the rows one by one, until the deadline all but the first few."""
    for at in range(len(rows)):
        if at >= LEAST_APART and time.perf_counter() > deadline:
            return
        yield slice(at, at + 1)


def _compared(kernel: Kernel, slow: Any, rows: Any, parts: Iterable[slice]) -> Iterator[str | None]:
    """Say of parts of the rows how the kernel's answers differ from those parts of `slow`.

    To decline is never wrong; to refuse what the estimator answers is.
    """
    for part in parts:
        try:
            fast = _answer(kernel, rows[part])
        except Declined:
            yield DECLINES
            continue
        wanted = _cut(slow, part)
        if isinstance(fast, np.ndarray) and hasattr(wanted, "to_numpy"):
            yield FRAMES if same(fast, wanted.to_numpy()) else DIFFERS
        else:
            yield None if same(fast, wanted) else DIFFERS


def _cut(answer: Any, part: slice) -> Any:
    """Return the part of an answer that belongs to some rows."""
    if isinstance(answer, list | tuple):
        return type(answer)(_cut(one, part) for one in answer)
    return answer if isinstance(answer, type) else answer[part]


def _answer(method: Own, rows: Any) -> Any:
    """Return the answer, or what it failed with: rows are refused, and an old pickle may fail.

    Extreme rows make numpy and scikit-learn warn; the log of a start does not need that.
    """
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return plain(method(rows.copy() if hasattr(rows, "copy") else rows))
    except Declined:
        raise
    except Exception as error:
        return type(error)


def same(fast: Any, slow: Any) -> bool:
    """Whether two answers are equal: in type, shape and dtype, and floats to their last bits."""
    if hasattr(fast, "tocsr") and hasattr(slow, "tocsr"):
        return _same_sparse(fast.tocsr(), slow.tocsr())
    if type(fast) is not type(slow):
        return False
    if isinstance(slow, type):  # of the error
        return fast is slow
    if isinstance(slow, tuple) and len(slow) == 2:
        return same(fast[0], slow[0]) and _same_neighbours(fast[1], *slow)
    if isinstance(slow, list | tuple):
        return len(fast) == len(slow) and all(map(same, fast, slow))
    if not isinstance(slow, np.ndarray) or (fast.shape, fast.dtype) != (slow.shape, slow.dtype):
        return False
    if slow.dtype.kind == "f":
        return np.allclose(fast, slow, rtol=TOLERANCE, atol=_slack(slow), equal_nan=True)
    if slow.dtype.kind == "O":
        return _same_objects(fast.ravel().tolist(), slow.ravel().tolist())
    return np.array_equal(fast, slow)


def _same_sparse(fast: Any, slow: Any) -> bool:
    if (fast.shape, fast.dtype) != (slow.shape, slow.dtype):
        return False
    apart = abs(fast - slow)
    return apart.nnz == 0 or bool(apart.max() <= _slack(slow.data))


def _same_objects(fast: list[Any], slow: list[Any]) -> bool:
    """Whether cells are equal, where NaN is NaN."""
    pairs = zip(fast, slow, strict=True)
    return all(one == other or (one != one and other != other) for one, other in pairs)


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
