"""Faster ways to the same answers, for the estimators people deploy most.

One row through scikit-learn is mostly validation, pandas, joblib and the threads of OpenMP. A
kernel does the arithmetic alone. It is used only after it has answered the same rows as the
estimator itself; whatever it declines, the estimator answers. Nothing on the estimator is changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from skserve.estimators.accelerate import probes, proof, registry
from skserve.estimators.schema import Schema

log = logging.getLogger("skserve")

Method = Callable[[Any], Any]

# Seconds after which no more odd rows are asked one by one.
BUDGET = 0.3


def accelerate(estimator: Any, methods: Mapping[str, Method], schema: Schema) -> dict[str, Method]:
    """Return those methods that have a proved kernel, each falling back on its own where it must.

    `methods` are the estimator's own by name. They take what scikit-learn does, and those that are
    returned take what `formats.conform` makes too.
    """
    fast: dict[str, Method] = {}
    slow: dict[str, str] = {}
    deadline, rows = time.perf_counter() + BUDGET, None
    for name, own in methods.items():
        try:
            kernel = registry.kernel(estimator, name)
            if kernel is not None:
                rows = rows or probes.of(estimator, schema)
            if kernel is not None and rows is not None:
                kernel = registry.alone_or_together(kernel, name, rows.ordinary[:1])
        except Exception:  # what an older pickle lacks, or a class of the user's has in its own way
            log.debug("No fast path for %s.", name, exc_info=True)
            slow[name] = "not as scikit-learn makes it"
            continue
        if kernel is None or rows is None:
            slow[name] = registry.missing(estimator)
            continue
        objection = proof.objection(kernel, own, rows, deadline)
        if objection is None:
            fast[name] = registry.falling_back(kernel, own)
            continue
        slow[name] = objection
        if objection == proof.DIFFERS:
            log.warning("The fast path of %s differs from scikit-learn's and is not used.", name)
    log.info(
        "%s: accelerated %s; as scikit-learn does it: %s",
        type(estimator).__name__,
        ", ".join(fast) or "nothing",
        ", ".join(f"{name} ({why})" for name, why in slow.items()) or "nothing",
    )
    return fast
