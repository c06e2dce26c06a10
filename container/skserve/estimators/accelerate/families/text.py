"""Texts to counts and weights: Count-, Tfidf- and HashingVectorizer, TfidfTransformer.

scikit-learn makes a matrix of scipy for each batch, sorts and copies it; for one text that takes
longer than to count its words. Only `transform`; a dict finds the column of a term.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skserve.estimators.accelerate.blocks import Blocks, Sparse, as_sparse
from skserve.estimators.accelerate.kernel import Builder, Declined, Floats, Kernel
from skserve.estimators.accelerate.tokens import Analyzer, analyzer
from skserve.estimators.methods import look


def rows_of(counts: list[dict[int, float]], width: int) -> Sparse:
    """Return sparse rows of dicts from the column to the value."""
    lengths = [len(one) for one in counts]
    indptr = np.array([0, *lengths], np.intp).cumsum()
    if len(counts) == 1:
        (one,) = counts
        return Sparse(
            indptr, np.array(list(one), np.intp), np.array(list(one.values()), float), width
        )
    indices = [at for one in counts for at in one]
    data = [value for one in counts for value in one.values()]
    return Sparse(indptr, np.array(indices, np.intp), np.array(data, np.float64), width)


def texts_of(X: Any) -> list[str]:
    """Return X if it is a list of texts. Raises Declined for anything else."""
    if not isinstance(X, list):
        raise Declined
    for text in X:
        if type(text) is not str:
            raise Declined
    return X


@dataclass(frozen=True, eq=False)
class Counter:
    """How often each term of the vocabulary is in each text."""

    terms: Analyzer
    column: Mapping[Any, int]
    width: int
    binary: bool
    dtype: DTypeLike

    def __call__(self, X: Any) -> Blocks:
        """Return sparse rows (n_texts, n_terms)."""
        find, counts = self.column.get, []
        for text in texts_of(X):
            one: dict[int, float] = {}
            for term in self.terms(text):
                at = find(term)
                if at is not None:
                    one[at] = one.get(at, 0.0) + 1.0
            counts.append(one)
        rows = rows_of(counts, self.width)
        if self.binary:
            rows = rows._replace(data=np.ones(len(rows.data)))
        return Blocks([rows], len(X), True, self.dtype)


def _counter(estimator: Any, method: str) -> Kernel | None:
    terms, vocabulary = analyzer(estimator), look(estimator, "vocabulary_")
    dtype = np.dtype(estimator.dtype)
    if method != "transform" or terms is None or not vocabulary or dtype.itemsize < 4:
        return None
    columns = {term: int(at) for term, at in vocabulary.items()}
    return Counter(terms, columns, len(columns), bool(estimator.binary), dtype)


@dataclass(frozen=True, eq=False)
class Hasher:
    """How often the terms of each column are in each text, where a hash is a term's column."""

    terms: Analyzer
    hashed: Callable[[str], int]  # murmurhash3, 32 bits with a sign
    width: int
    signed: bool
    binary: bool
    norm: str | None

    def __call__(self, X: Any) -> Blocks:
        """Return sparse rows (n_texts, n_columns)."""
        hashed, width, signed, counts = self.hashed, self.width, self.signed, []
        for text in texts_of(X):
            one: dict[int, float] = {}
            for term in self.terms(text):
                code = hashed(term)
                at = abs(code) % width
                one[at] = one.get(at, 0.0) + (-1.0 if signed and code < 0 else 1.0)
            counts.append(one)
        rows = rows_of(counts, width)
        if self.binary:
            rows = rows._replace(data=np.ones(len(rows.data)))
        return Blocks([normalised(rows, self.norm)], len(X), True)


def _hasher(estimator: Any, method: str) -> Kernel | None:
    terms = analyzer(estimator)
    if method != "transform" or terms is None or np.dtype(estimator.dtype) != np.float64:
        return None
    hashed = sys.modules["sklearn.utils.murmurhash"].murmurhash3_32
    width, norm = int(estimator.n_features), estimator.norm
    return Hasher(
        terms, hashed, width, bool(estimator.alternate_sign), bool(estimator.binary), norm
    )


def normalised(rows: Sparse, norm: str | None) -> Sparse:
    """Divide each row by its norm, l1 or l2; an empty one stays so."""
    if norm is None or not len(rows.data):
        return rows
    sizes = np.abs(rows.data) if norm == "l1" else rows.data * rows.data
    if len(rows.indptr) == 2:
        total = np.add.reduce(sizes)
        total = total if norm == "l1" else np.sqrt(total)
        return rows._replace(data=rows.data / total) if total else rows
    lengths = np.diff(rows.indptr)
    sums = np.bincount(np.repeat(np.arange(len(lengths)), lengths), sizes, len(lengths))
    totals = sums if norm == "l1" else np.sqrt(sums)
    totals[totals == 0.0] = 1.0
    return rows._replace(data=rows.data / np.repeat(totals, lengths))


@dataclass(frozen=True, eq=False)
class Weights:
    """Counts times the rarity of their terms, each row divided by its norm."""

    idf: NDArray[np.float64] | None
    sublinear: bool
    norm: str | None

    def __call__(self, X: Any) -> Blocks:
        """Return sparse rows as wide as X."""
        rows = as_sparse(X)
        data: Floats = rows.data
        if self.sublinear:
            data = np.log(data) + 1.0
        if self.idf is not None:
            data = data * self.idf[rows.indices]
        return Blocks([normalised(rows._replace(data=data), self.norm)], len(X), True)


def _weights(estimator: Any) -> Weights | None:
    idf = look(estimator, "idf_") if estimator.use_idf else None
    if estimator.use_idf and (not isinstance(idf, np.ndarray) or idf.dtype != np.float64):
        return None
    return Weights(idf, bool(estimator.sublinear_tf), estimator.norm)


def _transformer(estimator: Any, method: str) -> Kernel | None:
    return _weights(estimator) if method == "transform" else None


@dataclass(frozen=True, eq=False)
class Then:
    """One kernel after another."""

    first: Kernel
    second: Kernel

    def __call__(self, X: Any) -> Any:
        """Return what the second makes of what the first makes of X."""
        return self.second(self.first(X))


def _tfidf(estimator: Any, method: str) -> Kernel | None:
    counter, weights = _counter(estimator, method), _weights(estimator)
    if counter is None or weights is None or np.dtype(estimator.dtype) != np.float64:
        return None
    return Then(counter, weights)


KERNELS: dict[str, Builder] = {
    "CountVectorizer": _counter,
    "HashingVectorizer": _hasher,
    "TfidfTransformer": _transformer,
    "TfidfVectorizer": _tfidf,
}
