"""The search for nearest neighbours by brute force.

All are in one float32 product, and the few that matter in float64; `distances.py` says what is left
out, and why that is sure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.distances import Metric
from skserve.estimators.accelerate.kernel import Declined, Floats

Indices = NDArray[np.intp]

# Scores in memory at a time, 2 MiB: they stay in the cache between the product and the search.
SCORES = 2**19

# Queries in one product, at most, where the index is large.
QUERIES = 128


def search(metric: Metric, X: Floats, k: int) -> tuple[Floats, Indices]:
    """Return the distances of the `k` nearest of each row, (n_rows, k), and their indices."""
    row, at = _candidates(metric, X, k)
    left = np.flatnonzero(np.bincount(row, minlength=len(X)) == 0)
    row, at = np.r_[row, left.repeat(k)], np.r_[at, np.tile(np.arange(k), len(left))]
    distances = np.empty(len(row))
    step = max(1, 2**18 // X.shape[1])
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        Y = metric.fitted[at[part]].astype(np.float64, copy=False)
        distances[part] = metric.measure(X[row[part]], Y)
    order = np.lexsort((at, distances, row))
    first = np.searchsorted(row[order], np.arange(len(X)))
    nearest = order[first[:, None] + np.arange(k)]
    return distances[nearest], at[nearest]


def _candidates(metric: Metric, X: Floats, k: int) -> tuple[Indices, Indices]:
    """Return pairs (row of X, index) that hold the `k` nearest of each row for sure.

    The best scores of disjoint groups are scores of different vectors: the k-th of them bounds the
    k-th of all. So only groups whose best is good enough are looked into.
    """
    queries, lengths = metric.queries(X)
    n, most = len(metric.packed), len(X) * (len(metric.packed) // 32 + 8 * k + 1024)
    block = min(-(-n // 64) * 64, max(4096, SCORES // len(X)) // 64 * 64)
    groups = 1 << max(0, min(6, (block // (4 * k)).bit_length() - 1))
    scores = np.empty((block, len(X)), np.float32)
    grouped = scores.reshape(groups, block // groups, len(X))
    best = np.full((k, len(X)), -np.inf, np.float32)
    found, total = [], 0
    for start in range(0, n, block):
        part = metric.packed[start : start + block]
        np.matmul(part, queries.T, out=scores[: len(part)])
        scores[len(part) :] = -np.inf
        tops = grouped.max(axis=0)
        best = np.partition(np.concatenate([best, tops]), len(tops), axis=0)[len(tops) :]
        least = np.maximum(
            metric.least(best.min(axis=0).astype(np.float64), lengths), np.finfo(np.float32).min
        )
        column, row = np.nonzero(tops >= least)
        good = grouped[:, column, row]
        group, hit = np.nonzero(good >= least[row])
        found.append((row[hit], start + group * len(tops) + column[hit], good[group, hit]))
        total += len(hit)
        if total > most:
            raise Declined
    row, at, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept = score >= least[row]
    return row[kept], at[kept]
