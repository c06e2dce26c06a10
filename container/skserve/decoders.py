"""The formats that are read: one function each, from bytes to a `Table`.

A decoder knows the schema only to tell a header from data and a text from a row. Whatever it cannot
read is a `BadRequest` that says where. Nothing here unpickles, and nothing believes a size that a
body claims before the bytes are there.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from skserve.errors import BadRequest
from skserve.media import CSV, JSON, JSON_LINES, NDJSON, NPY, MediaType, text_of
from skserve.schema import Schema
from skserve.table import Table, quoted

csv.field_size_limit(1 << 31)  # the body has a limit of its own; a long text is not an error


@dataclass(frozen=True)
class Decoded:
    """What a decoder made of a body; `enveloped` bodies get an enveloped answer."""

    table: Table
    method: str | None = None
    enveloped: bool = False


# ---------------------------------------------------------------------------------------- CSV in


def _csv(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    text = text_of(body, kind)
    header = kind.parameters.get("header", "").lower()
    if header not in ("", "present", "absent"):
        raise BadRequest(f"header={header} is not known.", "Send header=present or header=absent.")
    first = _first_record(text)
    named = header == "present" or (not header and _is_header(first, schema))
    if not named and not schema.text and (numbers := _csv_numbers(text)) is not None:
        return Decoded(Table(numbers[0] if len(numbers) == 1 else numbers, flat=len(numbers) == 1))
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise BadRequest(f"The body is not CSV: {error}.", "Close every double quote.") from None
    names = tuple(rows.pop(0)) if named and rows else None
    for number, row in enumerate(rows, 1):
        if not row:
            if schema.n_features not in (None, 1) and not schema.text:
                raise BadRequest(f"Row {number} is a blank line.", "Leave no line empty.")
            row.append("")  # a blank line of a one-column table is a missing value
    if names is None and len(rows) == 1 and not schema.text:
        return Decoded(Table(rows[0], flat=True, spelled=True))
    return Decoded(Table(rows, names, spelled=True))


def _first_record(text: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), strict=True), [])
    except csv.Error:
        return []  # the whole body is read next, and says so


def _is_header(cells: list[str], schema: Schema) -> bool:
    """Whether a first line names the fitted columns, all of them or at least half of its cells.

    Half is enough to call a wrong header by its name instead of reading it as data; a row of data
    that holds that many column names does not occur.
    """
    if not schema.names or not cells:
        return False
    named = sum(cell in schema.names for cell in cells)
    return named > 0 and named * 2 >= len(cells)


def _csv_numbers(text: str) -> NDArray[np.float64] | None:
    """Parse a table of plain numbers, (n_rows, n_columns), or None: then cells are looked at."""
    if not text or text[0] in "\r\n" or "\n\n" in text or "\r\n\r\n" in text or '"' in text:
        return None
    try:
        return np.loadtxt(io.StringIO(text), delimiter=",", comments=None, ndmin=2)
    except ValueError:
        return None


# --------------------------------------------------------------------------------------- JSON in


def _json(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    document = _parsed(body, kind)
    if isinstance(document, list):
        return Decoded(_rows(document, schema))
    if not isinstance(document, dict):
        raise BadRequest(
            f"The body is {json.dumps(document)[:40]}, expected a list or an object.",
            "Send rows, such as [[1, 2], [3, 4]].",
        )
    if schema.names and set(document) <= set(schema.names):
        return Decoded(_rows([document], schema))  # one record, bare
    return _envelope(document, schema)


def _parsed(body: bytes, kind: MediaType, where: str = "The body") -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # Python writes NaN and Infinity, which JSON does not have; other charsets are rare.
    try:
        return json.loads(text_of(body, kind))
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except (ValueError, RecursionError):
        raise BadRequest(f"{where} is not JSON that can be read here.") from None


_ROW_KEYS = ("instances", "inputs", "dataframe_records")
_SPLIT_KEYS = {"columns", "data", "index", "method"}


def _envelope(document: dict[str, Any], schema: Schema) -> Decoded:
    """Read `instances`, `inputs`, a DataFrame in records or split form, or `columns` + `data`."""
    method = document.get("method")
    if method is not None and not isinstance(method, str):
        raise BadRequest("method must be a string.", 'Such as "predict_proba".')
    keys = set(document) - {"method"}
    if len(keys) == 1 and (key := keys.pop()) in (*_ROW_KEYS, "dataframe_split"):
        rows = document[key]
        if isinstance(rows, list) and key != "dataframe_split":
            return Decoded(_rows(rows, schema), method, enveloped=True)
        if isinstance(rows, dict) and key == "inputs":
            return Decoded(_columnar(rows), method, enveloped=True)
        if isinstance(rows, dict) and key == "dataframe_split":
            return Decoded(_split(rows, schema), method, enveloped=True)
        raise BadRequest(f"{key!r} holds neither rows nor columns.", "Send a list of rows.")
    if "data" in document and set(document) <= _SPLIT_KEYS:
        return Decoded(_split(document, schema), method, enveloped=True)
    raise BadRequest(
        f"The body is an object with the keys {quoted(sorted(document))}.",
        "Send a list of rows, or one of: instances, inputs, dataframe_records, dataframe_split, "
        "or columns and data; beside it only method.",
    )


def _rows(rows: list[Any], schema: Schema) -> Table:
    """Make a table of a JSON list: of numbers or strings, of lists, or of records."""
    if rows and isinstance(rows[0], dict):
        return _records(rows, schema)
    flat = bool(rows) and not any(isinstance(row, list) for row in rows)
    if schema.text:
        return Table(rows)
    return Table(_numbers(rows, 1 if flat else 2), flat=flat)


def _numbers(rows: list[Any], ndim: int) -> list[Any] | NDArray[Any]:
    """Make an array of rows that hold numbers alone; others stay lists, to be read cell by cell."""
    try:
        values = np.asarray(rows)
    except (ValueError, OverflowError):
        return rows
    return values if values.dtype.kind in "iuf" and values.ndim == ndim else rows


def _records(records: list[Any], schema: Schema) -> Table:
    """Make a table of objects, one a row, matched by name."""
    names = tuple(records[0])
    if names == ("features",) and "features" not in (schema.names or names[1:]):
        lists = [one.get("features") if isinstance(one, dict) else one for one in records]
        return Table(lists)  # the record form of SageMaker's built-in algorithms
    if schema.text and len(names) == 1:
        schema = replace(schema, names=names)  # one column, whatever it is called
    if schema.names is None:
        raise BadRequest(
            "The rows are objects, but the model was fitted without column names.",
            "Send each row as a list, in the order of the columns.",
        )
    expected = set(names)
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict) or set(record) != expected:
            keys = quoted(sorted(record)) if isinstance(record, dict) else "no names"
            raise BadRequest(
                f"Row {number} has {keys}, but row 1 has {quoted(names)}.",
                "Send the same columns in every row; a missing value is null.",
            )
    return Table([[record[name] for name in names] for record in records], names)


def _columnar(columns: dict[str, Any]) -> Table:
    """Make a table of `{name: values}`."""
    lengths = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise BadRequest("The columns under 'inputs' are not lists of one length.")
    return Table([list(row) for row in zip(*columns.values(), strict=True)], tuple(columns))


def _split(frame: dict[str, Any], schema: Schema) -> Table:
    """Make a table of `columns` and `data`, as DataFrame.to_dict(orient="split") has them."""
    rows, names = frame.get("data"), frame.get("columns")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise BadRequest("'data' must be a list of rows.", 'Such as {"data": [[1, 2]]}.')
    if names is not None and not isinstance(names, list):
        raise BadRequest("'columns' must be a list of names.")
    if schema.text or names is None or names == list(range(len(names))):
        return Table(rows if schema.text else _numbers(rows, 2))
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise BadRequest(f"Row {number} has {len(row)} values for {len(names)} columns.")
    return Table(_numbers(rows, 2), tuple(str(name) for name in names))


def _json_lines(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read one value a line: a list, an object, or for one column a bare value."""
    lines = body.removesuffix(b"\n").split(b"\n") if body else []
    rows: list[Any] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            rows.append(_parsed(line, kind, f"Line {number}"))
        elif schema.n_features == 1 and not schema.text:
            rows.append(None)
        else:
            raise BadRequest(f"Line {number} is blank.", "Send one row a line.")
    if rows and isinstance(rows[0], dict):
        return Decoded(_records(rows, schema))
    if schema.text:
        return Decoded(Table(rows))
    if schema.n_features == 1:
        rows = [row if isinstance(row, list) else [row] for row in rows]
    return Decoded(Table(_numbers(rows, 2)))


