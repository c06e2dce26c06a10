"""A body on its way in: what its environ says of it, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from skserve.config import MIB, Config
from skserve.errors import ServeError, TooLarge, UnsupportedMediaType
from skserve.scheduling.bodies import Bodies
from skserve.serving.body import Incoming
from skserve.serving.framing import BrokenBody, ChunkTooLarge


class Source:
    """Give pieces one by one, or raise what stands among them; nothing after the last one."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = list(pieces)

    def read(self, size: int) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        assert size > 0
        return piece


def body(*pieces: bytes | Exception, **environ: Any) -> Incoming:
    return Incoming({"wsgi.input": Source(*pieces), **environ}, Config())


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked"}
MALFORMED = "The body is not chunked as HTTP says."
CUT_OFF = "The body ended before it was whole."
LARGE = "The body has a chunk of 1,099,511,627,776 bytes; the limit is 26,214,400."
SLOW = "The body came too slowly: 3 bytes had come when time was up."


@pytest.mark.parametrize(
    ("pieces", "environ", "message"),
    [
        ((b"1,2", BrokenBody("Invalid character in chunk size")), CHUNKED, MALFORMED),
        ((b"1,2", ChunkTooLarge(1 << 40)), CHUNKED, LARGE),
        ((b"1,2", ConnectionResetError()), CHUNKED, CUT_OFF),
        ((b"1,2", TimeoutError()), {"CONTENT_LENGTH": "9"}, SLOW),
        ((b"1,2",), {"CONTENT_LENGTH": "9"}, CUT_OFF),
        ((ConnectionResetError(),), {"CONTENT_LENGTH": "9"}, CUT_OFF),
    ],
)
def test_a_body_that_broke_stays_broken_for_the_same_cause(pieces, environ, message):
    broken = body(*pieces, **environ)
    for _ in range(3):
        with pytest.raises(ServeError) as refused:
            broken.read(MIB)
        assert refused.value.message == message


@pytest.mark.parametrize("environ", [CHUNKED, {"CONTENT_LENGTH": "6"}, {}])
def test_a_whole_body_needs_no_context_of_flask(environ):
    whole = body(b"1,2\n", b"3,", **environ)
    with whole.whole(Bodies(1 << 30)) as read:
        assert read == b"1,2\n3,"
    assert whole.read(10) == b""


def test_a_body_is_held_to_its_limit():
    with pytest.raises(TooLarge):
        body(CONTENT_LENGTH=str(Config().max_body + 1))
    with pytest.raises(TooLarge):
        body(b"x" * (Config().max_body + 1), **CHUNKED).read(MIB)


def test_an_encoding_that_is_not_read_is_named():
    with pytest.raises(UnsupportedMediaType, match="br is not read here"):
        body(HTTP_CONTENT_ENCODING="br")
