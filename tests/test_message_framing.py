"""Frames between processes: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from skserve.formats.message_framing import receive_frame, receive_parts, send_frame, send_parts


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize("body", [b"", b"short", bytes(5 << 20)])
def test_a_frame_arrives_whole_however_large(ends, body):
    head = {"a": [1, "\u00e4"], "half": "\ud800"}
    sender = threading.Thread(target=send_frame, args=(ends[0], head, body))
    sender.start()

    assert receive_frame(ends[1]) == (head, body)
    sender.join()


def test_the_end_of_the_stream_is_none_and_within_a_frame_an_error(ends):
    ends[0].sendall(struct.pack("!IQ", 2, 10) + b"{}")
    ends[0].close()

    with pytest.raises(EOFError):
        receive_frame(ends[1])
    assert receive_frame(ends[1]) is None


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!IQ", 1 << 30, 0),
        struct.pack("!IQ", 2, 1 << 20) + b"{}",
        struct.pack("!IQ", 2, 0) + b"[]",
        struct.pack("!IQ", 2, 0) + b"{[",
    ],
    ids=["a head too long", "a body too long", "a head that is a list", "a head that is not JSON"],
)
def test_what_is_not_a_frame_is_a_value_error(ends, sent):
    ends[0].sendall(sent)

    with pytest.raises(ValueError, match=r"."):
        receive_frame(ends[1], limit=1 << 10)


def test_parts_arrive_in_order_and_a_part_too_long_breaks_off(ends):
    send_parts(ends[0], [b"a", b"", b"bc"])
    assert list(receive_parts(ends[1], 10)) == [b"a", b"bc"]

    ends[0].sendall(struct.pack("!Q", 11))
    with pytest.raises(EOFError):
        list(receive_parts(ends[1], 10))
