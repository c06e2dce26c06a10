"""What a fast path is: a function from rows to what one method of one estimator returns for them.

A family of estimators is a module in `families/` with a table `KERNELS`, from the name of a class
of scikit-learn to a builder: `build(estimator, method)` returns the kernel of that method, or None
where nothing better than the method itself is known. Builders look at fitted attributes only,
through `methods.look`, because an older pickle may lack them. A kernel is a frozen value of arrays,
parameters and other kernels, which remembers nothing between calls.

A kernel may have a method `for_one`, which returns the same as a function of one row in plain
Python, to the last bit, or None. For a few cells that is faster than arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Values of which Python's own sum takes a tenth of numpy's time.
FEW = 64

Floats = NDArray[np.float64]

# Rows in: float64, C-contiguous and of the fitted width, or a Frame, Blocks, or a list of texts.
# Out comes what the estimator's method returns, with its type, dtype and shape, or Blocks. Called
# by several threads at once. Raises Declined.
Kernel = Callable[[Any], Any]
Builder = Callable[[Any, str], Kernel | None]

# One row in, as a sequence of its cells, which are Python's own floats and objects. Out comes what
# the kernel returns of that row, or of a transformer a list of cells, or Terms. Raises Declined.
OneRow = Callable[[Sequence[Any]], Any]


class Declined(Exception):
    """These rows are not for the kernel: the estimator refuses them, or treats them specially."""


def for_one(kernel: Any) -> OneRow | None:
    """Return a kernel for one row in plain Python, where it has one."""
    make = getattr(kernel, "for_one", None)
    found: OneRow | None = make() if make else None
    return found


def one_row(cells: Sequence[Any]) -> Floats:
    """Return a row (1, n_columns). Raises TypeError where a cell is no number."""
    return np.array(array("d", cells)).reshape(1, -1)


def dense(X: Any) -> Floats:
    """Return rows as one array. Raises Declined where some of them are no numbers."""
    if type(X) is not np.ndarray:
        if isinstance(X, list):
            raise Declined
        X = X.numbers()
        if X is None:
            raise Declined
    rows: NDArray[Any] = X
    if rows.dtype != np.float64:
        if rows.dtype.kind not in "biuf":
            raise Declined
        rows = rows.astype(np.float64)
    return rows


def total(rows: NDArray[Any]) -> float:
    """Return the sum of all values: not finite where one of them is not, or where it overflows.

    Both are answers here, of which numpy's warning would only say to the log what was sent.
    """
    if rows.size <= FEW:
        return float(sum(rows.ravel().tolist()))
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.add.reduce(rows, axis=None))


def finite(X: Any) -> Floats:
    """Return X, dense. Raises Declined where it holds NaN or infinity, or its sum overflows."""
    rows = dense(X)
    if not isfinite(total(rows)):
        raise Declined
    return rows


def without_infinity(X: Any) -> Floats:
    """Return X, dense, which may hold NaN. Raises Declined where it holds infinity."""
    rows = dense(X)
    if not isfinite(total(rows)) and np.isinf(rows).any():
        raise Declined
    return rows
