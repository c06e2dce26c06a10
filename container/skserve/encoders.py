"""The formats that are written: one function each, from an `Answer` to bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from skserve.answer import Answer
from skserve.media import CSV, JSON, JSON_LINES, NDJSON, NPY


def dumps(value: Any) -> bytes:
    """Write JSON: arrays as lists, NaN and infinity as null."""
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(value, default=_plain, option=options)


def _plain(value: Any) -> Any:
    """Give orjson something it can write for what it cannot."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _write_json(answer: Answer, enveloped: bool) -> bytes:
    rows = answer.rows()
    return dumps({"predictions": rows} if enveloped else rows)


def _write_json_lines(answer: Answer, enveloped: bool) -> bytes:
    return b"".join(dumps(row) + b"\n" for row in answer.rows())


def _write_csv(answer: Answer, enveloped: bool) -> bytes:
    """Write one line a row; numbers as Python spells them, which reads back equal."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in answer.cells())
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return "nan" if value is None else repr(value) if isinstance(value, float) else value


def _write_npy(answer: Answer, enveloped: bool) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, answer.array(), allow_pickle=False)
    return stream.getvalue()


ENCODERS: dict[str, Callable[[Answer, bool], bytes]] = {
    JSON: _write_json,
    CSV: _write_csv,
    JSON_LINES: _write_json_lines,
    NDJSON: _write_json_lines,
    NPY: _write_npy,
}
