"""CSV: plain numbers at the speed of C, and whatever else there is cell by cell.

The fast way must give exactly what the careful one would; a property test compares them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest
from skserve.media import MediaType, text_of
from skserve.schema import Schema
from skserve.table import Decoded, Table, conform

csv.field_size_limit(1 << 31)  # the body has a limit of its own; a long text is not an error


def read_csv(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read plain numbers at the speed of C, and whatever else there is cell by cell."""
    text = text_of(body, kind)
    header = kind.parameters.get("header", "").lower()
    if header not in ("", "present", "absent"):
        raise BadRequest(f"header={header} is not known.", "Send header=present or header=absent.")
    try:
        lines, names = _opened(text, header, schema)
        kept = names if schema.names else None  # a model without names skips the header
        numbers = _csv_numbers(text, lines, kept) if schema.numeric else None
        if numbers is not None:
            table = Table(numbers, kept)
        else:
            lines, _ = _opened(text, header, schema)
            table = _csv_cells(_csv_rows(lines, schema), kept, schema)
    except csv.Error as error:
        raise BadRequest(f"The body is not CSV: {error}.", "Close every double quote.") from None
    if names is None and len(table.rows) == 1 and not schema.text:
        table = replace(table, rows=table.rows[0], flat=True)
    return Decoded(table)


def _opened(text: str, header: str, schema: Schema) -> tuple[Iterator[str], tuple[str, ...] | None]:
    """Return the lines of the data, and the cells of the header where there is one."""

    def lines() -> Iterator[str]:  # a StringIO would take four bytes for each character
        return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", newline="")

    rest = lines()
    first = next(csv.reader(rest, strict=True), [])
    if header == "present" or (not header and _is_header(first, schema)):
        return rest, tuple(first)
    return lines(), None


def _is_header(cells: list[str], schema: Schema) -> bool:
    """Whether a first line names the fitted columns, all of them or at least half of its cells.

    Half is enough to call a wrong header by its name instead of reading it as data; a row of data
    that holds that many column names does not occur.
    """
    if not schema.names or not cells:
        return False
    named = sum(cell in schema.names for cell in cells)
    return named > 0 and named * 2 >= len(cells)


# numpy skips blank lines, which are rows of a one-column table and a mistake in others. It also
# takes four control characters for blanks, unlike Python.
_ODD = ("\n\n", "\n\r", "\r\r", "\x1c", "\x1d", "\x1e", "\x1f")


def _csv_numbers(
    text: str, lines: Iterator[str], names: tuple[str, ...] | None
) -> NDArray[np.float64] | None:
    """Parse a table of plain numbers, (n_rows, n_columns), or None: then cells are looked at."""
    first = next(lines, None)
    if first is None or text.startswith(("\r", "\n")) or any(odd in text for odd in _ODD):
        return None
    try:
        numbers = np.loadtxt(chain((first,), lines), delimiter=",", comments=None, ndmin=2)
    except ValueError:
        return None
    return numbers if names is None or len(names) == numbers.shape[1] else None


def _csv_rows(lines: Iterator[str], schema: Schema) -> Iterator[list[str]]:
    for number, row in enumerate(csv.reader(lines, strict=True), 1):
        if not row and schema.n_features not in (None, 1) and not schema.text:
            raise BadRequest(f"Row {number} is a blank line.", "Leave no line empty.")
        yield row or [""]  # a blank line of a one-column table is a missing value


_BLOCK = 200_000  # cells that are strings at the same time; one takes some 60 bytes


def _csv_cells(rows: Iterator[list[str]], names: tuple[str, ...] | None, schema: Schema) -> Table:
    """Make a table of cells; a long one of numbers is converted block by block, to save memory."""
    if not schema.numeric:
        return Table(list(rows), names, spelled=True)
    blocks = _blocks(rows)
    first, second = next(blocks), next(blocks, None)
    if second is None:
        return Table(first, names, spelled=True)
    done: list[NDArray[np.float64]] = []
    before = 0
    for block in chain((first, second), blocks):
        width = done[0].shape[1] if done else schema.n_features
        try:
            values = conform(Table(block, names, spelled=True), replace(schema, n_features=width))
        except BadRequest as error:
            raise BadRequest(_counted_from(before, error.message), error.hint) from None
        done.append(values[1:] if done else values)
        before += len(block) - 1
    return Table(np.concatenate(done), names and schema.names)


def _blocks(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    """Split rows; each block but the first starts with the last row before it, which did fit.

    So what is said of a first line alone, that it may be a header, is said of no other.
    """
    block: list[list[str]] = []
    cells = 0
    for row in rows:
        block.append(row)
        cells += len(row)
        if cells >= _BLOCK:
            yield block
            block, cells = [row], 0
    yield block


def _counted_from(before: int, message: str) -> str:
    return re.sub(r"^Row (\d+)", lambda row: f"Row {int(row[1]) + before}", message)
