"""SageMaker's own binary format: protobuf records of features, one a row, framed by RecordIO.

A frame is a magic number, the length of the record, the record, and zeros up to a multiple of four
bytes. The record is this message, of which everything else is skipped, the labels too:

    message Record { map<string, Value> features = 1; map<string, Value> label = 2; ... }
    message Value { Float32Tensor float32_tensor = 2; Float64Tensor float64_tensor = 3;
                    Int32Tensor int32_tensor = 7; }
    message Float32Tensor { repeated float values = 1; repeated uint64 keys = 2;
                            repeated uint64 shape = 3; }

With keys, or with fewer values than its shape says, a record is sparse. Both ways of writing what
is repeated are read: packed, as it is commonly written, and one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest, NotAcceptable
from skserve.estimators.schema import Schema
from skserve.formats import sparse
from skserve.formats.cells import quoted
from skserve.formats.media_types import MediaType
from skserve.formats.protobuf import BYTES, VARINT, fields, varints, write_field, write_varint
from skserve.formats.table import Decoded, Table

_MAGIC = 0xCED7230A
_TENSORS: dict[int, np.dtype[Any]] = {
    2: np.dtype("<f4"),
    3: np.dtype("<f8"),
    7: np.dtype("<i4"),
}  # fields of Value
_HINT = "Send records as sagemaker.amazon.common writes them."

Tensor = tuple[NDArray[Any], NDArray[np.uint64], tuple[int, ...]]  # values, keys, shape


def read_recordio(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read dense rows, or sparse ones where a record has keys."""
    alike = _alike(body)
    if alike is not None:
        return Decoded(Table(alike))
    tensors: list[Tensor] = []
    for number, record in enumerate(_records(body), 1):
        try:
            tensors.append(_features(record))
        except (ValueError, struct.error, IndexError) as error:
            raise BadRequest(f"Record {number} is not read here: {error}.", _HINT) from None
    widths = {_width(tensor) for tensor in tensors}
    if not any(_is_sparse(tensor) for tensor in tensors):
        if len(widths) == 1:
            return Decoded(Table(np.array([values for values, _, _ in tensors], np.float64)))
        return Decoded(Table([values.tolist() for values, _, _ in tensors]))  # conform says which
    if len(widths) > 1:
        raise BadRequest(f"The records say different widths: {quoted(sorted(map(str, widths)))}.")
    keys = [keys if len(keys) else np.arange(len(values)) for values, keys, _ in tensors]
    starts = np.cumsum([0, *(len(values) for values, _, _ in tensors)])
    values = np.concatenate([values.astype(np.float64) for values, _, _ in tensors])
    return Decoded(Table(sparse.rows_of(values, _joined(keys), starts, widths.pop())))


def _alike(body: bytes) -> NDArray[np.float64] | None:
    """Read dense records all at once that differ in their values, labels and the like alone.

    That is how tables are written, and a hundred times as fast. None where it is anything else.
    """
    try:
        first = next(_records(body))
        values, _, _ = tensor = _features(first)
    except (BadRequest, StopIteration, ValueError, struct.error, IndexError):
        return None
    size = 8 + (len(first) + 3) // 4 * 4
    every = np.frombuffer(body, np.uint8)
    if not len(values) or _is_sparse(tensor) or len(body) % size:
        return None
    if not np.may_share_memory(values, every):
        return None  # they are not in one piece
    records = every.reshape(-1, size)
    differing = np.zeros(size, bool)
    skipped = [part for field, wire, part in fields(first) if field != 1 and wire == BYTES]
    for piece in [values, *(np.frombuffer(part, np.uint8) for part in skipped if len(part))]:
        start = piece.ctypes.data - every.ctypes.data
        differing[start : start + piece.nbytes] = True
    if (records[:, ~differing] != records[0, ~differing]).any():
        return None
    start = values.ctypes.data - every.ctypes.data
    own = np.ascontiguousarray(records[:, start : start + values.nbytes])
    return own.view(values.dtype).astype(np.float64)


def _joined(keys: list[NDArray[Any]]) -> NDArray[np.int64]:
    if any(len(one) and int(one.max()) >= 2**63 for one in keys):
        raise BadRequest("A record has a key beyond every table.", _HINT)
    return np.concatenate([one.astype(np.int64) for one in keys])


def _width(tensor: Tensor) -> int:
    values, _, shape = tensor
    return shape[-1] if shape else len(values)


def _is_sparse(tensor: Tensor) -> bool:
    values, keys, shape = tensor
    return len(keys) > 0 or (len(shape) > 0 and shape[-1] != len(values))


