"""An answer before it is sent: made of a reply or a failure, and written as HTTP."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from skserve import logs, telemetry
from skserve.errors import Overloaded, ServeError
from skserve.formats.json_text import dumps_anyway
from skserve.formats.media_types import JSON
from skserve.inference.calls import Reply
from skserve.serving import compression
from skserve.telemetry import Record
from skserve.tracebacks import raised

log = logging.getLogger("skserve")

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"

# A caller sees an error as ModelError.OriginalMessage, cut at 2,048 characters: this leaves room
# for the JSON around the sentence.
MESSAGE_LIMIT = 1400

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_IDENTITY = re.compile(r"[!-~][ -~]{0,63}")
_TEXT = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")

# What concerns one connection alone: the server says these, whatever an application says.
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}

Headers = list[tuple[str, str]]


@dataclass
class Answer:
    """Status, headers and body of one answer; a body in parts leaves as they are made."""

    status_code: int
    body: bytes | Iterator[bytes] = b""
    headers: Headers = field(default_factory=list)

    @property
    def content_length(self) -> int | None:
        return len(self.body) if isinstance(self.body, bytes) else None

    def write(self, close: bool, head_only: bool = False) -> bytes:
        """Return the bytes of an answer that has its body whole."""
        assert isinstance(self.body, bytes)
        length = ("Content-Length", str(len(self.body)))
        # What a caller sends in other headers, and gets back in them, is not to be kept.
        spell = _spelled_once if len(self.headers) == 1 else _spelled
        status = status_of(self.status_code)
        head = spell(status, (*self.headers, length), close, int(time.time()))
        return head if head_only else head + self.body


def head_of(status: str, headers: Iterable[tuple[str, str]], close: bool) -> bytes:
    """Write the head of an answer. Raises ValueError for a header that would break it."""
    return _spelled(status, headers, close, int(time.time()))


def _spelled(status: str, headers: Iterable[tuple[str, str]], close: bool, second: int) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Server: gunicorn",
        f"Date: {_date(second)}",
        "Connection: close" if close else "Connection: keep-alive",
    ]
    for name, text in headers:
        _check(name, text)
        if name.lower() not in _HOP_BY_HOP:
            lines.append(f"{name}: {text}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


# Small models answer in few lengths, thousands of times a second.
_spelled_once = lru_cache(64)(_spelled)


def _check(name: str, text: str) -> None:
    if not _NAME.fullmatch(name) or not _TEXT.fullmatch(text):
        raise ValueError(f"{name[:80]!r} is no header, or what it says cannot stand in one")


@lru_cache(64)
def status_of(code: int) -> str:
    """Return the status line's number and phrase."""
    try:
        return f"{code} {HTTPStatus(code).phrase.upper()}"
    except ValueError:
        return f"{code} UNKNOWN"


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def headers_of(reply: Reply, attributes: str) -> Headers:
    """Return the headers of a reply but for its length; `attributes` are those of the request.

    Raises ValueError for one that would break the answer: a script may have written it.
    """
    headers: dict[str, tuple[str, str]] = {"content-type": ("Content-Type", reply.media_type)}
    if attributes:
        headers[ATTRIBUTES.lower()] = (ATTRIBUTES, attributes)  # SageMaker does not echo them
    for name, text in reply.headers.items():
        if name.lower() != "content-length":  # a false one would keep the caller waiting
            headers[name.lower()] = (name, text)
    for name, text in headers.values():
        _check(name, text)
    return list(headers.values())


def whole(reply: Reply, attributes: str, takes: str) -> Answer:
    """Make the answer of a reply with its body whole; `takes` is the caller's Accept-Encoding."""
    body, headers = reply.body, headers_of(reply, attributes)
    assert isinstance(body, bytes)
    if compression.pays(reply.media_type, body) and not _packed(reply):
        headers.append(("Vary", "Accept-Encoding"))
        if compression.takes_gzip(takes):
            body = compression.packed(body)
            headers.append(("Content-Encoding", "gzip"))
    return Answer(reply.status, body, headers)


def _packed(reply: Reply) -> bool:
    return any(name.lower() == "content-encoding" for name in reply.headers)


def fault(error: Exception, record: Record, traced: bool = False) -> Answer:
    """Make the answer to a failure, whose cause goes into the line of `record`.

    The traceback of what is not the caller's fault goes into the log, unless it is `traced` there.
    """
    headers = [("Content-Type", JSON)]
    if isinstance(error, ServeError):
        status, code, message, hint = error.status, error.code, error.message, error.hint
        logged = message if logs.shows_values() else error.logged
        if error.reason:
            telemetry.rejected(error.reason)
    else:
        status, code = ServeError.status, ServeError.code
        message, hint = "The server failed on this request.", "The log has the traceback."
        logged = message
    record.facts |= {"code": code, "message": logged[:MESSAGE_LIMIT]}
    if (cause := error.__cause__) is not None or not isinstance(error, ServeError):
        record.facts["raised"] = raised(cause or error)
    if status >= 500 and not (traced or isinstance(error, Overloaded)):
        log.error("request %s: %s", record.request_id, logged, exc_info=error)
    if status == 503:
        headers.append(("Retry-After", str(getattr(error, "retry_after", 1))))
    return Answer(status, error_body(code, message, hint, record.request_id), headers)


def identity(given: str) -> str:
    """Return the caller's inference id where it has one, else a new one.

    Not one of `random`, which a script may seed.
    """
    return given if given and _IDENTITY.fullmatch(given) else os.urandom(8).hex()


def error_body(code: str, message: str, hint: str, request_id: str) -> bytes:
    """Write an error as every caller but those of the multi-model contract's calls sees it."""
    if len(message) > MESSAGE_LIMIT:
        message = message[:MESSAGE_LIMIT] + "..."
    body = {"code": code, "message": message, "hint": hint, "request_id": request_id}
    return dumps_anyway({"error": body})
