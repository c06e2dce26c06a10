"""Tables in JSON and JSON Lines, read and written."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest, quote
from skserve.estimators.schema import Schema
from skserve.formats.answer import Answer
from skserve.formats.cells import quoted
from skserve.formats.json_text import BLOCK, dumps, parsed, rectangle
from skserve.formats.media_types import MediaType
from skserve.formats.table import Decoded, Table


def read_json(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    if schema.numeric and len(body) > BLOCK and (numbers := _matrix(body)) is not None:
        return Decoded(Table(numbers))
    document = parsed(body, kind)
    if isinstance(document, list):
        return Decoded(_rows(document, schema, strict=b"a" not in body))  # so NaN is not, either
    if schema.takes_texts and isinstance(document, str):
        return Decoded(_of_texts([document], schema))
    if not isinstance(document, dict):
        raise BadRequest(
            f"The body is {quote(json.dumps(document)[:40])}, expected a list or an object.",
            "Send rows, such as [[1, 2], [3, 4]].",
        )
    if set(document) - _ENVELOPE and _of_columns(document):
        raise BadRequest(
            "The body is an object of objects, as DataFrame.to_json() writes it: it has no rows.",
            'Write it with to_json(orient="records").',
        )
    if _is_record(document, schema):
        return Decoded(_rows([document], schema))
    return _envelope(document, schema)


def _of_columns(document: dict[str, Any]) -> bool:
    """Whether an object holds an object of the same labels for each of its keys."""
    labels = [tuple(one) if isinstance(one, dict) else () for one in document.values()]
    values = [value for one in document.values() if isinstance(one, dict) for value in one.values()]
    plain = not any(isinstance(value, list | dict) for value in values)
    return plain and len(set(labels)) == 1 and labels[0] != ()


def _is_record(document: dict[str, Any], schema: Schema) -> bool:
    """Whether an object is one row by itself: by its names, or else by the kind of its values."""
    if schema.records:
        return _ENVELOPE.isdisjoint(document)
    if any(isinstance(value, list | dict) for value in document.values()):
        return False
    if schema.names and set(schema.own(tuple(document))) <= set(schema.names):
        return True
    if not document or set(document) & _ENVELOPE:
        return False
    if schema.ignores_extra and not set(document).isdisjoint(schema.names or ()):
        return True
    return schema.open or (schema.text and len(document) == 1)


_BETWEEN = re.compile(rb"\][ \t\r\n]*,[ \t\r\n]*\[")


def _matrix(body: bytes) -> NDArray[np.float64] | None:
    """Parse a long [[1, 2], [3, 4]] block by block, without a list of each row.

    None where there is more than numbers, or the rows are not alike: then `_rows` reads it.
    """
    body = body.strip(b" \t\r\n")
    found = _BETWEEN.search(body)
    if not (found and body.startswith(b"[[") and body.endswith(b"]]")):
        return None
    between, width = found[0], body.count(b",", 0, found.start()) + 1
    start, stop = 2, len(body) - 2
    blocks = []
    while start < stop:
        end = stop if stop - start <= BLOCK else body.rfind(between, start, start + BLOCK)
        end = stop if end < 0 else end
        numbers = rectangle(body[start:end], between, width)
        if numbers is None:
            return None
        blocks.append(numbers)
        start = end + len(between)
    return np.concatenate(blocks)


_ROW_KEYS = ("instances", "inputs", "dataframe_records")
_SPLIT_KEYS = {"columns", "data", "index", "method"}
_ENVELOPE = {*_ROW_KEYS, *_SPLIT_KEYS, "dataframe_split"}


def _envelope(document: dict[str, Any], schema: Schema) -> Decoded:
    """Read `instances`, `inputs`, a DataFrame in records or split form, or `columns` + `data`."""
    method = document.get("method")
    if method is not None and not isinstance(method, str):
        raise BadRequest("method must be a string.", 'Such as "predict_proba".')
    keys = set(document) - {"method"}
    columns = {name: values for name, values in document.items() if name in keys}
    if _by_name(columns, schema):
        return Decoded(_columnar(columns, schema), method, enveloped=True)
    if schema.takes_texts and len(keys) == 1 and (texts := _texts(document[min(keys)])):
        return Decoded(_of_texts(texts, schema), method, enveloped=True)
    if len(keys) == 1 and (key := min(keys)) in (*_ROW_KEYS, "dataframe_split"):
        rows = document[key]
        if isinstance(rows, list) and key != "dataframe_split":
            return Decoded(_rows(rows, schema), method, enveloped=True)
        if isinstance(rows, dict) and key == "inputs":
            return Decoded(_columnar(rows, schema), method, enveloped=True)
        if isinstance(rows, dict) and key == "dataframe_split":
            return Decoded(_split(rows, schema), method, enveloped=True)
        raise BadRequest(f"{key!r} holds neither rows nor columns.", "Send a list of rows.")
    rows = document.get("data")
    if keys == {"data"} and isinstance(rows, list) and rows and isinstance(rows[0], dict):
        return Decoded(_rows(rows, schema), method, enveloped=True)
    if "data" in document and set(document) <= _SPLIT_KEYS:
        return Decoded(_split(document, schema), method, enveloped=True)
    if set(document) == {"schema", "data"}:
        raise BadRequest(
            'The body is a table with its schema, as to_json(orient="table") writes it.',
            'Write it with to_json(orient="records").',
        )
    raise BadRequest(
        f"The body is an object with the keys {quoted(sorted(document))}.",
        "Send a list of rows, or one of: instances, inputs, dataframe_records, dataframe_split, "
        "or columns and data; beside it only method.",
    )


def _by_name(columns: dict[str, Any], schema: Schema) -> bool:
    """Whether these are columns of a table, each a list under its name."""
    if set(map(type, columns.values())) != {list}:
        return False
    names, fitted = set(schema.own(tuple(columns))), set(schema.names or ())
    if names == fitted:
        return True
    cells = [cell for values in columns.values() for cell in values]
    plain = not any(isinstance(cell, list | dict) for cell in cells)
    return plain and _ENVELOPE.isdisjoint(names) and (schema.open or not names.isdisjoint(fitted))


def _texts(value: Any) -> list[str] | None:
    """Return the texts of a text model's body: one, or a list of them, under whatever name."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return value
    return None


