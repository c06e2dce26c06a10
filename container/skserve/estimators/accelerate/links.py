"""What classifiers make of scores: labels and probabilities. Each is a kernel around a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Declined, Floats, Kernel


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) of each number."""
    from scipy.special import expit  # loaded with scikit-learn already

    return expit(values)  # type: ignore[no-any-return]


def normal_score(parts: Floats) -> Floats:
    """Return the number below which such a part of a normal distribution is."""
    from scipy.special import ndtri  # loaded with scikit-learn already

    return ndtri(parts)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Apply:
    """A function of what a kernel returns, such as a logarithm."""

    inner: Kernel
    function: Callable[[Any], Any]

    def __call__(self, X: Any) -> Any:
        """Warnings of numpy, as of the logarithm of zero, are scikit-learn's to give."""
        with np.errstate(all="ignore"):
            return self.function(self.inner(X))


@dataclass(frozen=True, eq=False)
class Pick:
    """The class of the best score; of two classes the second, if its score is above zero."""

    scores: Kernel
    classes: NDArray[Any]
    from_zero: bool = False  # whether zero itself is enough

    def __call__(self, X: Any) -> NDArray[Any]:
        """Return the labels (n_rows,)."""
        values = self.scores(X)
        if values.ndim == 1:
            best = (values >= 0 if self.from_zero else values > 0).astype(np.intp)
        else:
            best = values.argmax(axis=1)
        labels: NDArray[Any] = self.classes.take(best, axis=0)
        return labels


@dataclass(frozen=True, eq=False)
class Probabilities:
    """LinearClassifierMixin's probabilities: a sigmoid each, made to add up to one."""

    scores: Kernel

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes). Raises Declined where no class has any."""
        p = sigmoid(self.scores(X))
        if p.ndim == 1:
            return np.stack([1 - p, p], axis=1)
        total = p.sum(axis=1)
        if not total.all():
            raise Declined  # no class at all: each version has an answer of its own
        p /= total[:, None]
        return p


@dataclass(frozen=True, eq=False)
class Softmax:
    """The softmax of scores; of the score of one of two classes that of it and its negative."""

    scores: Kernel

    def __call__(self, X: Any) -> Floats:
        """Return (n_rows, n_classes)."""
        values = self.scores(X)
        return softmax(np.stack([-values, values], axis=1) if values.ndim == 1 else values)


def softmax(values: Floats) -> Floats:
    """Turn scores (n_rows, n_classes) into probabilities, as sklearn.utils.extmath does."""
    values = np.exp(values - values.max(axis=1, keepdims=True))
    values /= values.sum(axis=1, keepdims=True)
    return values


@dataclass(frozen=True, eq=False)
class Decoded:
    """The classes of what answers with their numbers."""

    numbers: Kernel
    classes: NDArray[Any]

    def __call__(self, X: Any) -> NDArray[Any]:
        """Return the labels (n_rows,)."""
        labels: NDArray[Any] = self.classes.take(self.numbers(X).astype(np.intp), axis=0)
        return labels


@dataclass(frozen=True, eq=False)
class Second:
    """The score of the second of two classes, (n_rows,): a decision or a probability.

    `sign` is -1 where the first class is asked for.
    """

    inner: Kernel
    column: int = 1
    sign: int = 1

    def __call__(self, X: Any) -> Floats:
        """Return one number a row."""
        values: Floats = self.inner(X)
        if values.ndim == 2:
            return values[:, min(self.column, values.shape[1] - 1)]
        return values if self.sign > 0 else -values


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of what several say."""

    members: tuple[Kernel, ...]

    def __call__(self, X: Any) -> Floats:
        """Add them up one after the other."""
        total: Floats = self.members[0](X) + 0.0
        for member in self.members[1:]:
            total += member(X)
        total /= len(self.members)
        return total
