"""The body of a request on its way in, made of the WSGI environment alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from werkzeug.wsgi import get_content_length

from skserve.config import MIB, Config
from skserve.errors import BadRequest, ServeError, TooLarge, TooSlow, UnsupportedMediaType
from skserve.scheduling.bodies import Bodies
from skserve.serving import compression
from skserve.serving.framing import BrokenBody, ChunkTooLarge
from skserve.serving.wsgi import NEXT_PART

Environ = dict[str, Any]


class Incoming:
    """The body of the request of `environ` on its way in: read bit by bit, or whole.

    Reading raises TooLarge beyond the limit of `config`, and BadRequest for a body that is cut off
    or whose chunks are malformed. It goes on after the view has returned, where a stream is both
    read and answered: so it needs nothing but `environ`.
    """

    def __init__(self, environ: Environ, config: Config) -> None:
        encoding = environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
        if encoding not in ("identity", "", *compression.GZIP):
            raise UnsupportedMediaType(
                f"Content-Encoding {encoding} is not read here.", "Send gzip, or the body as it is."
            )
        self._packed = encoding in compression.GZIP  # then it is read whole
        self.length, self.seen = get_content_length(environ), 0
        self._source = environ["wsgi.input"]
        self._next_part = environ.get(NEXT_PART)
        self._limit = limit = config.max_body
        self._most = config.max_whole
        self._head = io.BytesIO()  # what was read too early
        self._failure: ServeError | None = None  # what it broke of
        if self.length is not None and self.length > limit:
            raise _too_large(f"{self.length:,}", limit)

    def fits(self, size: int) -> bool:
        """Whether the body has `size` bytes at most, or is to be read whole anyway."""
        if self._packed:
            return True
        if self.length is None:
            head = self.read(size + 1)
            self._head = io.BytesIO(head)
            return len(head) <= size
        return self.length <= size

    def read(self, size: int) -> bytes:
        """Read `size` bytes, fewer only at the end of the body."""
        if self._packed:
            body = compression.unpacked(self._all(), self._most)
            self._head, self._packed = io.BytesIO(body), False
        return self._taken(size)

    def part(self, size: int) -> bytes:
        """Read the next part of a stream: the client may take as long for each of them."""
        if self._next_part:
            self._next_part()
        return self.read(size)

    @contextmanager
    def whole(self, bodies: Bodies) -> Iterator[bytes]:
        """Read it all, as far as it may be held, and count it while it is worked on."""
        limit = self._most
        if self.length is not None and self.length > limit:
            raise _too_large(f"{self.length:,}", limit)
        # A chunked body does not say its size, so it counts as the largest that may come.
        with ExitStack() as held:
            held.enter_context(bodies.hold(limit if self.length is None else self.length))
            body = self._all()
            if self._packed:
                body = _unpacked(body, limit, bodies, held)
            yield body

    def _all(self) -> bytes:
        """Read it all, as it was sent."""
        limit = self._most
        body = self._taken(limit + 1)
        if len(body) > limit:
            raise _too_large(f"more than {limit:,}", limit)
        return body

    def _taken(self, size: int) -> bytes:
        taken = io.BytesIO()  # a list of what a trickle brings would weigh many times as much
        taken.write(self._head.read(size))
        while (left := size - taken.tell()) and (part := self._more(left)):
            taken.write(part)
        return taken.getvalue()

    def _more(self, size: int) -> bytes:
        if self._failure:
            raise self._failure
        if self.seen == self.length:
            return b""
        left = size if self.length is None else min(size, self.length - self.seen)
        try:
            part: bytes = self._source.read(min(left, MIB))
        except (OSError, BrokenBody, ChunkTooLarge) as error:
            self._failure = self._cause(error)
            raise self._failure from error
        if not part and self.length is not None:
            self._failure = _cut_off()
            raise self._failure
        self.seen += len(part)
        if self.seen > self._limit:
            raise _too_large(f"more than {self._limit:,}", self._limit)
        return part

    def _cause(self, error: Exception) -> ServeError:
        """Say what a body broke of."""
        if isinstance(error, ChunkTooLarge):
            return _too_large(f"a chunk of {error.size:,}", self._limit)
        if isinstance(error, BrokenBody):
            return BadRequest(
                "The body is not chunked as HTTP says.", "Send it again, or with a Content-Length."
            )
        if isinstance(error, TimeoutError):
            return TooSlow(
                f"The body came too slowly: {self.seen:,} bytes had come when time was up.",
                "Send it faster, or compressed.",
            )
        return _cut_off()


def _unpacked(body: bytes, limit: int, bodies: Bodies, held: ExitStack) -> bytes:
    """Return what a gzip file holds, counted before it is made."""
    size = compression.claimed(body, limit)
    held.enter_context(bodies.hold(size, len(body)))
    try:
        return compression.unpacked(body, size)
    except TooLarge:
        if size == limit:
            raise
        held.enter_context(bodies.hold(limit - size, len(body) + size))
        return compression.unpacked(body, limit)


def _cut_off() -> BadRequest:
    """Return what is said where the client has left."""
    return BadRequest("The body ended before it was whole.", "Send it again.")


def _too_large(size: str, limit: int) -> TooLarge:
    return TooLarge(
        f"The body has {size} bytes; the limit is {limit:,}.",
        "Send fewer rows at a time, or raise SAGEMAKER_MAX_PAYLOAD_IN_MB.",
    )