def _records(body: bytes) -> Iterator[memoryview]:
    """Cut the frames, of which none is believed to be longer than the body."""
    view, at = memoryview(body), 0
    number = 0
    while at < len(body):
        number += 1
        if len(body) - at < 8:
            raise BadRequest(f"The body ends within the head of record {number}.", "Send it whole.")
        magic, length = struct.unpack_from("<LL", body, at)
        if magic != _MAGIC:
            raise BadRequest(f"Record {number} does not begin as RecordIO does.", _HINT)
        if length >> 29:
            raise BadRequest(f"Record {number} is one part of a larger one.", _HINT)
        at += 8
        if length > len(body) - at:
            raise BadRequest(
                f"Record {number} is said to have {length:,} bytes; {len(body) - at:,} are there.",
                "Send it whole.",
            )
        yield view[at : at + length]
        at += (length + 3) // 4 * 4


def _features(record: memoryview) -> Tensor:
    """Return the one tensor of features. Raises ValueError."""
    found: dict[str, memoryview] = {}
    for field, wire, value in fields(record):
        if (field, wire) != (1, BYTES):
            continue
        entry = {inner: part for inner, kind, part in fields(value) if kind == BYTES}
        found[str(entry.get(1, b""), "utf-8")] = entry.get(2, memoryview(b""))
    if len(found) > 1 and "values" not in found:
        raise ValueError(f"it has the features {quoted(sorted(found))}, expected 'values'")
    if not found:
        raise ValueError("it has no features")
    value = found["values"] if "values" in found else next(iter(found.values()))
    for field, wire, tensor in fields(value):
        if field in _TENSORS and wire == BYTES:
            return _tensor(tensor, _TENSORS[field])
    raise ValueError("its features are not numbers")


def _tensor(tensor: memoryview, dtype: np.dtype[Any]) -> Tensor:
    """Read values, keys and shape. Raises ValueError."""
    integers = dtype.kind == "i"
    values: list[NDArray[Any]] = []
    keys: list[NDArray[np.uint64]] = []
    shape: list[NDArray[np.uint64]] = []
    for field, wire, part in fields(tensor):
        if field == 1 and not integers:
            packed = wire == BYTES and len(part) % dtype.itemsize == 0
            if not packed and (wire == VARINT or len(part) != dtype.itemsize):
                raise ValueError("its values are cut")
            values.append(np.frombuffer(part, dtype))
        elif field in (1, 2, 3) and wire in (BYTES, VARINT):
            (values, keys, shape)[field - 1].append(varints(part))
    numbers = values[0] if len(values) == 1 else np.concatenate([np.empty(0, dtype), *values])
    if integers:  # a negative one is written as 64 bits
        numbers = numbers.astype(np.uint64).astype(np.int64).astype(np.int32)
    places = np.concatenate(keys) if keys else np.empty(0, np.uint64)
    sizes = tuple(np.concatenate(shape).tolist()) if shape else ()
    if len(places) and len(places) != len(numbers):
        raise ValueError(f"it has {len(places)} keys for {len(numbers)} values")
    if len(places) and not sizes:
        raise ValueError("it has keys, but no shape")
    if len(sizes) > 2 or any(size != 1 for size in sizes[:-1]):
        raise ValueError(f"its shape is {sizes}, expected that of one row")
    if not len(places) and sizes and len(numbers) not in (0, sizes[-1]):
        raise ValueError(f"its shape is {sizes}, and it has {len(numbers)} values")
    return numbers, places, sizes


# ------------------------------------------------------------------------------------------- out


def write_recordio(parts: dict[str, NDArray[Any]]) -> bytes:
    """Write one record a row, with each part as a feature of that name.

    As features, not as labels, so that the next container of a pipeline reads them.
    """
    columns = [_written(name, part) for name, part in parts.items()]
    return b"".join(_framed(b"".join(row)) for row in zip(*columns, strict=True))


def _written(name: str, part: NDArray[Any]) -> Iterator[bytes]:
    """Write the entry of one feature for each row."""
    if part.dtype.kind not in "biuf":
        raise NotAcceptable("Recordio holds numbers, and the answer is text.", "Ask for JSON.")
    rows = part.reshape(len(part), -1)
    # Whole numbers as doubles too: int32 would not hold every label.
    field = 2 if rows.dtype.kind == "f" and rows.dtype.itemsize == 4 else 3
    key = write_field(1, name.encode())
    shape = write_field(3, b"".join(map(write_varint, part.shape[1:] or (1,))))
    for row in rows.astype(_TENSORS[field]):
        tensor = write_field(1, row.tobytes()) + shape
        yield write_field(1, key + write_field(2, write_field(field, tensor)))


def _framed(record: bytes) -> bytes:
    return struct.pack("<LL", _MAGIC, len(record)) + record + b"\0" * (-len(record) % 4)
