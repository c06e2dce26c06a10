"""What a decoder makes of a body: rows as they are spelled, before the model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Columns(Sequence[list[Any]]):
    """Rows that are kept as lists of columns, of one length; a row is made where one is asked for.

    Splitting a long text into rows of lists takes longer than all that is done with them.
    """

    def __init__(self, columns: Sequence[list[Any]]) -> None:
        """Take at least one column."""
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, at: Any) -> Any:
        """Return one row."""
        return [cells[at] for cells in self.columns]


class Table(NamedTuple):
    """Rows as a body spells them: lists of cells, or Columns of them, or an array
    (n_rows, n_columns) of numbers, or a scipy matrix of that shape, CSR.

    `flat` says that the body was one single list, which is one row or one column. `spelled` says
    that every cell is a string (CSV): an empty one is missing, and numbers are to be parsed.
    `first` is the number of the first row, where a long body is cut into several tables.
    `complete` says that no cell is missing, where the decoder knows.
    """

    rows: Any
    names: tuple[str, ...] | None = None
    flat: bool = False
    spelled: bool = False
    first: int = 1
    complete: bool = False


class Decoded(NamedTuple):
    """What a decoder made of a body; `enveloped` bodies get an enveloped answer."""

    table: Table
    method: str | None = None
    enveloped: bool = False
