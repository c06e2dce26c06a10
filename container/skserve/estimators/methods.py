"""What a fitted estimator can be asked, and how: a fixed list of methods that change nothing.

Other names are never looked up for a caller, because `fit` and `set_params` are methods too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

# The first one that a model has answers by default. Where one returns a tuple, its parts are named.
METHODS: dict[str, tuple[str, ...]] = {
    "predict": (),
    "kneighbors": ("distances", "indices"),
    "transform": (),
    "score_samples": (),
    "predict_proba": (),
    "predict_log_proba": (),
    "decision_function": (),
    "apply": (),
}


def look(thing: object, name: str) -> Any:
    """Read an attribute of a loaded object, or None where it has none or fails to say.

    An older pickle may not survive being asked: its class may compute the attribute today from
    others that it did not have then.
    """
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def find(estimator: object, name: str) -> Callable[[Any], Any] | None:
    """Return the method `name` of a fitted estimator, or None where it has no such method.

    A Pipeline hands on only the methods it knows; those of its last step that it does not, such as
    `kneighbors`, are asked of that step with what the others made of X.
    """
    own = look(estimator, name)
    if callable(own):
        return own  # type: ignore[no-any-return]
    steps = fitted_steps(estimator)
    if len(steps) < 2:
        return None
    last = find(steps[-1], name)
    return None if last is None else lambda X: last(_transformed(steps[:-1], X))


def fitted_steps(estimator: object) -> list[Any]:
    """Return the steps of a Pipeline without its pass-throughs; none of anything else."""
    steps = look(estimator, "steps")
    if not isinstance(steps, list):
        return []
    return [step for _, step in steps if step is not None and not isinstance(step, str)]


def _transformed(steps: list[Any], X: Any) -> Any:
    for step in steps:
        X = step.transform(X)
    return X


def named(method: Callable[[Any], Any], names: Iterable[str] | None) -> Callable[[Any], Any]:
    """Return `method` with names given to the columns of arrays, where it was fitted on names."""
    if names is None:
        return method
    return _Named(method, list(names))


@dataclass(frozen=True)
class _Named:
    method: Callable[[Any], Any]
    columns: list[Any]

    def __call__(self, X: Any) -> Any:
        plain = isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == len(self.columns)
        if not plain:
            return self.method(X)
        import pandas as pd  # half a second and 40 MB: only for models that need it

        return self.method(pd.DataFrame(X, columns=self.columns))
