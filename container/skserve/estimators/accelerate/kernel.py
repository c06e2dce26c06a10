"""What a fast path is: a function from rows to what one method of one estimator returns for them.

A family of estimators is a table `KERNELS` from the name of a class of scikit-learn to a builder:
`build(estimator, method)` returns the kernel of that method, or None where nothing better than the
method itself is known. Builders look at fitted attributes only, through `methods.look`, because an
older pickle may lack them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows in, C-contiguous and of the fitted width; out comes what the estimator's method returns, with
# its type, dtype and shape. Called by several threads at once. Raises Declined.
Kernel = Callable[[NDArray[np.float64]], Any]
Builder = Callable[[Any, str], Kernel | None]


class Declined(Exception):
    """These rows are not for the kernel: the estimator refuses them, or treats them specially."""


def finite(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return X. Raises Declined where it holds NaN or infinity, or its sum overflows."""
    if not isfinite(np.add.reduce(X, axis=None)):
        raise Declined
    return X


def without_infinity(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return X, which may hold NaN. Raises Declined where it holds infinity."""
    if not isfinite(np.add.reduce(X, axis=None)) and np.isinf(X).any():
        raise Declined
    return X
