"""One column of X as a fitted model knows it, and what a cell of a body means in it."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT = 2**53  # above it a float64 no longer tells one whole number from the next

# A number as JSON writes it.
_LITERAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")

# How pandas, JSON and spreadsheets write the two values of a column of bools.
TRUTH = {
    word: value
    for value in (True, False)
    for word in (str(value), str(value).lower(), str(value).upper())
}


@dataclass(frozen=True)
class Column:
    """One column of X.

    `number` is float64; `integer` and `boolean` are declared, and columns of their own type in a
    DataFrame. `text` is a column of objects: strings, or whatever `values` the model
    learned there. `category` is a booster's: a pandas column of the categories `values`, or, where
    no values are kept, whole numbers and strings, of which `label` finds the one that a cell (of
    CSV, or not) is to the model; a `closed` one takes no other category. `any` is
    a column whose type the model does not say: its cells stay as they were sent. `unused` never
    reaches an estimator. `date` is a column of datetime64. A column with a `refusal`, which tells
    why, takes nothing. `missing` stands for null and NaN in a column of objects, `blank` for an
    empty cell of CSV. `imputed` says that an imputer reads the column first. `precision` is the
    dtype of learned numbers that are narrower than float64: 0.1 is another number there. `source`
    is who says so. Between `low` and `high` lay the numbers that the model was fitted on, as far as
    it keeps them.
    """

    kind: str = "number"
    values: tuple[Any, ...] = ()
    missing: Any = math.nan
    blank: Any = math.nan
    imputed: bool = False
    precision: str = ""
    closed: bool = False
    label: Callable[[Any, bool], Any] | None = None
    refusal: str = ""
    source: str = "model"
    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def of_categories(cls, learned: NDArray[Any]) -> Column:
        """Make the column whose fitted encoder learned the categories `learned`."""
        if learned.dtype.kind == "M":
            return cls("date")
        values = learned.tolist()
        present = tuple(one for one in values if one is not None and one == one)
        exact = learned.dtype.kind in "biu" and all(abs(one) < EXACT for one in present)
        if exact or learned.dtype.kind == "f":
            narrow = learned.dtype.kind == "f" and learned.dtype.itemsize < 8
            return cls(values=present, precision=learned.dtype.name if narrow else "")
        missing = None if any(one is None for one in values) else math.nan
        known = len(present) < len(values)
        return cls("text", present, missing, "" if "" in present and not known else missing)

    def rounded(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return numbers (n_rows,) in the precision of those that were learned."""
        if not self.precision:
            return cells
        with np.errstate(over="ignore"):
            narrow = cells.astype(self.precision).astype(np.float64)
        return np.where(np.isinf(narrow), cells, narrow)  # too large stays what was sent

    @cached_property
    def strings(self) -> frozenset[str]:
        """The learned values that are strings."""
        return frozenset(one for one in self.values if isinstance(one, str))

    @cached_property
    def known(self) -> frozenset[Any]:
        """The learned values."""
        return frozenset(self.values)

    @cached_property
    def others(self) -> dict[Any, Any]:
        """The other learned values, by value: True, 1 and 1.0 are one key, as in scikit-learn.

        What is neither a number nor a bool, such as a date, is found by its spelling.
        """
        return {
            one if isinstance(one, int | float) else str(one): one
            for one in self.values
            if not isinstance(one, str)
        }

    def learned(self, cell: Any, spelled: bool) -> Any:
        """Return the learned value that equals `cell`, or else the one that it means.

        A cell of CSV (`spelled`) has no type. Raises Ambiguous where it spells a learned string
        and means another learned value too, and TypeError for a cell that can be neither.
        """
        if not isinstance(cell, str):
            if isinstance(cell, int | float) and self.others:
                return self.others.get(cell, cell)
            raise TypeError
        if not self.others:
            return cell
        means = meaning(cell)
        found = self.others.get(means)
        if found is None and isinstance(means, int) and EXACT <= abs(means) <= sys.float_info.max:
            nearest = self.others.get(float(means))
            found = nearest if isinstance(nearest, float) else None
        if cell in self.strings:
            if spelled and found is not None:
                raise Ambiguous("the model learned both", _TYPED)
            return cell
        if found is not None:
            return found
        if self.strings:
            return cell
        return means if means == means else self.missing

    def as_sent(self, cell: Any, spelled: bool) -> Any:
        """Return a cell of a column of any type: a number of CSV is one that JSON would read.

        It is text where the model learned numerals as text, such as postcodes, and what it spells
        of the other values that the model learned.
        """
        if not spelled or cell in self.strings:
            return cell
        if self.label is not None and cell in TRUTH:
            found = self.label(cell, spelled)
            return {"0": False, "1": True}.get(found, found)
        if self.others and (found := self.others.get(meaning(cell))) is not None:
            return found
        if self._numerals or not _LITERAL.fullmatch(cell):
            return cell
        try:
            return int(cell)
        except ValueError:  # a fraction, or more digits than Python turns into one number
            return float(cell)

    @cached_property
    def _numerals(self) -> bool:
        return any(_LITERAL.fullmatch(one) for one in self.strings)

    @property
    def limited(self) -> bool:
        """Whether the model keeps between which values the column lay."""
        return (self.low, self.high) != (-math.inf, math.inf)

    @property
    def example(self) -> Any:
        """A value that fits."""
        if self.values:
            return self.values[0]
        return _EXAMPLES.get(self.kind, min(max(0.0, self.low), self.high))


_EXAMPLES = {"text": "text", "integer": 0, "boolean": True, "date": "2024-01-31"}


_TYPED = "Send JSON, where a text is quoted and a number, true or false is not."


class Ambiguous(ValueError):
    """A cell could be either of two learned values: why it is not known which, and the way out."""


def to_number(cell: str) -> float:
    """Read a cell as a number; an empty one is missing. Raises ValueError for a text."""
    if not cell.strip():
        return math.nan
    if "_" in cell:
        raise ValueError  # Python reads 1_000, no file format does
    return float(TRUTH.get(cell.strip(), cell))


def meaning(text: str) -> Any:
    """Return the bool or the number that `text` spells, whole numbers exactly, or `text` itself."""
    word = text.strip()
    if word in TRUTH:
        return TRUTH[word]
    if "_" in word:  # Python reads 1_000, no file format does
        return text
    try:
        return int(word)
    except ValueError:
        pass
    try:
        number = float(word)
    except ValueError:
        return text
    # A float64 stands for several whole numbers from here on, and the text for one.
    if EXACT <= abs(number) < math.inf and (exact := Decimal(word)) == exact.to_integral_value():
        return int(exact)
    return number


NUMBER, UNUSED, TEXT, ANY = Column(), Column("unused"), Column("text"), Column("any")
