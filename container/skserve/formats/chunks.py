"""Bodies cut into chunks of whole records, and answers put together from those of chunks.

A chunk is a body of its own, so it is decoded and encoded by the same functions as a small one.
Both are tables: a format that is in neither is read and written whole.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from skserve.config import MIB
from skserve.errors import BadRequest, ModelFault, TooLarge
from skserve.formats.charsets import codec_of
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NDJSON, NPY, MediaType
from skserve.formats.npy import npy_head, npy_header
from skserve.formats.spool import Spool

T = TypeVar("T")

# Bytes of a body that are worked on at once: enough rows to make a call of the model worth it, and
# few enough for what they become to stay in the processor's cache.
CHUNK = 1 * MIB

Read = Callable[[int], bytes]  # bytes at most -> so many, fewer only at the end of the body

# What to read, and the bytes that may be held of one record -> bodies of their own.
Chunker = Callable[[Read, int], Iterator[bytes]]


# ------------------------------------------------------------------------------------- cutting


def transcoded(read: Read, kind: MediaType) -> Read:
    """Read text as UTF-8, whatever its charset; other bytes as they are."""
    codec = codec_of(kind.parameters.get("charset", "utf-8"))
    if codec.name == "utf-8" or kind.name not in RECORDS:
        return read
    decoder = codec.incrementaldecoder()
    held, ended = b"", False

    def read_text(size: int) -> bytes:
        nonlocal held, ended
        while len(held) < size and not ended:
            piece = read(size)
            ended = len(piece) < size
            try:
                held += decoder.decode(piece, ended).encode()
            except UnicodeError:
                raise BadRequest(
                    f"The body is not {codec.name} text.", "Send UTF-8, or name the charset."
                ) from None
        text, held = held[:size], held[size:]
        return text

    return read_text


def _at_records(read: Read, most: int, end_of: Callable[[bytes], int]) -> Iterator[bytes]:
    """Cut where `end_of` says that the last whole record of a piece ends; 0 where none does."""
    held = b""
    while piece := read(max(CHUNK, len(held))):  # twice as much where there was no end
        held += piece
        end = end_of(held)
        if end:
            yield held[:end]
            held = held[end:]
        elif len(held) > most:
            raise TooLarge(
                f"One record has more than {most >> 20} MiB.",
                "Send lines, each with its line end, and close every double quote.",
            )
    if held:
        yield held


def _chunk_csv(read: Read, most: int) -> Iterator[bytes]:
    return _at_records(read, most, _end_of_csv)


def _end_of_csv(held: bytes) -> int:
    """Find where the last whole record ends: at a line end that is not inside quotes."""
    end = held.rfind(b"\n") + 1 or held.rfind(b"\r", 0, -1) + 1
    if b'"' not in held:
        return end
    lines = held[:end].splitlines(keepends=True)
    rest = iter(lines)
    whole = 0
    try:
        reader = csv.reader((line.decode("latin-1") for line in rest), strict=True)
        for _ in reader:
            whole = reader.line_num
    except csv.Error:
        if next(rest, None) is not None:
            return end  # not an open quote at the end, so no more of it would help
    return sum(map(len, lines[:whole]))


def _chunk_lines(read: Read, most: int) -> Iterator[bytes]:
    return _at_records(read, most, lambda held: held.rfind(b"\n") + 1)


_NPY_HEAD = 1 << 14  # bytes, more than numpy reads of one


def _chunk_npy(read: Read, most: int) -> Iterator[bytes]:
    """Cut an array by rows; each chunk gets a header of its own."""
    held = read(_NPY_HEAD + CHUNK)
    shape, fortran, dtype, start = npy_header(held)
    width = math.prod((dtype.itemsize, *shape[1:]))
    if (fortran and len(shape) > 1) or not 0 < width <= CHUNK or not 1 <= len(shape) <= 2:
        yield held + _rest(read, most - len(held))  # its rows do not lie one after the other
        return
    expected, held = width * shape[0], held[start:]
    seen, step = len(held), CHUNK // width * width
    while seen <= expected:
        if len(held) < step:
            more = read(step - len(held))
            held, seen = held + more, seen + len(more)
        if not held or seen > expected or (len(held) < step and len(held) % width):
            break
        yield npy_head(dtype, (min(len(held), step) // width, *shape[1:])) + held[:step]
        held = held[step:]
    if seen != expected:
        raise BadRequest(
            f"The array is said to be {shape} of {dtype.name}, {expected} bytes; "
            f"the body holds {'more' if seen > expected else seen}.",
            "Send an array of one or two dimensions, whole.",
        )


def _rest(read: Read, most: int) -> bytes:
    rest = read(most + 1)
    if len(rest) > most:
        raise TooLarge(
            "An array in the order of its columns is only read whole, and this one is too large.",
            "Save it in the order of its rows: np.save(file, np.ascontiguousarray(X)).",
        )
    return rest


# Parquet belongs here too: its row groups are chunks, once the file is on the disk.
CHUNKERS: dict[str, Chunker] = {
    CSV: _chunk_csv,
    JSON_LINES: _chunk_lines,
    NDJSON: _chunk_lines,
    NPY: _chunk_npy,
}


def _csv_records(body: bytes) -> list[bytes]:
    """Cut at records; from one on that is no CSV, at lines."""
    lines = body.splitlines(keepends=True)
    if b'"' not in body:
        return lines
    records, start = [], 0
    try:
        reader = csv.reader((line.decode("latin-1") for line in lines), strict=True)
        for _ in reader:
            records.append(b"".join(lines[start : reader.line_num]))
            start = reader.line_num
    except csv.Error:
        pass
    return records + lines[start:]


def _line_records(body: bytes) -> list[bytes]:
    return [line + b"\n" for line in body.removesuffix(b"\n").split(b"\n")]


# The formats of one record a line, where a record can be bad by itself.
RECORDS: dict[str, Callable[[bytes], list[bytes]]] = {
    CSV: _csv_records,
    JSON_LINES: _line_records,
    NDJSON: _line_records,
}


# ----------------------------------------------------------------------------- putting together


# What stands before, between and after the rows of an answer. An array has no such frame: its first
# bytes say how many rows it has.
FRAMES: dict[str, tuple[bytes, bytes, bytes]] = {
    JSON: (b"[", b",", b"]"),
    CSV: (b"", b"", b""),
    JSON_LINES: (b"", b"", b""),
    NDJSON: (b"", b"", b""),
}


def resumed(first: T, rest: Generator[T, None, None]) -> Generator[T, None, None]:
    """Put back what was taken from the front."""
    with closing(rest):
        yield first
        yield from rest


def joined(
    answers: Iterator[bytes], frame: tuple[bytes, bytes, bytes]
) -> Generator[bytes, None, None]:
    """Put answers together that each have the frame `start`, `between`, `end`."""
    start, between, end = frame
    before = start
    for answer in answers:
        yield before + answer[len(start) : len(answer) - len(end)]
        before = between
    yield end


class Arrays:
    """Arrays put together: their values wait in a spool until it is known how many there are."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._parts: list[tuple[tuple[int, ...], np.dtype[Any]]] = []

    def add(self, body: bytes) -> None:
        """Take one array, as a .npy file."""
        shape, _, dtype, start = npy_header(body)
        self._parts.append((shape, dtype))
        self._spool.write(body[start:])

    def joined(self) -> tuple[Iterator[bytes], int]:
        """Return the parts of one .npy file, and its length in bytes."""
        shapes = {shape[1:] for shape, _ in self._parts}
        if len(shapes) > 1:
            raise ModelFault(f"The model answers rows of different shapes: {sorted(shapes)}.")
        count = sum(shape[0] for shape, _ in self._parts)
        dtype = np.result_type(*(dtype for _, dtype in self._parts))
        shape = (count, *shapes.pop())
        head = npy_head(dtype, shape)
        length = len(head) + math.prod((dtype.itemsize, *shape))
        return self._values(head, dtype), length

    def _values(self, head: bytes, dtype: np.dtype[Any]) -> Iterator[bytes]:
        """Read the values back, of one dtype: strings are as wide as the widest of all parts."""
        yield head
        sizes = (math.prod((own.itemsize, *shape)) for shape, own in self._parts)
        for (_, own), block in zip(self._parts, self._spool.blocks(sizes), strict=True):
            yield block if own == dtype else np.frombuffer(block, own).astype(dtype).tobytes()
