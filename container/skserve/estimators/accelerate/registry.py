"""The kernel of any estimator, out of the families; what is composed of parts asks here for them.

Each module in `families/` is one family: a file more there is all that a new one takes.
"""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate import families
from skserve.estimators.accelerate.jobs import parts_of
from skserve.estimators.accelerate.kernel import Builder, Declined, Kernel, OneRow, for_one
from skserve.estimators.frame import Frame, plain
from skserve.estimators.methods import look, named

log = logging.getLogger("skserve")


@cache
def builders() -> dict[str, Builder]:
    """Return the tables of all families as one."""
    table: dict[str, Builder] = {}
    for found in pkgutil.iter_modules(families.__path__):
        table |= import_module(f"{families.__name__}.{found.name}").KERNELS
    return table


def kernel(estimator: Any, method: str) -> Kernel | None:
    """Return the kernel of one method of a fitted estimator, or None where none is known.

    Only for scikit-learn's own classes: a subclass may compute anything, and so may an object with
    a function of its own in the place of a method.
    """
    own = type(estimator)
    build = builders().get(own.__name__) if own.__module__.startswith("sklearn.") else None
    if build is None or any(callable(getattr(own, name, None)) for name in vars(estimator)):
        return None
    return build(estimator, method)


def missing(estimator: Any) -> str:
    """Say which parts of an estimator have no kernel; where all have, it is their parameters."""
    known = builders()
    kinds = dict.fromkeys(type(part) for part in parts_of(estimator))
    names = [
        one.__name__
        for one in kinds
        if not one.__module__.startswith("sklearn.") or one.__name__ not in known
    ]
    return "no kernel of " + " ".join(names[:3]) if names else "its parameters"


@dataclass(frozen=True, eq=False)
class Part:
    """One method of an estimator within another: its kernel where it has one, else itself."""

    own: Callable[[Any], Any]
    fast: Kernel | None

    def for_one(self) -> OneRow | None:
        """Return the kernel for one row; where it declines, the whole model does."""
        return for_one(self.fast)

    def __call__(self, X: Any) -> Any:
        """Ask the kernel, or the estimator where that declines."""
        if self.fast is not None:
            try:
                return self.fast(X)
            except Declined:
                pass
        return self.own(plain(X))


def part(estimator: Any, method: str) -> Part | None:
    """Return how a method of an estimator within another is asked; None where it has no such."""
    own = look(estimator, method)
    if not callable(own):
        return None
    return Part(named(own, look(estimator, "feature_names_in_")), kernel(estimator, method))


def parts(estimators: Any, method: str) -> tuple[Part, ...] | None:
    """Return how several are asked; None where one has no such method, or none has a kernel."""
    found = [part(one, method) for one in estimators]
    if not found or None in found or not any(one and one.fast for one in found):
        return None
    return tuple(one for one in found if one)


@dataclass(frozen=True, eq=False)
class AloneOrTogether:
    """A kernel for one row of a Frame, and one for all others."""

    one: OneRow
    rows: Kernel

    def __call__(self, X: Any) -> Any:
        """Ask the second where the first declines."""
        if type(X) is Frame and X.shape[0] == 1:
            try:
                return self.one(X.cells)
            except (Declined, TypeError, ZeroDivisionError):  # a cell that is no number, or 1 / 0
                pass
        return self.rows(X)


def alone_or_together(rows: Kernel, method: str, example: Any) -> Kernel:
    """Return a kernel that takes one row in plain Python, if it does so for `example`."""
    one = for_one(rows) if type(example) is Frame and method != "transform" else None
    if one is None:
        return rows
    try:
        one(example.cells)
    except Exception:  # so it would any other row
        return rows
    return AloneOrTogether(one, rows)


def falling_back(fast: Kernel, own: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a method that asks `fast` where it may; `own` otherwise, and where `fast` fails."""

    def ask(X: Any) -> Any:
        kind = type(X)
        if kind is Frame or kind is list or (kind is np.ndarray and _ordinary(X)):
            try:
                return plain(fast(X))
            except Declined:
                pass
            except Exception:  # what it was not made for
                log.debug("The fast path failed on a request.", exc_info=True)
        return own(plain(X))

    return ask


def _ordinary(X: NDArray[Any]) -> bool:
    """Whether an array is one that kernels take."""
    return X.dtype == np.float64 and X.ndim == 2 and X.flags.c_contiguous and len(X) > 0
