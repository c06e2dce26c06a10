"""The bytes of one client, taken apart into requests; no socket and no clock.

llhttp decides where each head, each body and each chunk ends. It is fed in pieces that end where it
may find such an end, so that what a client sends behind one request stays in the buffer, unread,
until that request is answered.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from skserve.scheduling.costs import SMALL
from skserve.serving.framing import BrokenBody, Chunks, Length
from skserve.serving.head import (
    HEAD_LIMIT,
    LONG_HEAD,
    LONG_TARGET,
    TARGET_LIMIT,
    TUNNEL,
    Fields,
    Refusal,
    Request,
    malformed,
    refusal_of,
    request_of,
)

# Bytes of a body that the poller waits for.
BODY_LIMIT = SMALL

_EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")
_HALF_BREAK = re.compile(rb"\n|\r.", re.DOTALL)
_UPGRADE = re.compile(rb"(?i)\r\nupgrade:[^\r\n]*")


class Next(Enum):
    """What there is to do about a connection."""

    WAIT = auto()  # for more from the client
    WHOLE = auto()  # answer: the body is there, in `Request.body`
    BEGUN = auto()  # answer: the body is large, or says its end as it comes, and is to be read


class Connection:
    """Takes what a client sends and says what to do about it.

    `limit` is the bytes that any body may have. After a Refusal, or a request that is not
    `keep_alive`, the connection takes nothing more.
    """

    def __init__(self, limit: int) -> None:
        self.request: Request | None = None
        self.complete = False  # the body of the request has come to its end
        self._body_limit = limit
        self._body: Length | Chunks = Length(0)
        self._buffer = b""
        self._fed = 0  # bytes of a head in the buffer that llhttp has seen
        self._failed = ""  # what llhttp says of a head whose first line is not whole yet
        self._parts: list[bytes] = []
        self._new_parser()

    @property
    def begun(self) -> bool:
        """Whether there is a part of a request that is not answered."""
        return self.request is not None or bool(self._buffer)

    @property
    def more(self) -> bool:
        """Whether there is something behind the request that is answered."""
        return bool(self._buffer)

    def feed(self, said: bytes) -> Next | Refusal:
        """Take what the client said and look at the request at its front."""
        self._buffer = self._buffer + said if self._buffer else said
        if self.request is None:
            request = self._head()
            if request is None:
                return Next.WAIT
            if isinstance(request, Refusal):
                return request
            self.request = request
            if request.length is None:
                self._body = Chunks(self._body_limit)
                return Next.BEGUN
            self._body = Length(request.length)
            if request.length > BODY_LIMIT or (request.expects and not self.complete):
                return Next.BEGUN
        if not self.complete:
            self._advance()
            if not self.complete:
                return Next.WAIT
        self.request.body = self.take()
        return Next.WHOLE

    def answered(self) -> Next | Refusal:
        """Go on to the next request on a connection that is kept."""
        self.request, self.complete, self._fields = None, False, Fields()
        return self.feed(b"") if self._buffer else Next.WAIT

    def ended(self) -> Refusal | None:
        """Say what to answer where the client has ended in the middle of a request."""
        if not self.begun:
            return None
        part = "body" if self.request else "head"
        return Refusal(
            400, "bad_request", f"The {part} ended before it was whole.", "Send it again."
        )

    def receive(self, said: bytes) -> None:
        """Take more of the body of a request that has begun. Raises BrokenBody, ChunkTooLarge."""
        self._buffer = self._buffer + said if self._buffer else said
        self._advance()

    def take(self) -> bytes:
        """Return what has come of the body since this was asked last."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # ------------------------------------------------------------------------- called by llhttp

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._fields.ended:  # else a trailer, which nothing here reads
            self._fields.add(name, value)

    def on_headers_complete(self) -> None:
        self._fields.ended = True
        self._fields.keep_alive = self._parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        self.complete = True

    # --------------------------------------------------------------------------------- the head

    def _new_parser(self) -> None:
        self._fields = Fields()
        self._parser = HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_version=True)  # `line_of` judges it

    def _head(self) -> Request | Refusal | None:
        """Return the request whose head is at the front; None where it is not whole."""
        if not self._fed and self._buffer[:1] in (b"\r", b"\n", b""):
            self._buffer = _EMPTY_LINES.sub(b"", self._buffer, 1)
            if _HALF_BREAK.match(self._buffer):
                return malformed("it begins with half a line break")
            if self._buffer in (b"", b"\r"):
                return None
        end = self._buffer.find(b"\r\n\r\n", max(0, self._fed - 3)) + 4
        whole = end >= 4
        if not whole:
            end = len(self._buffer)
        if (
            end > 2 * TARGET_LIMIT
            and self._buffer.find(b"\n", 0, end) < 0
            and (self._buffer.find(b" ", 0, TARGET_LIMIT) > 0)
        ):
            return LONG_TARGET
        if end > HEAD_LIMIT:  # what is wrong before the limit is said first, as in small pieces
            return self._feed_head(HEAD_LIMIT) or LONG_HEAD
        refusal = self._feed_head(end)
        if refusal or not whole:
            return refusal
        head, self._buffer, self._fed = self._buffer[:end], self._buffer[end:], 0
        return request_of(head, self._fields)

    def _feed_head(self, end: int) -> Refusal | None:
        """Let llhttp see the head as far as `end`."""
        if not self._failed:
            try:
                self._parser.feed_data(self._buffer[self._fed : end])
            except HttpParserUpgrade:
                # llhttp ends the request here, but it is answered as if it did not ask to upgrade.
                head = self._buffer[:end]
                plain = _UPGRADE.sub(b"", head)
                if plain == head:
                    return TUNNEL
                self.complete = False
                self._new_parser()
                self._parser.feed_data(plain)
            except HttpParserError as error:
                self._failed = str(error)
        self._fed = end
        return refusal_of(self._buffer[:HEAD_LIMIT], self._failed) if self._failed else None

    # --------------------------------------------------------------------------------- the body

    def _advance(self) -> None:
        """Let llhttp see what has come of the body, and nothing of what is behind it."""
        buffer, at, view = self._buffer, 0, memoryview(self._buffer)
        try:
            while at < len(buffer) and not self.complete:
                end = self._body.piece(buffer, at)
                piece = view[at:end]
                self._body.note(piece)
                self._parser.feed_data(piece)
                at = end
        except HttpParserError as error:
            raise BrokenBody(str(error)) from None
        finally:
            self._buffer = buffer[at:]