def _of_texts(texts: list[str], schema: Schema) -> Table:
    return Table(texts if schema.text else [[text] for text in texts])


def _rows(rows: list[Any], schema: Schema, strict: bool = False) -> Table:
    """Make a table of a JSON list: of numbers or strings, of lists, or of records.

    In what is `strict` no number is NaN.
    """
    if rows and isinstance(rows[0], dict):
        return _records(rows, schema)
    flat = bool(rows) and not any(isinstance(row, list) for row in rows)
    if schema.text:
        return Table(rows)
    return _of_rows(rows, schema, flat=flat, strict=strict)


def _of_rows(
    rows: list[Any],
    schema: Schema,
    names: tuple[str, ...] | None = None,
    *,
    flat: bool = False,
    strict: bool = False,
) -> Table:
    """Make an array of rows of numbers and null; others stay lists, to be read cell by cell.

    So do rows of a mixed model: in an array, a whole number beside a fraction would become float64.
    """
    if not schema.numeric:
        return Table(rows, names, flat)
    try:
        values = np.asarray(rows)
        nulls = values.dtype == object and set(map(type, values.flat)) <= {int, float, type(None)}
        if nulls:
            values = values.astype(np.float64)
    except (ValueError, OverflowError):
        return Table(rows, names, flat)
    if values.dtype.kind in "iuf" and values.ndim == (1 if flat else 2):
        return Table(values, names, flat, complete=strict and not nulls)
    return Table(rows, names, flat)


def _records(records: list[Any], schema: Schema) -> Table:
    """Make a table of objects, one a row, matched by name."""
    if schema.records:
        return Table(records)
    names = tuple(records[0])
    if names == ("features",) and "features" not in (schema.names or names[1:]):
        lists = [one.get("features") if isinstance(one, dict) else one for one in records]
        return Table(lists)  # the record form of SageMaker's built-in algorithms
    if not (schema.takes_names(names) or (schema.text and len(names) == 1)):
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
    rows = [[record[name] for name in names] for record in records]
    return Table(rows, names if schema.takes_names(names) else None)


def _columnar(columns: dict[str, Any], schema: Schema) -> Table:
    """Make a table of `{name: values}`."""
    lengths = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise BadRequest("The columns are not lists of one length.")
    rows, names = [list(row) for row in zip(*columns.values(), strict=True)], tuple(columns)
    return Table(rows, None if schema.text and not schema.takes_names(names) else names)


def _split(frame: dict[str, Any], schema: Schema) -> Table:
    """Make a table of `columns` and `data`, as DataFrame.to_dict(orient="split") has them."""
    rows, names = frame.get("data"), frame.get("columns")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise BadRequest("'data' must be a list of rows.", 'Such as {"data": [[1, 2]]}.')
    if names is not None and not isinstance(names, list):
        raise BadRequest("'columns' must be a list of names.")
    if names is not None:
        names = [str(name) for name in names]
    unnamed = names is None or names == [str(at) for at in range(len(names))]  # as pandas says so
    if names is None or unnamed or (schema.text and not schema.takes_names(names)):
        return _of_rows(rows, schema)
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise BadRequest(f"Row {number} has {len(row)} values for {len(names)} columns.")
    return _of_rows(rows, schema, tuple(names))


def read_json_lines(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read one value a line: a list, an object, or for one column a bare value."""
    lines = body.removesuffix(b"\n").split(b"\n") if body else []
    rows: list[Any] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            rows.append(parsed(line, kind, f"Line {number}"))
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
    return Decoded(_of_rows(rows, schema))


def write_json(answer: Answer, enveloped: bool) -> bytes:
    rows = answer.rows()
    return dumps({"predictions": rows} if enveloped else rows)


def write_json_lines(answer: Answer, enveloped: bool) -> bytes:
    rows = answer.rows()
    if not isinstance(rows, np.ndarray) or len(rows) == 0:
        return b"".join(dumps(row) + b"\n" for row in rows)
    depth = rows.ndim - 1
    between = b"]" * depth + b"," + b"[" * depth
    return dumps(rows)[1:-1].replace(between, between.replace(b",", b"\n")) + b"\n"
