"""Rows to prove a kernel with, drawn from what was fitted.

Ordinary rows are of known categories, of numbers within and a little beyond the fitted ranges, and
of texts made of the vocabulary and of words outside it. Odd rows have cells that are missing,
unknown, or at a threshold, one column after the other, and texts that are empty or in no language.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.estimators.accelerate.jobs import parts_of
from skserve.estimators.accelerate.probe_ranges import ranges, thresholds
from skserve.estimators.columns import Column
from skserve.estimators.frame import Cells, Frame
from skserve.estimators.methods import look
from skserve.estimators.schema import Schema

# Rows drawn at random, besides those at the ends of the ranges.
DRAWN = 24

# Rows of known categories: each of up to so many is there.
MOST_CATEGORIES = 256

# Columns that are made odd one by one; the others all at once.
MOST_COLUMNS = 12

UNKNOWN = "\N{SNOWMAN} unknown"
STRANGE = (
    "",
    " ",
    "\N{SNOWMAN}",
    "ÀÉÎ ÀÉÎ naïve ﬁ ß İ",
    "A-a 1 22 333",
    "_ __ \t\n ...",
    "a" * 999,
)


@dataclass(frozen=True)
class Probes:
    """`ordinary` rows, and lists of `odd` ones, as the methods of a model take them."""

    ordinary: Any
    odd: tuple[Any, ...]


def probe(estimator: Any, count: int) -> NDArray[np.float64]:
    """Draw rows that cover the ranges `estimator` was fitted on, a quarter beyond each end."""
    low, high = ranges(estimator, count)
    drawn = np.random.default_rng(0).uniform(-0.25, 1.25, (DRAWN, count))
    return np.vstack([low + drawn * (high - low), low, high, np.zeros(count)])


def of_numbers(estimator: Any, columns: Sequence[Column]) -> Probes:
    """Return the probes of a model of numbers."""
    rows = _known(probe(estimator, len(columns)), columns)
    found = with_odd_rows(rows, thresholds(estimator))
    unknown = rows[:1] - 12345.0
    return Probes(found.ordinary, (*found.odd, unknown))


def _known(rows: NDArray[np.float64], columns: Sequence[Column]) -> NDArray[np.float64]:
    """Put known categories into the columns of numbers that are categories."""
    for at, column in enumerate(columns):
        if column.values and column.kind == "number":
            rows[:, at] = np.resize(np.array(column.values, np.float64), len(rows))
    return rows


def with_odd_rows(rows: NDArray[np.float64], at: dict[int, NDArray[Any]]) -> Probes:
    """Return rows, of which the last is zero, and odd ones; `at` are thresholds by column."""
    missing = rows[:2].copy()
    missing[0, 0], missing[1] = np.nan, np.nan
    edges = rows[:8].copy()
    for column, values in at.items():
        if column < rows.shape[1]:
            edges[:, column] = np.resize(values[:: max(1, len(values) // 8)], len(edges))
    return Probes(rows[:-1], (rows[-1:], edges, missing))


def of_texts(estimator: Any) -> Probes:
    """Return the probes of a model of one text."""
    return Probes(texts(estimator, DRAWN), (list(STRANGE),))


def texts(estimator: Any, count: int) -> list[str]:
    """Make texts of the vocabularies within an estimator, and of words outside them."""
    rng, words = np.random.default_rng(0), ["plain", "Words", "outside", "naïve", "2026"]
    for one in parts_of(estimator):
        vocabulary = look(one, "vocabulary_")
        if isinstance(vocabulary, dict) and vocabulary:
            step = max(1, len(vocabulary) // 200)
            words += [str(term) for term in islice(vocabulary, 0, None, step)]
    return [
        " ".join(words[at] for at in rng.integers(len(words), size=length))
        for length in rng.integers(1, 30, count)
    ]


def of_columns(estimator: Any, schema: Schema) -> Probes:
    """Return the probes of a model of mixed columns."""
    columns = schema.columns
    known = max((len(one.values) for one in columns if _objects(one)), default=0)
    count = DRAWN + 2 if known <= DRAWN else min(known, MOST_CATEGORIES)
    numbers = probe(estimator, len(columns))[:-1]
    numbers = _known(np.resize(numbers, (count, len(columns))), columns)
    written = texts(estimator, count)
    cells: list[Cells] = []
    for at, column in enumerate(columns):
        if _objects(column):
            cells.append(_shifted(list(column.values) or written, at, count))
        else:
            cells.append(_typed(np.ascontiguousarray(numbers[:, at]), column))
    rows = Frame(cells, schema.names, count)
    odd = [_changed(rows, columns, one) for one in (_missing, _unknown, _strange)]
    return Probes(rows, (Frame.joined(odd),))


def _typed(numbers: NDArray[Any], column: Column) -> NDArray[Any]:
    """Return numbers as a column of them has them: whole ones, or bools, which know no NaN."""
    if column.kind == "boolean":
        return numbers if numbers.dtype == bool else numbers > np.median(numbers)
    whole = column.kind == "integer" and not np.isnan(numbers).any()
    return np.rint(numbers).astype(np.int64) if whole else numbers


def _objects(column: Column) -> bool:
    return column.kind == "text" or (column.kind == "any" and bool(column.values))


def _shifted(values: Sequence[Any], by: int, count: int) -> list[Any]:
    """Return `count` values in turn, from another one on in each column."""
    return [values[(at + by) % len(values)] for at in range(count)]


def _missing(column: Column) -> Any:
    return column.missing if _objects(column) else np.nan


def _unknown(column: Column) -> Any:
    return UNKNOWN if _objects(column) else -12345.0


def _strange(column: Column) -> Any:
    if _objects(column):
        return UNKNOWN if column.values else ""
    return 0.0


def _changed(rows: Frame, columns: Sequence[Column], change: Callable[[Column], Any]) -> Frame:
    """Return rows with a changed cell, in each row of another column, and one that has no other."""
    count = min(len(columns), MOST_COLUMNS) + 1
    places = [at % len(rows) for at in range(count)]
    cells: list[Cells] = []
    for at, column in enumerate(columns):
        some = rows.columns[at]
        if isinstance(some, list):
            taken: Cells = [some[one] for one in places]
        else:
            taken = some[places].astype(bool if some.dtype == bool else np.float64)
        if column.kind != "boolean":
            taken[-1] = change(column)
            if at < count - 1:
                taken[at] = change(column)
        cells.append(taken if isinstance(taken, list) else _typed(taken, column))
    return Frame(cells, rows.names, count)


def of(estimator: Any, schema: Schema) -> Probes | None:
    """Return the probes of a model, or None where it does not say what its columns are."""
    if schema.text:
        return of_texts(estimator)
    if schema.n_features is None:
        return None
    if schema.numeric:
        return of_numbers(estimator, schema.columns)
    kinds = {one.kind for one in schema.columns}
    known = {"any", "boolean", "integer", "number", "text", "unused"}  # what is not in DataFrames
    return of_columns(estimator, schema) if kinds <= known else None
