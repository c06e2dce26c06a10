"""What classifiers make of scores: labels and probabilities. Each is a kernel around a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Declined, Floats, Kernel, OneRow, for_one


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) of each number."""
    from scipy.special import expit  # loaded with scikit-learn already

    return expit(values)  # type: ignore[no-any-return]


def normal_score(parts: Floats) -> Floats:
    """Return the number below which such a part of a normal distribution is."""
    from scipy.special import ndtri  # loaded with scikit-learn already

    return ndtri(parts)  # type: ignore[no-any-return]


class Link:
    """A kernel that makes something of what the kernel in its first field returns."""

    inner: Kernel

    def of(self, values: Any) -> Any:
        """Make it."""
        raise NotImplementedError

    def __call__(self, X: Any) -> Any:
        """Return what is made of all rows."""
        return self.of(self.inner(X))

    def for_one(self) -> OneRow | None:
        """Return the same of one row, where the inner kernel has such a way."""
        inner, of = for_one(self.inner), self.of
        return None if inner is None else lambda cells: of(inner(cells))


@dataclass(frozen=True, eq=False)
class Apply(Link):
    """A function of what a kernel returns, such as a logarithm."""

    inner: Kernel
    function: Callable[[Any], Any]

    def of(self, values: Any) -> Any:
        """Warnings of numpy, as of the logarithm of zero, are scikit-learn's to give."""
        with np.errstate(all="ignore"):
            return self.function(values)


@dataclass(frozen=True, eq=False)
class Pick(Link):
    """The class of the best score; of two classes the second, if its score is above zero."""

    inner: Kernel
    classes: NDArray[Any]
    from_zero: bool = False  # whether zero itself is enough

    def of(self, values: Floats) -> NDArray[Any]:
        """Return the labels (n_rows,)."""
        if values.ndim == 1:
            best = (values >= 0 if self.from_zero else values > 0).astype(np.intp)
        else:
            best = values.argmax(axis=1)
        labels: NDArray[Any] = self.classes.take(best, axis=0)
        return labels


@dataclass(frozen=True, eq=False)
class Probabilities(Link):
    """LinearClassifierMixin's probabilities: a sigmoid each, made to add up to one."""

    inner: Kernel

    def of(self, values: Floats) -> Floats:
        """Return (n_rows, n_classes). Raises Declined where no class has any."""
        p = sigmoid(values)
        if p.ndim == 1:
            return np.stack([1 - p, p], axis=1)
        total = p.sum(axis=1)
        if not total.all():
            raise Declined  # no class at all: each version has an answer of its own
        p /= total[:, None]
        return p


@dataclass(frozen=True, eq=False)
class Softmax(Link):
    """The softmax of scores; of the score of one of two classes that of it and its negative."""

    inner: Kernel

    def of(self, values: Floats) -> Floats:
        """Return (n_rows, n_classes)."""
        return softmax(np.stack([-values, values], axis=1) if values.ndim == 1 else values)


def softmax(values: Floats) -> Floats:
    """Turn scores (n_rows, n_classes) into probabilities, as sklearn.utils.extmath does."""
    values = np.exp(values - values.max(axis=1, keepdims=True))
    values /= values.sum(axis=1, keepdims=True)
    return values


@dataclass(frozen=True, eq=False)
class Decoded(Link):
    """The classes of what answers with their numbers."""

    inner: Kernel
    classes: NDArray[Any]

    def of(self, values: Any) -> NDArray[Any]:
        """Return the labels (n_rows,)."""
        labels: NDArray[Any] = self.classes.take(values.astype(np.intp), axis=0)
        return labels


@dataclass(frozen=True, eq=False)
class Second(Link):
    """The score of the second of two classes, (n_rows,): a decision or a probability.

    `sign` is -1 where the first class is asked for.
    """

    inner: Kernel
    column: int = 1
    sign: int = 1

    def of(self, values: Floats) -> Floats:
        """Return one number a row."""
        if values.ndim == 2:
            return values[:, min(self.column, values.shape[1] - 1)]
        return values if self.sign > 0 else -values


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of what several say."""

    members: tuple[Kernel, ...]

    def __call__(self, X: Any) -> Floats:
        """Add them up one after the other."""
        return _mean(self.members, X)

    def for_one(self) -> OneRow | None:
        """Return the same of members for one row, where all have such a way."""
        members = [for_one(member) for member in self.members]
        return None if None in members else partial(_mean, members)


def _mean(members: Sequence[Any], rows: Any) -> Floats:
    total: Floats = members[0](rows) + 0.0
    for member in members[1:]:
        total += member(rows)
    total /= len(members)
    return total
