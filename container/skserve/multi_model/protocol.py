"""How the processes of the multi-model mode talk to each other.

The process of a model runs its owner's code, so what it says is parsed as data, never unpickled.
A *channel* (SOCK_SEQPACKET) carries messages: JSON objects, one a packet, a descriptor beside one
where it is needed. A *line* (SOCK_STREAM) carries frames, a call and its reply in turn: the lengths
of both parts, a head of JSON, a body of bytes. A body that is made bit by bit follows its frame in
parts, each after its length; one of no length is the end.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

# Bytes in the largest message, which is a page of `GET /models`, and in the head of a frame.
MESSAGE_LIMIT = 128 << 10
HEAD_LIMIT = 1 << 20

_LENGTHS = struct.Struct("!IQ")  # of the head and of the body
_PART = struct.Struct("!Q")

Message = dict[str, Any]


def channel() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def line() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new line."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def tell(end: socket.socket, message: Message, *descriptors: int) -> None:
    """Send one message. Raises OSError; BlockingIOError where the other end is not read."""
    packet = json.dumps(message).encode()
    if descriptors:
        socket.send_fds(end, [packet], list(descriptors))
    else:
        end.send(packet)


def hear(end: socket.socket) -> tuple[Message, list[int]] | None:
    """Receive one message and its descriptors; None at the end.

    Raises OSError, and ValueError for what is no message.
    """
    packet, descriptors, _, _ = socket.recv_fds(end, MESSAGE_LIMIT, 1)
    if not packet:
        return None
    try:
        message = json.loads(packet)
        if not isinstance(message, dict):
            raise ValueError("a message is an object")
    except (ValueError, RecursionError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ValueError(str(error)) from error
    return message, descriptors


def send_frame(end: socket.socket, head: Message, body: bytes) -> None:
    """Send one frame. Raises OSError."""
    text = _written(head)
    first = _LENGTHS.pack(len(text), len(body)) + text
    sent = end.sendmsg([first, body])
    if sent < len(first):
        end.sendall(memoryview(first)[sent:])
        sent = len(first)
    if sent < len(first) + len(body):
        end.sendall(memoryview(body)[sent - len(first) :])


def receive_frame(end: socket.socket, limit: int = 1 << 40) -> tuple[Message, bytes] | None:
    """Receive one frame with a body of at most `limit` bytes; None at the end of the line.

    Raises EOFError where it ends within a frame, ValueError for what is no frame, and OSError.
    """
    lengths = end.recv(_LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < _LENGTHS.size:
        lengths += _exactly(end, _LENGTHS.size - len(lengths))
    head_length, body_length = _LENGTHS.unpack(lengths)
    if head_length > HEAD_LIMIT:
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


def _written(head: Message) -> bytes:
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
