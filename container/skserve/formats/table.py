"""What a decoder makes of a body: rows as they are spelled, before the model is asked."""

from __future__ import annotations

from typing import Any, NamedTuple


class Table(NamedTuple):
    """Rows as a body spells them: lists of cells, or an array (n_rows, n_columns) of numbers, or
    a scipy matrix of that shape, CSR.

    `flat` says that the body was one single list, which is one row or one column. `spelled` says
    that every cell is a string (CSV): an empty one is missing, and numbers are to be parsed.
    `first` is the number of the first row, where a long body is cut into several tables.
    """

    rows: Any
    names: tuple[str, ...] | None = None
    flat: bool = False
    spelled: bool = False
    first: int = 1


class Decoded(NamedTuple):
    """What a decoder made of a body; `enveloped` bodies get an enveloped answer."""

    table: Table
    method: str | None = None
    enveloped: bool = False
