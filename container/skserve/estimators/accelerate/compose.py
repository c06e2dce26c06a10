"""The kernel of any estimator: those of the families, and of what is composed of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate import boosting, linear, neighbours, scalers, trees
from skserve.estimators.accelerate.kernel import Builder, Declined, Kernel
from skserve.estimators.learn import places
from skserve.estimators.methods import fitted_steps, look, named


def kernel(estimator: Any, method: str) -> Kernel | None:
    """Return the kernel of one method of a fitted estimator, or None where none is known.

    Only for scikit-learn's own classes: a subclass may compute anything, and so may an object with
    a function of its own in the place of a method.
    """
    own = type(estimator)
    build = KERNELS.get(own.__name__) if own.__module__.startswith("sklearn.") else None
    if build is None or any(callable(getattr(own, name, None)) for name in vars(estimator)):
        return None
    return build(estimator, method)


def falling_back(fast: Kernel, own: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a method that asks `fast` where it may, and `own` otherwise."""

    def ask(X: Any) -> Any:
        if type(X) is np.ndarray and X.dtype == np.float64 and X.flags.c_contiguous and len(X):
            try:
                return fast(X)
            except Declined:
                pass
        return own(X)

    return ask


def _pipeline(estimator: Any, method: str) -> Kernel | None:
    """Each step by its kernel, or by itself, with the names it knows, where that has no answer."""
    *transformers, last = fitted_steps(estimator) or [None]
    asked = [(step, "transform") for step in transformers] + [(last, method)]
    chain, fast = [], 0
    for step, name in asked:
        own, found = look(step, name), kernel(step, name)
        if not callable(own):
            return None
        own = named(own, look(step, "feature_names_in_"))
        chain.append(falling_back(found, own) if found else own)
        fast += found is not None
    if not fast:
        return None

    def run(X: NDArray[np.float64]) -> Any:
        for step in chain:
            X = step(X)
        return X

    return run


def _column_transformer(estimator: Any, method: str) -> Kernel | None:
    """The columns of each route through its kernel, side by side."""
    routes, count = look(estimator, "transformers_"), look(estimator, "n_features_in_")
    if (
        method != "transform"
        or not isinstance(routes, list)
        or look(estimator, "sparse_output_")
        or look(estimator, "transformer_weights")
    ):
        return None
    names = look(estimator, "feature_names_in_")
    parts: list[tuple[list[int], Kernel]] = []
    for _, step, chosen in routes:
        columns = places(chosen, count, None if names is None else tuple(names))
        if (isinstance(step, str) and step == "drop") or not columns:
            continue
        found = _same if isinstance(step, str) else kernel(step, "transform")
        if found is None:
            return None
        parts.append((columns, found))
    if not parts:
        return None
    return lambda X: np.concatenate(
        [part(X.take(columns, axis=1)) for columns, part in parts], axis=1
    )


def _same(X: NDArray[np.float64]) -> NDArray[np.float64]:
    return X


def _search(estimator: Any, method: str) -> Kernel | None:
    """GridSearchCV and its like answer by what they found best."""
    return kernel(look(estimator, "best_estimator_"), method)


KERNELS: dict[str, Builder] = {
    **boosting.KERNELS,
    **scalers.KERNELS,
    **linear.KERNELS,
    **neighbours.KERNELS,
    **trees.KERNELS,
    "ColumnTransformer": _column_transformer,
    "GridSearchCV": _search,
    "HalvingGridSearchCV": _search,
    "HalvingRandomSearchCV": _search,
    "Pipeline": _pipeline,
    "RandomizedSearchCV": _search,
}
