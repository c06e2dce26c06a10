"""One request, answered by the WSGI application in a thread: the environment, the body, the answer.

A client may keep a thread waiting, for the body or while it takes the answer, only as long as its
`Patience` says.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes

from skserve.serving.client_socket import ClientSocket
from skserve.serving.connection import BODY_LIMIT, Connection
from skserve.serving.framing import BrokenBody, ChunkTooLarge
from skserve.serving.head import Request
from skserve.serving.responses import INFERENCE_ID, Answer, Headers, error_body, head_of, identity

log = logging.getLogger("skserve")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

# A key of the environment: call it when the next part of a stream is waited for.
NEXT_PART = "skserve.next_part"

# Bytes of a body that is thrown away to keep a connection.
DISCARD = 1 << 20

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Input:
    """The body of a request as it comes."""

    def __init__(self, connection: Connection, channel: ClientSocket, asks: bool) -> None:
        self._connection, self._channel = connection, channel
        self._asks = asks  # the client waits until it is told to go on
        self._ready = connection.request.body if connection.request else b""

    def read(self, size: int = sys.maxsize) -> bytes:
        """Return what is there, `size` bytes at most; nothing at the end.

        Raises OSError where the client leaves or is too slow, BrokenBody, or ChunkTooLarge.
        """
        if not self._ready:
            self._ready = self._more()
        part, self._ready = self._ready[:size], self._ready[size:]
        return part

    def _more(self) -> bytes:
        connection = self._connection
        connection.receive(b"")
        while not (part := connection.take()) and not connection.complete:
            if self._asks:
                self._channel.send(CONTINUE)
            self._asks = False
            said = self._channel.receive()
            if not said:
                raise ConnectionResetError("the client ended in the middle of a body")
            connection.receive(said)
        return part


class Exchange:
    """A request and its answer on their way through the application.

    `stopping` says whether this is the last request that its connection may have.
    """

    def __init__(
        self, connection: Connection, channel: ClientSocket, stopping: Callable[[], bool]
    ) -> None:
        assert connection.request is not None
        self._connection, self._channel, self._stopping = connection, channel, stopping
        self.request: Request = connection.request
        self._head: tuple[str, Headers] | None = None
        self._begun = False  # the head of the answer has left
        self._keep = False
        self._chunked = False
        self._left: int | None = None  # bytes that the answer still has to have

    def run(self, application: Application, environ: dict[str, Any]) -> bool:
        """Answer by the application; return whether the connection may be kept."""
        expects = self.request.expects and not self._connection.complete
        environ["wsgi.input"] = Input(self._connection, self._channel, expects)
        environ[NEXT_PART] = self._channel.reading.renew
        try:
            parts = application(environ, self.start_response)
            try:
                for part in parts:
                    self.write(part)
                self._end()
            finally:
                if hasattr(parts, "close"):
                    parts.close()
        except OSError as error:  # the client has left, is too slow, or a stream broke
            log.debug("A connection breaks: %s", error)
            return False
        except (Exception, SystemExit):
            name = identity(self.request.headers.get(INFERENCE_ID.lower(), ""))
            target = self.request.line.target[:200]
            log.exception("request %s: the application failed on %s", name, target)
            return not self._begun and self._fail(name)
        return self._keep

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Any:
        if exc_info and self._begun:
            raise exc_info[1].with_traceback(exc_info[2])
        self._head = status, headers
        return self.write

    def write(self, part: bytes) -> None:
        """Send a part of the answer, and its head before the first. Raises OSError."""
        head = b"" if self._begun else self._begin()
        if self._left is not None:
            part = part[: self._left]
            self._left -= len(part)
        if self._chunked and part:
            part = b"%x\r\n%b\r\n" % (len(part), part)
        if len(part) <= BODY_LIMIT:
            self._channel.send(head + part)
        else:
            self._channel.send(head)
            self._channel.send(part)

    def _begin(self) -> bytes:
        """Decide how the answer ends, and write its head."""
        assert self._head is not None
        status, headers = self._head
        request = self.request
        bodiless = request.line.method == "HEAD" or status[:3] in ("204", "304") or status < "2"
        length = next(
            (int(text) for name, text in headers if name.lower() == "content-length"), None
        )
        keep = request.keep_alive and not self._stopping()
        if status.startswith("204") or status < "2":
            headers = [one for one in headers if one[0].lower() != "content-length"]
        self._chunked = length is None and not bodiless and request.line.minor == 1
        self._left = 0 if bodiless else length
        self._keep = keep and self._settled(bodiless or length is not None)
        if length is None and not bodiless and not self._chunked:
            self._keep = False  # its end is that of the connection
        head = head_of(status, headers, not self._keep)
        self._begun = True
        if self._chunked:
            head = head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
        return head

    def _settled(self, whole: bool) -> bool:
        """Whether nothing of the request's body is left, or all of it is here to be thrown away.

        Never waits: who sends on after an answer that says "close" is listened to for a while.
        A stream may still be reading what is left.
        """
        connection, seen = self._connection, 0
        if not whole or connection.complete:
            return connection.complete
        with suppress(OSError, BrokenBody, ChunkTooLarge):
            connection.receive(b"")
            while not connection.complete and seen < DISCARD:
                said = self._channel.waiting()
                if not said:
                    break
                seen += len(said)
                connection.receive(said)
                connection.take()
        return connection.complete

    def _end(self) -> None:
        if not self._begun:
            self.write(b"")
        if self._left:
            raise BrokenPipeError("the answer is shorter than it says")
        if self._chunked:
            self._channel.send(LAST_CHUNK)

    def _fail(self, name: str) -> bool:
        """Answer that the application failed; the log has the traceback under that name."""
        message, hint = "The server failed on this request.", "The log has the traceback."
        body = error_body("internal_error", message, hint, name)
        with suppress(OSError):
            answer = Answer(500, body, [("Content-Type", "application/json")])
            self._channel.send(
                answer.write(close=True, head_only=self.request.line.method == "HEAD")
            )
        return False


def environ_of(request: Request, peer: tuple[str, int], server: tuple[str, int]) -> dict[str, Any]:
    """Make the WSGI environment of a request, but for its body (PEP 3333)."""
    line = request.line
    environ: dict[str, Any] = {
        "REQUEST_METHOD": line.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(line.path).decode("latin-1"),
        "QUERY_STRING": line.query,
        "RAW_URI": line.target,
        "SERVER_PROTOCOL": f"HTTP/1.{line.minor}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": peer[0],
        "REMOTE_PORT": str(peer[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, text in request.headers.items():
        if name in ("content-type", "content-length"):
            environ[name.upper().replace("-", "_")] = text
        elif "_" not in name:  # it would look like another one
            environ["HTTP_" + name.upper().replace("-", "_")] = text
    return environ
