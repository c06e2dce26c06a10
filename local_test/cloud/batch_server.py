"""The HTTP side of a batch job: one server on this machine, a connection for each thread."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from urllib.parse import urlsplit


class Failed(Exception):
    """The job ends here, with this sentence."""


class Server:
    """A server on this machine; each thread keeps a connection of its own."""

    def __init__(self, url: str, timeout: float) -> None:
        self._address = urlsplit(url).netloc
        self._timeout = timeout
        self._own = threading.local()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """Send one request; a chunked one if `body` is an iterator. Raises OSError."""
        answer = self.open(method, path, body, **headers)
        return answer.status, answer.read()

    def open(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> http.client.HTTPResponse:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._address, timeout=self._timeout)
            self._own.connection = connection
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)  # type: ignore[arg-type]
            return connection.getresponse()
        except BaseException:
            connection.close()
            self._own.connection = None
            raise

    def wait(self, patience: float = 480) -> None:
        """Wait until /ping is 200 with an empty body, as batch transform does."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/ping") == (200, b""):
                    return
            time.sleep(0.1)
        raise Failed("The server is not ready: GET /ping was never 200.")