# ---------------------------------------------------------------------------------------- npy in


def _npy(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read an array without unpickling and without believing its header's size."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(stream)
    except Exception as error:  # a bad header fails as syntax, tokens, types, memory
        raise BadRequest(f"The body is not a .npy file: {str(error)[:200]}.") from None
    if dtype.kind not in "biufUS":
        raise BadRequest(
            f"The array holds {dtype.name} values, which are not read here.",
            "Save numbers or strings: np.save(file, X.astype(float), allow_pickle=False).",
        )
    held = len(body) - stream.tell()
    expected = dtype.itemsize
    for length in shape:
        expected *= length
    if held != expected or any(length < 0 for length in shape) or not 1 <= len(shape) <= 2:
        raise BadRequest(
            f"The array is said to be {shape} of {dtype.name}, {expected} bytes; "
            f"the body holds {held}.",
            "Send an array of one or two dimensions, whole.",
        )
    values = np.frombuffer(body, dtype, offset=stream.tell()).reshape(
        shape, order="F" if fortran else "C"
    )
    rows: Any = values.astype(np.float64, order="C") if dtype.kind in "biuf" else values.tolist()
    if dtype.kind == "S":
        rows = np.char.decode(values, "utf-8", "replace").tolist()
    return Decoded(Table(rows, flat=len(shape) == 1 and not schema.text))


Decoder = Callable[[bytes, MediaType, Schema], Decoded]

DECODERS: dict[str, Decoder] = {
    JSON: _json,
    CSV: _csv,
    JSON_LINES: _json_lines,
    NDJSON: _json_lines,
    NPY: _npy,
}
