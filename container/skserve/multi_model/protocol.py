"""How the processes of the multi-model mode talk to each other.

The process of a model runs its owner's code, so what it says is parsed as data, never unpickled.
A *channel* (SOCK_SEQPACKET) carries messages: JSON objects, one a packet, a descriptor beside one
where it is needed. A *connection* (SOCK_STREAM) carries frames, a call and its reply in turn; see
`formats/message_framing.py`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

# Bytes in the largest message, which is a page of `GET /models`.
MESSAGE_LIMIT = 128 << 10

Message = dict[str, Any]


def channel() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def connection() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new connection."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def give_up_after(end: socket.socket, seconds: float) -> None:
    """Limit the time of each step on a socket; 0 is without limit."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


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


@dataclass(eq=False)
class Peer:
    """A worker's channel. It asks one thing at a time and waits for the answer."""

    channel: socket.socket

    def answer(self, message: Message, *descriptors: int) -> None:
        with suppress(OSError):  # the worker is gone, or does not read: its loss
            tell(self.channel, message, *descriptors)

    def refuse(self, status: int, message: str) -> None:
        self.answer({"status": status, "message": message})
