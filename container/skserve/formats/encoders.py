"""The formats that are written: one function each, from an `Answer` to bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from skserve.errors import ModelFault
from skserve.formats import arrow
from skserve.formats.answer import Answer
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NDJSON, NPY, NPZ, RECORDIO
from skserve.formats.recordio import write_recordio


def dumps(value: Any) -> bytes:
    """Write JSON: arrays as lists, NaN and infinity as null.

    Raises ModelFault, because what is written here was made by a model or a script.
    """
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(value, default=_plain, option=options)
    except TypeError as error:
        why = error.__cause__ or error
    try:
        # Python's own writes a little more: integers beyond 64 bits, halves of surrogate pairs.
        return json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        raise ModelFault(
            f"The answer cannot be written as JSON: {why}.",
            "Return lists, dicts with text as keys, arrays, numbers and text.",
        ) from why


def dumps_anyway(value: Any) -> bytes:
    """Write JSON of whatever it is; what JSON has no form for is written as text."""
    try:
        return dumps(value)
    except ModelFault:
        return json.dumps(value, default=str, skipkeys=True).encode()


def _plain(value: Any) -> Any:
    """Give orjson something it can write for what it cannot."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise TypeError(f"it holds a {type(value).__name__}")


def _write_json(answer: Answer, enveloped: bool) -> bytes:
    rows = answer.rows()
    return dumps({"predictions": rows} if enveloped else rows)


def _write_json_lines(answer: Answer, enveloped: bool) -> bytes:
    rows = answer.rows()
    if not isinstance(rows, np.ndarray) or len(rows) == 0:
        return b"".join(dumps(row) + b"\n" for row in rows)
    depth = rows.ndim - 1
    between = b"]" * depth + b"," + b"[" * depth
    return dumps(rows)[1:-1].replace(between, between.replace(b",", b"\n")) + b"\n"


def _write_csv(answer: Answer, enveloped: bool) -> bytes:
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


def encoded(text: str) -> bytes:
    """Write text as UTF-8. Raises ModelFault for half of a surrogate pair, which no text holds."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ModelFault(f"The answer is a str that is no text: {error.reason}.") from error


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return float.__repr__(value)  # numpy's own float64 would say its name
    if isinstance(value, dict | list | tuple | set | np.ndarray):
        raise ModelFault(
            f"The answer cannot be written as CSV: a cell holds a {type(value).__name__}.",
            "Ask for JSON.",
        )
    return "nan" if value is None else value


def _write_npy(answer: Answer, enveloped: bool) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, answer.array(), allow_pickle=False)
    return stream.getvalue()


def _write_npz(answer: Answer, enveloped: bool) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **answer.arrays())  # type: ignore[arg-type]  # the names are not its options
    return stream.getvalue()


def _write_recordio(answer: Answer, enveloped: bool) -> bytes:
    return write_recordio(answer.arrays())


def _write_columns(media_type: str) -> Callable[[Answer, bool], bytes]:
    return lambda answer, enveloped: arrow.write_columns(answer, media_type)


ENCODERS: dict[str, Callable[[Answer, bool], bytes]] = {
    JSON: _write_json,
    CSV: _write_csv,
    JSON_LINES: _write_json_lines,
    NDJSON: _write_json_lines,
    NPY: _write_npy,
    NPZ: _write_npz,
    RECORDIO: _write_recordio,
    **({form: _write_columns(form) for form in arrow.FORMS} if arrow.INSTALLED else {}),
}
