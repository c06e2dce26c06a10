"""Faster ways to the same answers, for the estimators people deploy most.

One row through scikit-learn is mostly validation, joblib and the threads of OpenMP. A kernel does
the arithmetic alone, in the same order. It is used only after it has answered the same rows as the
estimator itself; whatever it declines, the estimator answers. Nothing on the estimator is changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from skserve.estimators.accelerate import compose, proof

log = logging.getLogger("skserve")

Method = Callable[[Any], Any]


def accelerate(estimator: Any, methods: Mapping[str, Method], count: int) -> dict[str, Method]:
    """Return those methods that have a proved kernel, each falling back on its own where it must.

    `methods` are the estimator's own by name; they take an array (n_rows, `count`).
    """
    fast, rows = {}, None
    for name, own in methods.items():
        try:
            kernel = compose.kernel(estimator, name)
            if kernel is None:
                continue
            rows = proof.probe(estimator, count) if rows is None else rows
        except Exception:  # what an older pickle lacks, or a class of the user's has in its own way
            log.debug("No fast path for %s.", name, exc_info=True)
            continue
        if proof.holds(kernel, own, rows):
            fast[name] = compose.falling_back(kernel, own)
        else:
            log.warning("The fast path of %s differs from scikit-learn's and is not used.", name)
    log.info(
        "%s: accelerated %s; as scikit-learn does it: %s",
        type(estimator).__name__,
        ", ".join(fast) or "nothing",
        ", ".join(name for name in methods if name not in fast) or "nothing",
    )
    return fast
