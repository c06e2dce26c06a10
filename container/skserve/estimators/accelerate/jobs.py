"""The threads that a loaded model asks for, within those the container has."""

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
    for part in _parts(estimator):
        asked = look(part, "n_jobs")
        if isinstance(asked, int) and not 0 <= asked <= most:
            with suppress(Exception):  # another library's may be no plain attribute
                part.n_jobs = most


def _parts(estimator: Any) -> Iterator[Any]:
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


_LEAVES = (str, int, float, np.generic, type(None))
