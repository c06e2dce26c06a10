"""What transformers make side by side, without the zeros: arrays, picked columns, sparse rows.

A one-hot column is a coefficient that is picked, and a text is a few of very many columns. Only an
estimator that needs one array gets one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skserve.estimators.accelerate.kernel import Declined, Floats, finite

# Columns of numbers that are multiplied one by one: so the sum of a row is the same to the last bit
# alone and among others. Where there are more, BLAS takes an order of its own.
NARROW = 32

# Cells of one array that are made of blocks: 64 MB.
MOST_CELLS = 2**23


class Picked(NamedTuple):
    """A one in each row at each of `codes` (n_rows, n), and zeros elsewhere; -1 picks nothing."""

    codes: NDArray[np.intp]
    width: int


class Sparse(NamedTuple):
    """Rows as in a CSR matrix of scipy; the indices of a row are in no order, each there once."""

    indptr: NDArray[np.intp]
    indices: NDArray[np.intp]
    data: Floats
    width: int


Part = Floats | Picked | Sparse


class Terms(NamedTuple):
    """One row of Blocks: the values that are not zero, or may be, and their columns.

    `wide` tells that more than NARROW of them are of one array.
    """

    columns: list[int]
    values: list[float]
    width: int
    wide: bool = False

    def numbers(self) -> Floats:
        """Return one array (1, width). Raises TypeError where a value is no number."""
        out = np.zeros((1, self.width))
        out[0, self.columns] = array("d", self.values)
        return out


def width_of(part: Part) -> int:
    """Return the number of columns of a part."""
    return part.shape[1] if isinstance(part, np.ndarray) else part.width


class Blocks:
    """Parts side by side, (n_rows, width of all); `sparse` where scikit-learn makes a CSR matrix.

    `dtype` is that of the array or matrix that scikit-learn makes.
    """

    __slots__ = ("dtype", "parts", "shape", "sparse")

    def __init__(
        self, parts: list[Part], n_rows: int, sparse: bool, dtype: DTypeLike = np.float64
    ) -> None:
        """Take the parts as they are."""
        self.parts, self.sparse, self.dtype = parts, sparse, np.dtype(dtype)
        self.shape = (n_rows, sum(map(width_of, parts)))

    def __len__(self) -> int:
        return self.shape[0]

    def numbers(self) -> Floats:
        """Return one array (n_rows, width). Raises Declined where it would be too large."""
        if self.shape[0] * self.shape[1] > MOST_CELLS:
            raise Declined
        out = np.zeros(self.shape)
        at = 0
        for part in self.parts:
            end = at + width_of(part)
            if isinstance(part, np.ndarray):
                out[:, at:end] = part
            elif isinstance(part, Picked):
                row, column = np.nonzero(part.codes >= 0)
                out[row, at + part.codes[row, column]] = 1.0
            else:
                row = np.repeat(np.arange(len(out)), np.diff(part.indptr))
                out[row, at + part.indices] = part.data
            at = end
        return out

    def plain(self) -> Any:
        """Return what scikit-learn makes: an array, or a CSR matrix."""
        if not self.sparse:
            return self.numbers().astype(self.dtype, copy=False)
        from scipy import sparse  # loaded with scikit-learn already

        parts = [_matrix(part, len(self)) for part in self.parts]
        matrix = parts[0] if len(parts) == 1 else sparse.hstack(parts, format="csr")
        matrix.sort_indices()
        return matrix.astype(self.dtype, copy=False)


def _matrix(part: Part, n_rows: int) -> Any:
    from scipy import sparse  # loaded with scikit-learn already

    if isinstance(part, np.ndarray):
        return sparse.csr_matrix(part)
    if isinstance(part, Picked):
        some = part.codes >= 0
        indptr = np.concatenate([[0], np.cumsum(some.sum(axis=1))])
        indices = part.codes[some]
        return sparse.csr_matrix((np.ones(len(indices)), indices, indptr), (n_rows, part.width))
    return sparse.csr_matrix((part.data, part.indices, part.indptr), (n_rows, part.width))


def beside(outputs: Sequence[Any], n_rows: int, sparse: bool) -> Any:
    """Put the outputs of several transformers side by side: an array where all are arrays."""
    parts: list[Part] = []
    kinds = []
    for one in outputs:
        if isinstance(one, Blocks):
            parts += one.parts
        elif isinstance(one, np.ndarray) and one.ndim == 2 and one.dtype.kind in "biuf":
            parts.append(one)
        else:
            numbers = one.numbers() if hasattr(one, "numbers") else None
            if numbers is None:
                raise Declined
            parts.append(numbers)
            one = numbers
        kinds.append(one.dtype)
    if not sparse and all(isinstance(part, np.ndarray) for part in parts):
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)  # type: ignore[arg-type]
    return Blocks(parts, n_rows, sparse, np.result_type(*kinds))


def as_sparse(X: Any) -> Sparse:
    """Return X as sparse rows, without their zeros. Raises Declined for anything but numbers."""
    if type(X) is not Blocks:
        X = Blocks([finite(X)], len(X), True)
    if len(X.parts) == 1 and isinstance(X.parts[0], Sparse):
        return X.parts[0]
    matrix = X.plain() if X.sparse else _matrix(X.numbers(), len(X))
    return Sparse(matrix.indptr, matrix.indices, matrix.data.astype(np.float64), matrix.shape[1])


def scaled(X: Any, weight: float) -> Any:
    """Return an array or Blocks times a number."""
    if isinstance(X, np.ndarray):
        return X * weight
    if not isinstance(X, Blocks):
        raise Declined
    parts: list[Part] = []
    for part in X.parts:
        if isinstance(part, np.ndarray):
            parts.append(part * weight)
            continue
        matrix = _matrix(part, len(X))
        parts.append(Sparse(matrix.indptr, matrix.indices, matrix.data * weight, part.width))
    return Blocks(parts, len(X), X.sparse)


def taken(X: Any) -> Any:
    """Return what scikit-learn made as kernels take it: no matrix of scipy's, no DataFrame."""
    if type(X) is np.ndarray or type(X) is Blocks:
        return X
    if hasattr(X, "tocsr"):
        X = X.tocsr()
        return Blocks([Sparse(X.indptr, X.indices, X.data, X.shape[1])], X.shape[0], True, X.dtype)
    return np.ascontiguousarray(X.to_numpy()) if hasattr(X, "to_numpy") else X


def product(parts: Iterable[Part], weights: NDArray[Any], n_rows: int) -> Floats:
    """Return the parts times `weights`, (width of all,) or (width of all, n).

    One column after the other, as `linear.Product.for_one` adds them up.
    """
    total = np.zeros((n_rows, *weights.shape[1:]))
    at = 0
    for part in parts:
        end = at + width_of(part)
        own = weights[at:end]
        if isinstance(part, np.ndarray):
            if part.shape[1] > NARROW:
                total += part @ own
            else:
                for column, weight in zip(part.T, own, strict=True):
                    total += np.multiply.outer(column, weight)
        elif isinstance(part, Picked):
            picked = weights.take(at + part.codes, axis=0, mode="clip")
            if (part.codes < 0).any():
                picked[part.codes < 0] = 0.0
            for column in range(picked.shape[1]):
                total += picked[:, column]
        elif n_rows == 1:
            total += part.data @ own[part.indices]
        else:
            total += _matrix(part, n_rows) @ own
        at = end
    return total
