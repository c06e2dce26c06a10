"""Several outputs, each by a model of its own; in a chain each sees what those before it said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Builder, Floats, Kernel, dense
from skserve.estimators.accelerate.links import Apply, Second
from skserve.estimators.accelerate.registry import part, parts
from skserve.estimators.methods import look


@dataclass(frozen=True, eq=False)
class Outputs:
    """What each model says, as columns, or as a list of arrays."""

    members: tuple[Kernel, ...]
    listed: bool

    def __call__(self, X: Any) -> Any:
        """Return (n_rows, n_outputs), or a list of arrays."""
        said = [member(X) for member in self.members]
        return said if self.listed else np.asarray(said).T


def _outputs(estimator: Any, method: str) -> Kernel | None:
    asked = parts(estimator.estimators_, method)
    if asked is None or method not in ("predict", "predict_proba"):
        return None
    return Outputs(asked, method == "predict_proba")


@dataclass(frozen=True, eq=False)
class Linked:
    """A chain: each model gets X and what those before it said to each other."""

    members: tuple[tuple[Kernel, Kernel | None], ...]  # what it says to the next, and to the caller
    order: NDArray[np.intp]

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_outputs)."""
        rows = dense(X)
        count = len(self.members)
        passed, said = np.zeros((len(rows), count)), np.zeros((len(rows), count))
        for at, (to_next, to_caller) in enumerate(self.members):
            more = np.hstack([rows, passed[:, :at]])
            passed[:, at] = to_next(more)
            said[:, at] = passed[:, at] if to_caller is None else to_caller(more)
        out = np.empty_like(said)
        out[:, self.order] = said
        return out


def _chain(estimator: Any, method: str) -> Kernel | None:
    asked = "predict_proba" if method == "predict_log_proba" else method
    if method not in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        return None
    between = look(estimator, "chain_method_") or "predict"
    members: list[tuple[Kernel, Kernel | None]] = []
    for one in estimator.estimators_:
        to_next, to_caller = part(one, between), part(one, asked)
        if to_next is None or to_caller is None or to_next.fast is None:
            return None
        members.append((Second(to_next), None if asked == between else Second(to_caller)))
    linked = Linked(tuple(members), np.asarray(estimator.order_, np.intp))
    return Apply(linked, np.log) if method == "predict_log_proba" else linked


KERNELS: dict[str, Builder] = {
    "ClassifierChain": _chain,
    "MultiOutputClassifier": _outputs,
    "MultiOutputRegressor": _outputs,
    "RegressorChain": _chain,
}
