"""How much memory a body will take once it is a table, and its answer, before either is made.

Formats that say how many values they hold are believed as far as their bytes could hold them; in
text the separators are counted; of the others it is estimated.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable

from skserve.estimators.schema import Schema
from skserve.formats import arrow
from skserve.formats.limits import expanded_limit
from skserve.formats.media_types import (
    CSV,
    JSON,
    JSON_LINES,
    LIBSVM,
    NDJSON,
    NPY,
    NPZ,
    X_LIBSVM,
)
from skserve.formats.npy import npy_header

# Bytes of a number in a table, of a cell that is an object of Python's, and of a row's answer: the
# number that is predicted, the object made of it, and its text.
NUMBER, OBJECT, ANSWER = 8, 72, 48

_HEADER = 4096  # bytes that the header of an array takes at the most

# Rows and cells.
Shape = tuple[int, int]


def expected_size(body: bytes, media_type: str, schema: Schema) -> int:
    """Return the bytes that the table of a body takes, with an answer of a number for each row.

    A body that breaks off or lies counts as what it could be at the most, or as nothing: reading it
    says what is wrong.
    """
    measure = _arrow if media_type in arrow.FORMS else _SHAPES.get(media_type, _binary)
    try:
        rows, cells = measure(body)
    except Exception:  # a broken zip fails as a dozen types
        return 0
    return cells * (NUMBER if schema.numeric else OBJECT) + rows * ANSWER


def _lines(body: bytes) -> Shape:
    rows = body.count(b"\n") + 1
    return rows, rows + body.count(b",")


def _json(body: bytes) -> Shape:
    """Count what stands between commas, or alone; a row begins with a bracket, if not a number."""
    begun = body.count(b"[") + body.count(b"{")
    cells = body.count(b",") + max(1, body.count(b"\n"))
    return (begun if begun > 2 else cells), cells


def _pairs(body: bytes) -> Shape:
    """Count the pairs of a sparse format: a value and its place each."""
    return body.count(b"\n") + 1, 2 * body.count(b":")


def _binary(body: bytes) -> Shape:
    """Take every four bytes for a number."""
    return len(body) // 16, len(body) // 4


def _npy(body: bytes) -> Shape:
    shape, _, dtype, start = npy_header(body)
    return _held(shape, (len(body) - start) // max(1, dtype.itemsize))


def _held(shape: tuple[int, ...], most: int) -> Shape:
    """Return the rows and cells of an array that can hold so many values at the most."""
    cells = min(math.prod(shape), most)
    width = math.prod(shape[1:]) or 1
    return cells // width, cells


def _npz(body: bytes) -> Shape:
    """Add up the arrays, of which only the headers are unpacked."""
    rows = cells = 0
    limit = expanded_limit(len(body))
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as part:
                shape, _, dtype, _ = npy_header(part.read(_HEADER))
            most = min(entry.file_size, limit) // max(1, dtype.itemsize)
            more, held = _held(shape, most)
            rows, cells = max(rows, more), cells + held
    return rows, cells


# The first bytes of what Arrow compresses its buffers with: LZ4, Zstandard.
_PACKED = (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")


def _arrow(body: bytes) -> Shape:
    """Ask a Parquet file's footer; Arrow's own formats are mostly numbers as they lie in memory."""
    limit = expanded_limit(len(body)) // NUMBER
    if body.startswith(b"PAR1"):
        rows, columns = arrow.parquet_shape(body)
        return _held((rows, columns), limit)
    if any(magic in body for magic in _PACKED):
        return limit // 4, limit
    return _binary(body)


_SHAPES: dict[str, Callable[[bytes], Shape]] = {
    CSV: _lines,
    JSON: _json,
    JSON_LINES: _json,
    NDJSON: _json,
    LIBSVM: _pairs,
    X_LIBSVM: _pairs,
    NPY: _npy,
    NPZ: _npz,
}
