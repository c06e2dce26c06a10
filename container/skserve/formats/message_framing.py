"""Frames between processes: a head of JSON and a body of bytes, in turn, over a stream socket.

A frame is the lengths of both, the head, the body. A body that is made bit by bit follows its frame
in parts, each after its length; one of no length is the end.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

# Bytes in the head of a frame.
HEAD_LIMIT = 1 << 20

_LENGTHS = struct.Struct("!IQ")  # of the head and of the body
_PART = struct.Struct("!Q")

Head = dict[str, Any]


def send_frame(end: socket.socket, head: Head, body: bytes) -> None:
    """Send one frame. Raises OSError."""
    text = _written(head)
    first = _LENGTHS.pack(len(text), len(body)) + text
    sent = end.sendmsg([first, body])
    if sent < len(first):
        end.sendall(memoryview(first)[sent:])
        sent = len(first)
    if sent < len(first) + len(body):
        end.sendall(memoryview(body)[sent - len(first) :])


def receive_frame(
    end: socket.socket, limit: int = 1 << 40, head_limit: int = HEAD_LIMIT
) -> tuple[Head, bytes] | None:
    """Receive one frame with a body of at most `limit` bytes; None at the end of the stream.

    Raises EOFError where it ends within a frame, ValueError for what is no frame, and OSError.
    """
    lengths = end.recv(_LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < _LENGTHS.size:
        lengths += _exactly(end, _LENGTHS.size - len(lengths))
    head_length, body_length = _LENGTHS.unpack(lengths)
    if head_length > head_limit:
        raise ValueError(f"a head of {head_length:,} bytes")
    if body_length > limit:
        raise ValueError(f"{body_length:,} bytes, of which at most {limit:,} are taken")
    # No byte more than that: what follows may be the first part of a body.
    data = _exactly(end, head_length + body_length)
    head = _read(memoryview(data)[:head_length])
    if not isinstance(head, dict):
        raise ValueError("a head is an object")
    return head, bytes(memoryview(data)[head_length:])


def send_parts(end: socket.socket, parts: Iterable[bytes]) -> None:
    """Send the parts of a body. What making them raises goes up, and the end is never sent."""
    for part in parts:
        if part:
            end.sendall(_PART.pack(len(part)) + part)
    end.sendall(_PART.pack(0))


def receive_parts(end: socket.socket, limit: int) -> Iterator[bytes]:
    """Receive parts of at most `limit` bytes. Raises EOFError where they break off, and OSError."""
    while length := _PART.unpack(_exactly(end, _PART.size))[0]:
        if length > limit:
            raise EOFError
        yield bytes(_exactly(end, length))


def _written(head: Head) -> bytes:
    try:
        return orjson.dumps(head)
    except TypeError:  # half a character, sent by a caller and quoted by an error
        return json.dumps(head).encode()


def _read(text: memoryview) -> Any:
    """Return what a head says. Raises ValueError."""
    try:
        return orjson.loads(text)
    except ValueError:
        try:
            return json.loads(bytes(text))
        except RecursionError as error:
            raise ValueError("a head too deep") from error


def _exactly(end: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        more = end.recv_into(view[got:])
        if not more:
            raise EOFError
        got += more
    return data
