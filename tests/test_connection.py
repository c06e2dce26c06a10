"""Bytes taken apart into requests: what there is to do, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skserve.serving.connection import BODY_LIMIT, Connection, Next
from skserve.serving.framing import BrokenBody, ChunkTooLarge
from skserve.serving.head import Refusal, Request

LIMIT = 1 << 20
GET = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def told(pieces: list[bytes]) -> list[object]:
    """Return what a connection makes of bytes in pieces: requests with their bodies, or why not.

    A body that has begun is read as a thread would, until it is whole, broken, or cut off.
    """
    connection, found = Connection(LIMIT), []
    coming = iter(pieces)
    verdict: Next | Refusal = Next.WAIT
    while True:
        while verdict is Next.WAIT:
            if (said := next(coming, None)) is None:
                return [*found, "more"] if connection.begun else found
            verdict = connection.feed(said)
        if isinstance(verdict, Refusal):
            return [*found, verdict.status]
        request = connection.request
        assert isinstance(request, Request)
        body = request.body
        if verdict is Next.BEGUN:
            said = b""
            while True:
                try:
                    connection.receive(said)
                except (BrokenBody, ChunkTooLarge) as error:
                    return [*found, type(error).__name__]
                finally:
                    body += connection.take()
                if connection.complete:
                    break
                if (said := next(coming, None)) is None:
                    return [*found, "cut off"]
        found.append((request.line.method, request.line.target, body))
        if not request.keep_alive:
            return [*found, "close"]
        verdict = connection.answered()


PING, CALL = ("GET", "/ping", b""), ("POST", "/invocations", b"abc")
CLOSING = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
UPGRADE = POST.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 1)
EXPECT = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
LONG = b"x" * (BODY_LIMIT + 1)
LARGE = POST.replace(b"3\r\n\r\nabc", b"%d\r\n\r\n%b" % (len(LONG), LONG))

STREAMS = {
    "nothing": (b"", []),
    "one": (GET, [PING]),
    "empty lines before": (b"\r\n\r\n" + GET, [PING]),
    "two": (GET + POST, [PING, CALL]),
    "three, then half of one": (POST + GET + POST + GET[:-1], [CALL, PING, CALL, "more"]),
    "half of a body": (POST[:-1], ["more"]),
    "the last one": (CLOSING + GET, [PING, "close"]),
    "old": (b"GET /ping HTTP/1.0\r\n\r\n" + GET, [PING, "close"]),
    "old and kept": (b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET, [PING, PING]),
    "no upgrade": (UPGRADE + GET, [CALL, PING]),
    "asks to go on": (EXPECT + GET, [CALL, PING]),
    "chunks": (CHUNKED + b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nA: b\r\n\r\n" + GET, [CALL, PING]),
    "no chunk": (CHUNKED + b"0\r\n\r\n" + GET, [("POST", "/invocations", b""), PING]),
    "half of a chunk": (CHUNKED + b"3\r\nab", ["cut off"]),
    "chunks that are none": (CHUNKED + b"1\r\nab\r\n", ["BrokenBody"]),
    "a chunk without a size": (CHUNKED + b"zz\r\n", ["BrokenBody"]),
    "a chunk that ends with half a break": (CHUNKED + b"1\na", ["BrokenBody"]),
    "a chunk of more than may be": (CHUNKED + b"FFFFFFFFFF\r\n", ["ChunkTooLarge"]),
    "a chunk of 64 bits": (CHUNKED + b"FFFFFFFFFFFFFFFF\r\n", ["BrokenBody"]),
    "a chunk of more than a number": (CHUNKED + b"1" * 40 + b"\r\n", ["BrokenBody"]),
    "an extension without end": (CHUNKED + b"1;" + b"x" * 3000, ["BrokenBody"]),
    "a trailer without end": (CHUNKED + b"0\r\n" + b"A: b\r\n" * 2000, ["BrokenBody"]),
    "a good one, then a bad one": (GET + b"GET / HTTP/1.1\r\n\r\n", [PING, 400]),
    "half a break": (b"\nGET", [400]),
    "another method": (b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "a method of RTSP": (b"PLAY / HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "another method, half of it": (b"FO", ["more"]),
    "no method": (b"\x16\x03\x01", [400]),
    "another version": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", [505]),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505]),
    "a tunnel": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "half of one, then a head that never ends": (
        GET[:-1] + GET[:-2] + b"A: b\r\n" * 12_000,
        [400],
    ),
    "a line that never ends": (b"GET /" + b"x" * 20_000, [414]),
    "a head that never ends": (GET[:-2] + b"A: b\r\n" * 12_000, [431]),
    "too many fields": (GET[:-2] + b"A: b\r\n" * 101 + b"\r\n", [431]),
    "a large one": (LARGE + GET, [("POST", "/invocations", LONG), PING]),
}


@pytest.mark.parametrize("name", STREAMS)
def test_bytes_become_requests(name):
    stream, expected = STREAMS[name]

    assert told([stream]) == expected


@pytest.mark.parametrize("name", [name for name in STREAMS if len(STREAMS[name][0]) < 5000])
def test_it_makes_no_difference_where_they_are_cut(name):
    stream, expected = STREAMS[name]

    assert told([stream[at : at + 1] for at in range(len(stream))]) == expected
    for cut in range(min(len(stream), 200)):
        assert told([stream[:cut], stream[cut:]]) == expected


@given(st.data())
def test_it_makes_no_difference_into_how_many_pieces_they_are_cut(data):
    names = data.draw(st.lists(st.sampled_from(sorted(STREAMS)), min_size=1, max_size=4))
    stream = b"".join(STREAMS[name][0] for name in names)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[at:to] for at, to in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert told(pieces) == told([stream])


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_break_it(garbage, cut):
    for stream in (garbage, GET + garbage, CHUNKED + garbage, GET[:-2] + garbage):
        assert told([stream[:cut], stream[cut:]]) == told([stream])


def test_what_is_behind_a_request_is_left_alone_until_that_is_answered():
    connection = Connection(LIMIT)

    assert connection.feed(GET + b"\x00 no request at all") is Next.WHOLE
    assert connection.more
    assert isinstance(connection.answered(), Refusal)


def test_fields_are_joined_and_their_names_are_in_lower_case():
    connection = Connection(LIMIT)
    connection.feed(GET[:-2] + b"ACCEPT: a \r\nAccept:\t b\r\nX_Y: c\r\n\r\n")

    assert connection.request.headers == {"host": "x", "accept": "a,b", "x_y": "c"}


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a?b=c?d", "/a", "b=c?d"),
        ("http://h:80/a%2Fb?c", "/a%2Fb", "c"),
        ("HTTPS://[::1]", "/", ""),
        ("http://h?a", "/", "a"),
    ],
)
def test_a_target_has_a_path_and_a_query(target, path, query):
    connection = Connection(LIMIT)
    connection.feed(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    assert (connection.request.line.path, connection.request.line.query) == (path, query)
