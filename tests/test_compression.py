"""gzip bodies: every way of making them, and of lying with them."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skserve.errors import BadRequest, ServeError, TooLarge
from skserve.serving.compression import packed, takes_gzip, unpacked

LIMIT = 1 << 20
ROW = [5.1, 3.5, 1.4, 0.2]


@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), level=st.integers(0, 9))
def test_every_member_is_read(parts, level):
    body = b"".join(gzip.compress(part, level, mtime=0) for part in parts)

    assert unpacked(body, LIMIT) == b"".join(parts)
    assert unpacked(body + b"\0" * 9, LIMIT) == b"".join(parts)  # tape drives pad
    assert gzip.decompress(packed(parts[0])) == parts[0]


def test_a_large_member_is_read_piece_by_piece():
    data = bytes(range(256)) * 4096

    assert unpacked(gzip.compress(data, mtime=0), LIMIT) == data
    with pytest.raises(TooLarge, match="more than 1,048,575 bytes"):
        unpacked(gzip.compress(data, mtime=0), LIMIT - 1)


@pytest.mark.parametrize("members", [1, 50])
def test_a_bomb_makes_no_more_than_the_limit(members):
    bomb = gzip.compress(b"\0" * 10_000_000, mtime=0) * members
    tracemalloc.start()
    with pytest.raises(TooLarge):
        unpacked(bomb, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 3 * LIMIT


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "empty"),
        (b"plain", "not gzip"),
        (zlib.compress(b"other"), "not gzip"),
        (gzip.compress(b"cut", mtime=0)[:-1], "ends before"),
        (gzip.compress(b"cut", mtime=0)[:3], "ends before"),
        (gzip.compress(b"a", mtime=0) + b"rest", "not gzip"),
        (gzip.compress(b"a", mtime=0) + b"\0rest", "not gzip"),
        (gzip.compress(b"a", mtime=0)[:-8] + b"\0" * 8, "not gzip"),
        (gzip.compress(b"", mtime=0) * 1100, "too many parts"),
    ],
)
def test_what_is_not_gzip_is_refused(body, sentence):
    with pytest.raises(BadRequest, match=sentence):
        unpacked(body, LIMIT)


def test_a_million_empty_members_take_no_time():
    body = gzip.compress(b"", mtime=0) * 1_000_000
    began = time.process_time()
    with pytest.raises(BadRequest, match="too many parts"):
        unpacked(body, LIMIT)

    assert time.process_time() - began < 1


@given(at=st.integers(0, 60), bit=st.integers(0, 7), cut=st.integers(0, 60))
@settings(max_examples=300)
def test_damage_is_read_or_refused(at, bit, cut):
    body = bytearray(gzip.compress(json.dumps([ROW]).encode()))
    body[at % len(body)] ^= 1 << bit
    try:
        unpacked(bytes(body[: cut or None]), LIMIT)
    except ServeError as error:
        assert error.status in (400, 413)


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("*", True),
        ("gzip;q=0.5", True),
        ("gzip ; q=1", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("identity, gzip;q=0.5", False),
        ("gzip;q=high", False),
        ("gzip;q=7", False),
        ("gzip;q=nan", False),
    ],
)
def test_accept_encoding_is_read(header, takes):
    assert takes_gzip(header) is takes


# ------------------------------------------------------------------------------ through a server


def test_gzip_goes_in_and_comes_out(servers):
    iris = servers("iris")
    rows = json.dumps([ROW] * 10_000).encode()
    plain = iris.post(rows, Accept_Encoding="identity")

    for encoding in ("gzip", "x-gzip", "GZIP"):
        answer = iris.post(
            gzip.compress(rows, mtime=0), Content_Encoding=encoding, Accept_Encoding="gzip"
        )
        assert answer.status_code == 200
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert int(answer.headers["Content-Length"]) < len(plain.content) / 10
        assert answer.json() == plain.json()  # requests takes the gzip apart

    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Vary"] == "Accept-Encoding"
    small = iris.post(json.dumps([ROW]), Accept_Encoding="gzip")
    assert "Content-Encoding" not in small.headers
    packed_already = iris.post(rows, Accept_Encoding="gzip", Accept="application/x-npz")
    assert "Content-Encoding" not in packed_already.headers


@pytest.mark.parametrize(
    ("body", "encoding", "status", "sentence"),
    [
        (gzip.compress(b" " * (26 << 20)), "gzip", 413, "Unpacked, the body has more than"),
        (gzip.compress(b"[[5.1, 3.5, 1.4, 0.2]]", mtime=0)[:-4], "gzip", 400, "ends before"),
        (b"[[5.1, 3.5, 1.4, 0.2]]", "gzip", 400, "not gzip"),
        (b"[[5.1, 3.5, 1.4, 0.2]]", "br", 415, "Content-Encoding br is not read"),
        (gzip.compress(b"[]", mtime=0), "gzip, gzip", 415, "not read"),
    ],
)
def test_a_bad_gzip_body_is_the_callers_fault(servers, body, encoding, status, sentence):
    answer = servers("iris").post(body, Content_Encoding=encoding)

    assert answer.status_code == status
    assert sentence in answer.json()["error"]["message"]
