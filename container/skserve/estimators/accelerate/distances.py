"""Distances twice: all in one float32 product with a bound on its error, few in float64.

The fitted vectors are packed once, so that the *score* of each with a query is one dot product, and
the higher the score the nearer the vector: its direction for cosine; for euclidean what is left of
it from the centre, and one column more, because -|x - y|^2 / 2 = x.y - |y|^2 / 2 - |x|^2 / 2.

float32 misorders what lies close together, so it only leaves out what is proved to be no neighbour.
A dot product of m numbers, added up in any order, with or without fused multiply-add, is off by at
most gamma(m) |x||y|, where gamma(m) = m u / (1 - m u) and u = 2^-24 (Higham, Accuracy and Stability
of Numerical Algorithms, 3.1); rounding the vectors to float32 counts as two steps more. k vectors
score t or better, so the k nearest score t less twice that error, or better. Those are measured in
float64 with scikit-learn's formulas, and ordered by distance, then by index. Where they are too
many, as in an index of equal vectors, or nothing is sure, the estimator itself is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.kernel import Declined, Floats

UNIT32, UNIT64 = 2.0**-24, 2.0**-53

# Lost at most in one step of float32 below its normal range, where some libraries flush to zero.
TINY = 2.0**-125

# scikit-learn leaves a vector that is shorter as it is when it normalises.
SHORT = 10 * np.finfo(np.float64).eps

# scikit-learn computes |x|^2 - 2 x.y + |y|^2, where digits cancel that x - y keeps. A square below
# these parts of |x|^2 shows its rounding, so that only scikit-learn knows what it says: in a
# distance, and in a weight that is one divided by it.
BLURRED, BLURRED_WEIGHT = 2.0**-18, 2.0**-10


def _gamma(terms: int) -> float:
    """Bound the relative error of a float32 sum of products; with some steps to spare."""
    return (terms + 8) * UNIT32 / (1 - (terms + 8) * UNIT32)


class _Cosine:
    """Cosine distances: 1 - x.y of vectors made one long."""

    blurred = 0.0  # nothing cancels: the distance is off by some units of 2^-53

    def __init__(self, fitted: NDArray[Any]) -> None:
        self.fitted = fitted
        count = fitted.shape[1]
        self._error = _gamma(count) + 2 * count * TINY + 4 * (count + 8) * UNIT64
        self.packed = _packed(fitted, count, lambda block, out: np.copyto(out, _normalised(block)))

    def queries(self, X: Floats) -> tuple[NDArray[np.float32], Floats]:
        """Return the float32 factor of the product, and the lengths. Raises Declined."""
        lengths = _lengths(X)
        zero = ~X.any(axis=1)
        if not np.all((lengths >= SHORT) & np.isfinite(lengths) | zero):
            raise Declined
        return (X / (lengths + zero)[:, None]).astype(np.float32), lengths

    def least(self, scores: Floats, lengths: Floats) -> Floats:
        """Return the score below which no neighbour can be, if the k-th best score is `scores`."""
        # All are as near to zero; the first ones will do.
        return np.where(lengths > 0, scores - 2 * self._error, np.inf)

    def measure(self, X: Floats, Y: Floats) -> Floats:
        """Return the distances of the rows of X from those of Y."""
        distances: Floats = 1 - np.einsum("ij,ij->i", _normalised(X), _normalised(Y))
        return distances.clip(0.0, 2.0, out=distances)

    def lost(self, distances: Floats, X: Floats, part: float) -> bool:
        """Whether some of the distances from X are no more than `part` of what they come from."""
        return bool(np.any(distances <= part))


class _Squared:
    """Squares of euclidean distances."""

    blurred = 0.0  # what rounding leaves of a small square is small beside |x|^2

    def __init__(self, fitted: NDArray[Any]) -> None:
        self.fitted = fitted
        count = fitted.shape[1]
        # Any centre will do that leaves most vectors short; one far away would pull a mean to it.
        some = np.asarray(fitted[:: max(1, len(fitted) // 1024)], np.float64)
        self._centre = np.median(some, axis=0)
        longest = max(float(_lengths(block - self._centre).max()) for block in _blocks(fitted))
        if not (longest == 0 or 1e-100 < longest < 1e100):
            raise Declined
        # A power of two brings all lengths within one, and rounds nothing.
        self._factor = 2.0 ** -int(np.ceil(np.log2(longest or 1.0)))
        self._error = _gamma(count + 1)
        self._tiny = (count + 1) * TINY
        self._order = 4 * (count + 8) * UNIT64
        self.packed = _packed(fitted, count + 1, self._pack)

    def _pack(self, block: Floats, out: NDArray[np.float32]) -> None:
        rest = self._rest(block)
        out[:, :-1] = rest
        out[:, -1] = np.einsum("ij,ij->i", rest, rest) / -2

    def _rest(self, X: Floats) -> Floats:
        rest: Floats = (X - self._centre) * self._factor
        return rest

    def queries(self, X: Floats) -> tuple[NDArray[np.float32], Floats]:
        rest = self._rest(X)
        lengths = _lengths(rest)
        if not np.all(lengths < 2.0**50):
            raise Declined
        return np.column_stack([rest, np.ones(len(X))]).astype(np.float32), lengths * (1 + 1e-6)

    def least(self, scores: Floats, lengths: Floats) -> Floats:
        true = scores - self._off(scores, lengths)
        # The squares, |x|^2 less twice the score, are off in float64 too, and so is their order.
        true -= self._order * np.maximum(lengths**2 - 2 * true, 0.0)
        return true - self._off(true, lengths)

    def _off(self, scores: Floats, lengths: Floats) -> Floats:
        """Bound the error of scores from `scores` up, in float32 or true.

        It grows with |y|, and s <= |x||y| - |y|^2 / 2 says how long y can be where s is the score.
        """
        tiny = self._tiny * (lengths + 1)
        more, less = (1 + self._error) * lengths, 1 - self._error
        root = np.sqrt(np.maximum(more**2 - 2 * less * (scores - tiny), 0.0))
        longest = np.minimum((more + root) / less, 1.0)
        off: Floats = self._error * (lengths * longest + longest**2 / 2) + tiny
        return off

    def measure(self, X: Floats, Y: Floats) -> Floats:
        Y -= X
        squares: Floats = np.einsum("ij,ij->i", Y, Y)
        return squares

    def lost(self, distances: Floats, X: Floats, part: float) -> bool:
        return bool(np.any(distances <= part * np.einsum("ij,ij->i", X, X)[:, None]))


class _Euclidean(_Squared):
    """Euclidean distances."""

    blurred = BLURRED

    def measure(self, X: Floats, Y: Floats) -> Floats:
        return np.sqrt(super().measure(X, Y))

    def lost(self, distances: Floats, X: Floats, part: float) -> bool:
        return super().lost(distances**2, X, part)


Metric = _Cosine | _Squared
METRICS: dict[str, type[Metric]] = {
    "cosine": _Cosine,
    "euclidean": _Euclidean,
    "sqeuclidean": _Squared,
}


def _blocks(fitted: NDArray[Any]) -> Iterator[Floats]:
    """Yield the fitted rows in float64, 8 MiB or so at a time."""
    step = max(1, 2**20 // fitted.shape[1])
    for at in range(0, len(fitted), step):
        yield np.asarray(fitted[at : at + step], np.float64)


def _lengths(X: Floats) -> Floats:
    """Return |x| of each row, summed up as scikit-learn does."""
    lengths: Floats = np.sqrt(np.einsum("ij,ij->i", X, X))
    return lengths


def _normalised(X: Floats) -> Floats:
    """Make rows one long, as scikit-learn does: short ones are left as they are."""
    lengths = _lengths(X)
    lengths[lengths < SHORT] = 1.0
    return X / lengths[:, None]


def _packed(
    fitted: NDArray[Any], columns: int, pack: Callable[[Floats, NDArray[np.float32]], None]
) -> NDArray[np.float32]:
    packed = np.empty((len(fitted), columns), np.float32)
    at = 0
    for block in _blocks(fitted):
        out = packed[at : at + len(block)]
        pack(block, out)
        if not np.isfinite(out).all():
            raise Declined
        at += len(block)
    return packed
