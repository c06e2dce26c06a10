"""Numbers by a curve: bins, powers, quantiles, and products of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skserve.estimators.accelerate.blocks import Blocks, Picked
from skserve.estimators.accelerate.families.scalers import KERNELS as SCALERS
from skserve.estimators.accelerate.kernel import (
    Builder,
    Declined,
    Floats,
    Kernel,
    finite,
    without_infinity,
)
from skserve.estimators.accelerate.links import normal_score
from skserve.estimators.methods import look

# Factors of products side by side: 32 MB.
MOST = 2**22


@dataclass(frozen=True, eq=False)
class Bins:
    """The number of each value's bin, or a column for each bin (`encode`)."""

    edges: tuple[Floats, ...]  # of each column those between two bins
    encode: str  # ordinal, onehot or onehot-dense
    dtype: DTypeLike

    def __call__(self, X: Any) -> Any:
        """Raise Declined for rows that are not finite."""
        columns = np.ascontiguousarray(finite(X).T)
        pairs = zip(self.edges, columns, strict=True)
        places = [np.searchsorted(edges, values, side="right") for edges, values in pairs]
        if self.encode == "ordinal":
            return np.stack(places, axis=1).astype(self.dtype)
        widths = [len(edges) + 1 for edges in self.edges]
        first = np.cumsum([0, *widths])
        codes = np.stack(places, axis=1) + first[:-1]
        sparse = self.encode == "onehot"
        return Blocks([Picked(codes, int(first[-1]))], len(codes), sparse, self.dtype)


def _bins(estimator: Any, method: str) -> Kernel | None:
    dtype = np.dtype(estimator.dtype or np.float64)
    if method != "transform" or dtype != np.float64:
        return None
    edges = tuple(np.asarray(one[1:-1], np.float64) for one in estimator.bin_edges_)
    return Bins(edges, estimator.encode, dtype)


@dataclass(frozen=True, eq=False)
class Products:
    """Products of columns: each of so many factors, of which a 1 stands behind the last column."""

    factors: NDArray[np.intp]  # (n_products, n)

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for rows that are not finite, or are many."""
        rows = finite(X)
        if len(rows) * self.factors.size > MOST:
            raise Declined
        padded = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
        out = padded.take(self.factors[:, 0], axis=1)
        for at in range(1, self.factors.shape[1]):
            out *= padded.take(self.factors[:, at], axis=1)
        return out


def _products(estimator: Any, method: str) -> Kernel | None:
    powers = estimator.powers_
    if method != "transform" or estimator.order != "C":
        return None
    most, count = max(1, int(powers.sum(axis=1).max())), powers.shape[1]
    factors = np.full((len(powers), most), count, np.intp)
    for row, some in zip(factors, powers, strict=True):
        chosen = np.repeat(np.arange(count), some)
        row[: len(chosen)] = chosen
    return Products(factors)


@dataclass(frozen=True, eq=False)
class YeoJohnson:
    """The power transform of any number."""

    powers: Floats

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for infinity."""
        rows = without_infinity(X)
        size = np.log1p(np.abs(rows))
        up, down = _bent(size, self.powers), -_bent(size, 2.0 - self.powers)
        return np.where(rows < 0, down, up)


def _bent(logarithms: Floats, powers: Floats) -> Floats:
    """Return (exp(power * x) - 1) / power, which is x where the power is 0."""
    zero = np.abs(powers) < np.spacing(1.0)
    divisors = np.where(zero, 1.0, powers)
    return np.where(zero, logarithms, np.expm1(divisors * logarithms) / divisors)


@dataclass(frozen=True, eq=False)
class BoxCox:
    """The power transform of numbers above zero."""

    powers: Floats

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for infinity, and for zero and less."""
        rows = without_infinity(X)
        if not np.nanmin(rows, initial=1.0) > 0:
            raise Declined
        return _bent(np.log(rows), self.powers)


@dataclass(frozen=True, eq=False)
class Powers:
    """A power transform, and the scaler behind it."""

    bend: Kernel
    scale: Kernel | None

    def __call__(self, X: Any) -> Any:
        """Return as many columns."""
        with np.errstate(all="ignore"):
            rows = self.bend(X)
        return rows if self.scale is None else self.scale(rows)


def _powers(estimator: Any, method: str) -> Kernel | None:
    if method != "transform":
        return None
    scaler = look(estimator, "_scaler") if estimator.standardize else None
    scale = SCALERS["StandardScaler"](scaler, method) if scaler is not None else None
    if estimator.standardize and scale is None:
        return None
    bend = BoxCox if estimator.method == "box-cox" else YeoJohnson
    return Powers(bend(np.asarray(estimator.lambdas_, np.float64)), scale)


@dataclass(frozen=True, eq=False)
class Quantiles:
    """The part of what was fitted that is below each value, or the normal score of that part."""

    quantiles: Floats  # (n_quantiles, n_columns)
    references: Floats
    normal: bool

    def __call__(self, X: Any) -> Floats:
        """Raise Declined for infinity."""
        rows = without_infinity(X)
        columns = [
            self._column(values, known)
            for values, known in zip(rows.T, self.quantiles.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def _column(self, values: Floats, known: Floats) -> Floats:
        """Look from both sides: among equal quantiles each finds another end."""
        up = np.interp(values, known, self.references)
        down = np.interp(-values, -known[::-1], -self.references[::-1])
        out: Floats = 0.5 * (up - down)
        near = 1e-7 if self.normal else 0.0
        low, high = values - near, values + near
        out[high > known[-1] if self.normal else values == known[-1]] = 1.0
        out[low < known[0] if self.normal else values == known[0]] = 0.0
        if self.normal:
            least = 1e-7 - np.spacing(1)
            ends = np.array([least, 1 - least])
            with np.errstate(all="ignore"):
                out = np.clip(normal_score(out), *normal_score(ends))
        return out


def _quantiles(estimator: Any, method: str) -> Kernel | None:
    if method != "transform":
        return None
    normal = estimator.output_distribution == "normal"
    return Quantiles(np.asarray(estimator.quantiles_), np.asarray(estimator.references_), normal)


KERNELS: dict[str, Builder] = {
    "KBinsDiscretizer": _bins,
    "PolynomialFeatures": _products,
    "PowerTransformer": _powers,
    "QuantileTransformer": _quantiles,
}
