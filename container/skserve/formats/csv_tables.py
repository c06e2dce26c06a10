"""CSV: plain numbers at the speed of C, and whatever else there is cell by cell.

The fast way must give exactly what the careful one would; a property test compares them. Both go
block by block, so that few cells are Python objects at the same time.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest, ModelFault
from skserve.estimators.schema import Schema
from skserve.formats.answer import Answer
from skserve.formats.charsets import encoded, utf8_of
from skserve.formats.conform import joined
from skserve.formats.csv_header import Header
from skserve.formats.json_text import BLOCK, JSONError, dumps, loads, rectangle
from skserve.formats.media_types import MediaType
from skserve.formats.table import Columns, Decoded, Table

Names = tuple[str, ...] | None


def read_csv(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read a table of any cells, with a header where there is one."""
    data = utf8_of(body, kind)
    header = Header.of(data, kind, schema)
    start, names = (len(header.line), header.names) if header else (0, None)
    try:
        # A model without names skips the header.
        kept = names if names and schema.takes_names(names) else None
        if schema.numeric:
            table = joined(_blocks(data, start, kept, schema), schema)
        else:
            rows = _columns(data, start, len(names or ()) or schema.n_features)
            table = Table(rows or list(_records(data, start, schema)), kept, spelled=True)
    except csv.Error as error:
        raise BadRequest(f"The body is not CSV: {error}.", "Close every double quote.") from None
    if names is None and len(table.rows) == 1 and not (schema.text or schema.records):
        table = table._replace(rows=table.rows[0], flat=True)
    return Decoded(table)


def _blocks(data: bytes, start: int, names: Names, schema: Schema) -> Iterator[Table]:
    """Cut the records into tables: of numbers where they are plain, else of cells.

    Where a record ends is only sure without quotes, or after a block that was plain all through;
    so from the first block on that has quotes and is not plain, the csv module does the cutting.
    """
    quotes = data.find(b'"', start) >= 0
    if not quotes and b"\r" in data:
        data = data[start:].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        start = 0
    row, width = 1, schema.n_features
    while start < len(data):
        end = data.rfind(b"\n", start, start + BLOCK) + 1 or data.find(b"\n", start) + 1
        block = data[start : end or len(data)]
        numbers = _plain(block, width)
        if numbers is not None:
            yield Table(numbers, names, first=row)
            row, width = row + len(numbers), numbers.shape[1]
        elif quotes:
            yield from _cut(_records(data, start, schema, row), names, row)
            return
        else:
            cells = list(_records(block, 0, schema, row))
            yield Table(cells, names, spelled=True, first=row)
            row += len(cells)
        start += len(block)


