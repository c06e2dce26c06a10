"""The threads that a loaded model asks for, within those the container has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from skserve.methods import look


def limit_jobs(estimator: Any, most: int) -> None:
    """Bring `n_jobs` down to `most` in a fitted estimator and in all that it holds.

    A model fitted with n_jobs=-1 would start a thread for each CPU of the machine, in each request.
    """
    for part in _parts(estimator, set()):
        asked = look(part, "n_jobs")
        if isinstance(asked, int) and not 0 <= asked <= most:
            part.n_jobs = most


def _parts(thing: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the estimators within `thing`, however deep in its attributes and containers."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if callable(look(thing, "get_params")) and not isinstance(thing, type):
        yield thing
        inside = list(vars(thing).values())
    elif isinstance(thing, dict):
        inside = list(thing.values())
    elif isinstance(thing, np.ndarray) and thing.dtype == object:
        inside = thing.ravel().tolist()
    elif isinstance(thing, list | tuple):
        inside = list(thing)
    else:
        return
    for one in inside:
        if not isinstance(one, _LEAVES):  # a vocabulary has a million of them
            yield from _parts(one, seen)


_LEAVES = (str, int, float, np.generic, type(None))
