"""Answers read back from each format into rows of plain cells, and compared."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from skserve.estimators.schema import Schema
from skserve.formats.catalogue import DECODERS
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NDJSON, NPY, NPZ, RECORDIO, MediaType
from skserve.formats.protobuf import fields
from skserve.selftest.client import Answer

Cells = list[list[Any]]  # a row of an answer is flat: parts one after another

# The last bits of a sum depend on where a row lies in memory, and a distance near zero on all bits.
RELATIVE, ABSOLUTE = 1e-6, 1e-7


def _rows(document: Any) -> Cells:
    if isinstance(document, dict) and set(document) == {"predictions"}:
        document = document["predictions"]
    if not isinstance(document, list):
        raise ValueError("the answer is no list of rows")
    return [list(_flat(row)) for row in document]


def _flat(value: Any) -> Iterator[Any]:
    inside = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for one in inside:
            yield from _flat(one)
    else:
        yield value


def _arrays(body: bytes) -> Cells:
    parts = np.load(io.BytesIO(body), allow_pickle=False)
    arrays = [parts[name] for name in parts.files] if hasattr(parts, "files") else [parts]
    flat = [part.reshape(len(part), -1).tolist() for part in arrays]
    return [[cell for part in row for cell in part] for row in zip(*flat, strict=True)]


def _lines(body: bytes) -> Cells:
    return _rows([json.loads(line) for line in body.splitlines()])


# Which numbers each kind of tensor holds, by its field in a Value.
_TENSORS = {2: "<f4", 3: "<f8", 7: "<i4"}


def _records(body: bytes) -> Cells:
    """Read recordio: the features of each record one after another, whatever they are called."""
    rows, at = [], 0
    while at < len(body):
        _, length = struct.unpack_from("<LL", body, at)
        row: list[Any] = []
        for field, _, entry in fields(memoryview(body)[at + 8 : at + 8 + length]):
            value = {one: part for one, _, part in fields(entry)} if field == 1 else {}
            for kind, _, tensor in fields(value.get(2, memoryview(b""))):
                parts = (part for one, _, part in fields(tensor) if one == 1)
                row += np.frombuffer(b"".join(parts), _TENSORS[kind]).tolist()
        rows.append(row)
        at += 8 + (length + 3) // 4 * 4
    return rows


READERS: dict[str, Callable[[bytes], Cells]] = {
    JSON: lambda body: _rows(json.loads(body)),
    CSV: lambda body: list(csv.reader(io.StringIO(body.decode()))),
    JSON_LINES: _lines,
    NDJSON: _lines,
    NPY: _arrays,
    NPZ: _arrays,
    RECORDIO: _records,
}


def read(media_type: str, body: bytes) -> Cells:
    """Read an answer. Raises ValueError where it is not rows in that format."""
    if media_type not in READERS and media_type not in DECODERS:
        raise ValueError(f"{media_type or 'an answer without a media type'} is not read here")
    try:
        if media_type in READERS:
            return READERS[media_type](body)
        found = DECODERS[media_type](body, MediaType.parse(media_type), Schema()).table.rows
    except Exception as error:  # each format fails in its own ways
        raise ValueError(f"the answer is not {media_type}: {error}".rstrip(".")) from error
    return [list(_flat(row)) for row in (found.tolist() if hasattr(found, "tolist") else found)]


def wrong(answer: Answer, expected: Cells) -> str:
    """Say what is wrong with an answer that should be `expected`; nothing where it is right."""
    if answer.status != 200:
        return f"answered {answer.said}"
    try:
        return difference(read(answer.media_type, answer.body), expected)
    except ValueError as error:
        return str(error)


def difference(seen: Cells, expected: Cells) -> str:
    """Say where two answers differ first; nothing where they are equal."""
    if len(seen) != len(expected):
        return f"{len(seen)} rows instead of {len(expected)}"
    for number, (one, other) in enumerate(zip(seen, expected, strict=True), 1):
        if len(one) != len(other):
            return f"row {number} has {len(one)} values instead of {len(other)}"
        for cell, wanted in zip(one, other, strict=True):
            if not _equal(_plain(cell), _plain(wanted)):
                return f"row {number} has {cell!r:.40} instead of {wanted!r:.40}"
    return ""


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        close = math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        return close or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


_SPELLED = {"true": 1.0, "false": 0.0, "": math.nan, "none": math.nan}


def _plain(cell: Any) -> float | str:
    """Return a cell as a number where it spells one; JSON has neither NaN nor infinity."""
    if cell is None:
        return math.nan
    text = str(cell)
    try:
        number = float(text)
    except ValueError:
        return _SPELLED.get(text.lower(), text)
    return number if math.isfinite(number) else math.nan