def _plain(block: bytes, width: int | None) -> NDArray[np.float64] | None:
    """Parse records of plain or missing numbers, (n_rows, width); None where there is more."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
        if b"\r" in block:
            return None  # it ends a record too, but is white space to JSON
    if not block.endswith(b"\n"):
        block += b"\n"
    width = width or block.count(b",", 0, block.index(b"\n")) + 1
    try:
        numbers = _as_json(block, width)
        return _as_numerals(block, width) if numbers is None else numbers
    except (ValueError, TypeError):
        return None


def _as_json(block: bytes, width: int) -> NDArray[np.float64] | None:
    """Parse numbers as JSON knows them."""
    if b"n" in block:
        return None
    numbers = rectangle(block[:-1], b"\n", width)
    return None if numbers is None else _signed(numbers, block)


_ZERO = re.compile(rb"-0[ \t]*[,\n]")


def _signed(numbers: NDArray[np.float64], block: bytes) -> NDArray[np.float64] | None:
    """Return the numbers, unless there is a -0: an integer in JSON, and those have but one zero."""
    if not numbers.all() and _ZERO.search(block):
        return None
    return numbers


# What numbers are written with, as far as Python's `float` reads them.
_NUMERALS = b"0123456789.+-eEINFAinfa"


def _as_numerals(block: bytes, width: int) -> NDArray[np.float64] | None:
    """Parse what else is a number to Python (+1, .5, 1., 01, nan), is missing, or is quoted."""
    n_rows, quotes = block.count(b"\n"), b'"' in block
    besides = block.translate(None, _NUMERALS + (b'"' if quotes else b" "))
    if len(besides) != n_rows * width or besides != (b"," * (width - 1) + b"\n") * n_rows:
        return None
    cells = _filled(block.replace(b"\n", b","))
    if quotes:  # tight around whole cells, or it is no JSON, or fewer cells
        if len(loads(b"[%b]" % cells)) != n_rows * width:
            return None
        block = block.replace(b'"', b"")
        cells = _filled(block.replace(b"\n", b","))
    with suppress(JSONError):
        values = loads(b"[%b]" % cells)
        numbers = np.fromiter(values, np.float64, n_rows * width).reshape(n_rows, width)
        if _signed(numbers, block) is not None:
            return numbers
    spelled = cells.replace(b"null", b"nan").split(b",")
    return np.fromiter(map(float, spelled), np.float64).reshape(n_rows, width)


def _filled(cells: bytes) -> bytes:
    """Write null where there is nothing before a comma; the last one ends the cells."""
    cells = b"," + cells
    commas = np.frombuffer(cells, np.uint8) == ord(",")
    gaps = (np.flatnonzero(commas[:-1] & commas[1:]) + 1).tolist()
    ends = [*gaps, len(cells)]
    return b"null".join(map(cells.__getitem__, map(slice, [0, *gaps], ends)))[1:-1]


def _records(data: bytes, start: int, schema: Schema, row: int = 1) -> Iterator[list[str]]:
    """Read the records from `start` on; `row` is the number of the first."""
    records: Iterable[list[str]]
    if data.find(b'"', start) < 0:
        records = _unquoted(data[start:])
    else:
        stream = io.BytesIO(data)
        stream.seek(start)
        lines = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        records = csv.reader(lines, strict=True)
    for number, cells in enumerate(records, row):
        if cells:
            yield cells
            continue
        if schema.n_features not in (None, 1) and not schema.text:
            raise BadRequest(f"Row {number} is a blank line.", "Leave no line empty.")
        yield [""]  # a blank line of a one-column table is a missing value


def _unquoted(data: bytes) -> Iterable[list[str]]:
    """Split records without quotes at line ends and commas, several times as fast as `csv` does."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = data.decode().removesuffix("\n").split("\n") if data else []
    return (line.split(",") if line else [] for line in lines)


def _columns(data: bytes, start: int, width: int | None) -> Columns | None:
    """Split several records without quotes, all of `width` cells; None for any other."""
    if not width or width < 2 or data.find(b'"', start) >= 0:
        return None
    text = data[start:].replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode().removesuffix("\n")
    count = text.count("\n") + 1
    # A line end is a cell of its own, so that each is found at the end of its record.
    cells = text.replace("\n", ",\n,").split(",")
    cells.append("\n")
    ends = cells[width :: width + 1]
    if count < 2 or len(cells) != count * (width + 1) or ends.count("\n") != count:
        return None
    return Columns([cells[at :: width + 1] for at in range(width)])


def _cut(records: Iterator[list[str]], names: Names, row: int) -> Iterator[Table]:
    """Cut records into tables of so many cells; `row` is the number of the first."""
    block: list[list[str]] = []
    cells = 0
    for record in records:
        block.append(record)
        cells += len(record)
        if cells >= BLOCK:
            yield Table(block, names, spelled=True, first=row)
            row += len(block)
            block, cells = [], 0
    if block:
        yield Table(block, names, spelled=True, first=row)


def write_csv(answer: Answer, enveloped: bool) -> bytes:
    """Write one line a row; the shortest numbers that read back equal."""
    if answer.n_rows and all(part.dtype.kind in "iuf" for part in answer.parts):
        parts = [_number_lines(part) for part in answer.parts]
        return b"".join(b",".join(row) + b"\n" for row in zip(*parts, strict=True))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in answer.cells())
    return encoded(text.getvalue())


def _number_lines(part: NDArray[Any]) -> list[bytes]:
    """Write numbers, one line a row, without making a Python object of each."""
    values = part.reshape(len(part), -1)
    if values.dtype.kind == "f":
        values = values.astype(np.float64, copy=False)
    text = dumps(np.ascontiguousarray(values))[2:-2]
    odd = values[~np.isfinite(values)].tolist()
    if odd:  # each is a null so far
        words = [*(repr(value).encode() for value in odd), b""]
        text = b"".join(chain.from_iterable(zip(text.split(b"null"), words, strict=True)))
    return text.split(b"],[")


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return float.__repr__(value)  # numpy's own float64 would say its name
    if isinstance(value, dict | list | tuple | set | np.ndarray):
        raise ModelFault(
            f"The answer cannot be written as CSV: a cell holds a {type(value).__name__}.",
            "Ask for JSON.",
        )
    return "nan" if value is None else value
