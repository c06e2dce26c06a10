"""From rows of cells to columns of numbers and of text.

The rows are read twice: first to count them and to learn which columns hold numbers, then into
arrays of the right size. A column is a number where every cell is one or is missing; all others are
text.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from skserve.errors import StartError

log = logging.getLogger("skserve")


Rows = Iterator[tuple[str, list[Any]]]  # where a row stands, for messages, and its cells


def gathered(
    rows: Callable[[], Rows], names: list[str] | None, number: Callable[[Any], float]
) -> tuple[Any, list[str] | None]:
    """Gather rows: one array if all columns are numbers, a DataFrame otherwise."""
    count, width, texts = _surveyed(rows(), names, number)
    numbers = [at for at in range(width) if at not in texts]
    values = np.empty((count, len(numbers)))
    words: dict[int, list[Any]] = {at: [] for at in texts}
    for place, (_, row) in enumerate(rows()):
        values[place] = [number(row[at]) for at in numbers]
        for at, column in words.items():
            column.append(_word(row[at]))
    if not texts:
        return values, names
    import pandas as pd

    named = names or [str(at) for at in range(width)]
    log.info("text columns: %s", ", ".join(named[at] for at in sorted(texts)))
    columns = {
        name: pd.Series(words[at], dtype=object) if at in texts else values[:, numbers.index(at)]
        for at, name in enumerate(named)
    }
    return pd.DataFrame(columns), named


def _surveyed(
    rows: Rows, names: list[str] | None, number: Callable[[Any], float]
) -> tuple[int, int, set[int]]:
    """Return the number of rows, that of columns, and which columns hold text."""
    count, width, texts = 0, len(names) if names is not None else 0, set[int]()
    for where, row in rows:
        width = width or len(row)
        if len(row) != width:
            raise StartError(f"{where} has {len(row)} values, expected {width}.")
        for at, cell in enumerate(row):
            if at not in texts:
                try:
                    number(cell)
                except (ValueError, TypeError, OverflowError):
                    texts.add(at)
        count += 1
    return count, width, texts


def _word(cell: Any) -> Any:
    """Keep a text as it is; an empty cell and null are missing."""
    return math.nan if cell is None or cell == "" else cell
