"""The formats that are read and written: a function each, in two tables by media type.

A decoder makes a `Table` of bytes. It knows the schema only to tell a header from data and a text
from a row. Whatever it cannot read is a `BadRequest` that says where. Nothing here unpickles, and
nothing believes a size that a body claims before the bytes are there. An encoder makes bytes of an
`Answer`, in an envelope or without.
"""

from __future__ import annotations

from collections.abc import Callable

from skserve.estimators.schema import Schema
from skserve.formats import arrow
from skserve.formats.answer import Answer
from skserve.formats.csv_tables import read_csv, write_csv
from skserve.formats.json_tables import read_json, read_json_lines, write_json, write_json_lines
from skserve.formats.libsvm import read_libsvm
from skserve.formats.media_types import (
    CSV,
    JSON,
    JSON_LINES,
    LIBSVM,
    NDJSON,
    NPY,
    NPZ,
    RECORDIO,
    X_LIBSVM,
    MediaType,
)
from skserve.formats.npy import read_npy, read_npz, write_npy, write_npz
from skserve.formats.recordio import read_recordio, write_recordio
from skserve.formats.table import Decoded

Decoder = Callable[[bytes, MediaType, Schema], Decoded]


DECODERS: dict[str, Decoder] = {
    JSON: read_json,
    CSV: read_csv,
    JSON_LINES: read_json_lines,
    NDJSON: read_json_lines,
    NPY: read_npy,
    NPZ: read_npz,
    LIBSVM: read_libsvm,
    X_LIBSVM: read_libsvm,
    RECORDIO: read_recordio,
    **(dict.fromkeys(arrow.FORMS, arrow.read_columns) if arrow.INSTALLED else {}),
}


def _write_recordio(answer: Answer, enveloped: bool) -> bytes:
    return write_recordio(answer.arrays())


def _write_columns(media_type: str) -> Callable[[Answer, bool], bytes]:
    return lambda answer, enveloped: arrow.write_columns(answer, media_type)


ENCODERS: dict[str, Callable[[Answer, bool], bytes]] = {
    JSON: write_json,
    CSV: write_csv,
    JSON_LINES: write_json_lines,
    NDJSON: write_json_lines,
    NPY: write_npy,
    NPZ: write_npz,
    RECORDIO: _write_recordio,
    **({form: _write_columns(form) for form in arrow.FORMS} if arrow.INSTALLED else {}),
}
