"""Protobuf messages: their fields and varints, read and written. All faults are ValueError."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

VARINT, _EIGHT, BYTES, _FOUR = 0, 1, 2, 5  # protobuf's wire types


_MOST_FIELDS = 100_000  # in one message: with values one by one, as many columns


def varints(part: memoryview) -> NDArray[np.uint64]:
    """Read packed varints: seven bits a byte, the lowest first, the last byte below 128."""
    octets = np.frombuffer(part, np.uint8)
    if not len(octets):
        return np.empty(0, np.uint64)
    if octets[-1] > 127:
        raise ValueError("a number in it is cut")
    ends = np.flatnonzero(octets < 128)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise ValueError("a number in it is too long")
    shifts = 7 * (np.arange(len(octets)) - np.repeat(starts, lengths)).astype(np.uint64)
    return np.add.reduceat((octets & 127).astype(np.uint64) << shifts, starts)


def fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Cut a protobuf message: the number, wire type and bytes of each field. Raises ValueError."""
    at = number = 0
    while at < len(message):
        number += 1
        if number > _MOST_FIELDS:
            raise ValueError("it is made of too many fields")
        key, after = read_varint(message, at)
        wire = key & 7
        if wire == VARINT:
            end = read_varint(message, after)[1]
        elif wire == BYTES:
            length, after = read_varint(message, after)
            end = after + length
        elif wire in (_FOUR, _EIGHT):
            end = after + (4 if wire == _FOUR else 8)
        else:
            raise ValueError("it is not protobuf")
        if end > len(message):
            raise ValueError("a field in it is longer than the record")
        yield key >> 3, wire, message[after:end]
        at = end


def read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read one varint; return it and where the next byte is. Raises ValueError."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a number in it is cut")
        octet = message[at]
        at += 1
        value |= (octet & 127) << shift
        if octet < 128:
            return value, at
    raise ValueError("a number in it is too long")


def write_field(number: int, contents: bytes) -> bytes:
    return write_varint(number << 3 | BYTES) + write_varint(len(contents)) + contents


def write_varint(value: int) -> bytes:
    spelled = bytearray()
    while value > 127:
        spelled.append(value & 127 | 128)
        value >>= 7
    spelled.append(value)
    return bytes(spelled)
