"""What is within a loaded model: estimators, the threads they ask for, code of the user's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from skserve.estimators.methods import look


def limit_jobs(estimator: Any, most: int) -> None:
    """Bring `n_jobs` down to `most` in a fitted estimator and in all that it holds.

    A model fitted with n_jobs=-1 would start a thread for each CPU of the machine, in each request.
    """
    for part in parts_of(estimator):
        asked = look(part, "n_jobs")
        if isinstance(asked, int) and not 0 <= asked <= most:
            with suppress(Exception):  # another library's may be no plain attribute
                part.n_jobs = most


def parts_of(estimator: Any) -> Iterator[Any]:
    """Yield the estimators within `estimator`, however deep in attributes and containers."""
    seen: set[int] = set()
    left = [estimator]
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        inside: Iterable[Any] = ()
        if callable(look(thing, "get_params")) and not isinstance(thing, type):
            yield thing
            inside = (look(thing, "__dict__") or {}).values()
        elif isinstance(thing, dict):
            inside = thing.values()
        elif isinstance(thing, np.ndarray) and thing.dtype == object:
            inside = thing.ravel().tolist()
        elif isinstance(thing, list | tuple):
            inside = thing
        # A vocabulary has a million leaves.
        left += [one for one in inside if not isinstance(one, _LEAVES)]


def brings_code(estimator: Any) -> bool:
    """Whether anything in `estimator` is not scikit-learn's own: a class, or a function it calls.

    Functions of numpy for one number, such as numpy.log1p, do not count.
    """
    for one in parts_of(estimator):
        if not type(one).__module__.startswith("sklearn."):
            return True
        for value in (look(one, "__dict__") or {}).values():
            if callable(value) and not isinstance(value, np.ufunc) and not hasattr(value, "fit"):
                module = look(value, "__module__") or ""
                if not module.startswith(("sklearn.", "numpy")):
                    return True
    return False


_LEAVES = (str, int, float, np.generic, type(None))
