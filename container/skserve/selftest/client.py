"""HTTP to the server under test, by the standard library alone."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

PATIENCE = 75.0  # seconds: more than the server's own limit, so that its 504 is seen


class Answer(NamedTuple):
    """A response, whole; `seconds` run from the connection to the last byte."""

    status: int
    media_type: str
    body: bytes
    seconds: float

    @property
    def said(self) -> str:
        """The status and the beginning of the body, on one line."""
        text = " ".join(self.body[:160].decode(errors="replace").split())
        return f"{self.status} {text}".strip()


@dataclass(frozen=True)
class Client:
    """The server on a port of 127.0.0.1. Each request has a connection of its own.

    Every method raises OSError or http.client.HTTPException where there is no answer.
    """

    port: int

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        began = time.perf_counter()
        with closing(self.connection()) as connection:
            connection.request(method, path, body or None, dict(headers or {}))
            return _whole(connection.getresponse(), began)

    def announce(self, path: str, length: int) -> Answer:
        """Send the head of a request whose body is never sent."""
        began = time.perf_counter()
        with closing(self.connection()) as connection:
            connection.putrequest("POST", path)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
            return _whole(connection.getresponse(), began)


def _whole(response: http.client.HTTPResponse, began: float) -> Answer:
    body = response.read()
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return Answer(response.status, kind, body, time.perf_counter() - began)
