"""The log: stderr, as SageMaker collects it, in lines of text or of JSON.

What callers sent is left out: of our own errors the parts that quote a request, and of tracebacks
the messages of the exceptions. What a script prints or logs is its own; it arrives with the name of
where it came from.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from select import PIPE_BUF
from types import TracebackType
from typing import Any, Protocol

from skserve.log_sink import BURST, sink
from skserve.series import STAGES
from skserve.tracebacks import without_messages

# The loggers whose tracebacks may hold what a caller sent: ours and the server's.
_OURS = re.compile(r"(skserve|gunicorn|py\.warnings|asyncio|concurrent)(\.|$)")

# Text that needs no quotes: it cannot be taken for two facts.
_PLAIN = re.compile(r"[\w.:/%+,;@*~-]+", re.ASCII)

_IN_MS = [f"{name}_ms" for name in STAGES]

# What the line of a request names itself, beside the request's facts.
NAMES = frozenset(["status", "bytes_out", "bytes_in", "rows", *_IN_MS, "id"])

# Most stages are short, and a float takes long to format.
_SHORT = 0.01  # seconds
_DECIMALS = [f"{hundredths / 100:.2f}" for hundredths in range(1001)]  # ms

# A warning of Python as `logging.captureWarnings` words it, up to what it says.
_WARNING = re.compile(r".*?:\d+: \w+")

# The id of the request that this thread serves, as `telemetry` says; and whether this process has
# served any yet.
request_id: Callable[[], str] = str
served = False

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Request(Protocol):
    """What the line of a request says beside its status and the bytes of its answer."""

    request_id: str
    bytes_in: int
    rows: int
    facts: dict[str, Any]
    stages: list[float]  # of each of `STAGES` the seconds


Line = tuple[int, int | None, Request]


class Handler(logging.Handler):
    """Gives what is logged to the sink."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sink.write((self.format(record) + "\n").encode(errors="backslashreplace"))
        except Exception:
            self.handleError(record)


class _Style(logging.Formatter):
    """What both formats do: hide what callers sent."""

    def __init__(self, hides: bool = True) -> None:
        super().__init__()
        self._hides = hides

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - logging's name
        return "".join(without_messages(ei[1])) if ei[1] else ""

    def error(self, record: logging.LogRecord) -> str:
        """Return the traceback of a record; with messages where none can quote a request."""
        if not record.exc_info:
            return ""
        if self._secret(record):
            return self.formatException(record.exc_info)
        return super().formatException(record.exc_info)

    def said(self, record: logging.LogRecord) -> str:
        """Return the message; of a secret warning only where it was given, and its kind."""
        text = record.getMessage()
        if record.name == "py.warnings" and self._secret(record):
            found = _WARNING.match(text)
            return found[0] if found else ""
        return text

    def _secret(self, record: logging.LogRecord) -> bool:
        """Whether an exception or warning may quote a request, and that is not to be shown."""
        asked = served and not getattr(record, "at_start", False)
        return self._hides and asked and bool(_OURS.match(record.name))

    def lines(self, requests: Iterable[Line]) -> bytes:
        """Write the line of each request."""
        raise NotImplementedError

    def printed(self, source: str, text: str) -> bytes:
        """Write a line that a script printed to `source`."""
        raise NotImplementedError

    def notice(self, text: str) -> bytes:
        """Write a line about the log itself."""
        raise NotImplementedError


class Text(_Style):
    """`2026-01-31 12:00:00 INFO [7] message`, with facts as name=value, in quotes where needed."""

    def __init__(self, hides: bool = True) -> None:
        super().__init__(hides)
        self._spelled = 0, ""

    def format(self, record: logging.LogRecord) -> str:
        text = self.said(record)
        lines = (text if _OURS.match(record.name) else f"{record.name}: {text}").split("\n")
        lines += [f"{name}: {value}" for name, value in getattr(record, "facts", {}).items()]
        lines += self.error(record).rstrip("\n").split("\n") if record.exc_info else []
        # No line but the first begins as one of ours does.
        return f"{self._now()} {record.levelname} [{os.getpid()}] " + "\n  ".join(lines)

    def lines(self, requests: Iterable[Line]) -> bytes:
        head, parts = f"{self._now()} INFO [{os.getpid()}]", []
        for status, size, request in requests:
            parts.append(f"{head} status={status} bytes_out={size}")
            if request.bytes_in:
                parts.append(f" bytes_in={request.bytes_in}")
            if request.rows:
                parts.append(f" rows={request.rows}")
            for fact, value in request.facts.items():
                parts.append(f" {fact}={_spelled(value)}")
            for at, seconds in enumerate(request.stages):
                if seconds:
                    short = 0.0 < seconds < _SHORT
                    ms = _DECIMALS[int(seconds * 1e5 + 0.5)] if short else f"{seconds * 1e3:.2f}"
                    parts.append(f" {_IN_MS[at]}={ms}")
            parts.append(f" id={_quoted(request.request_id)}\n")
        return "".join(parts).encode(errors="backslashreplace")

    def printed(self, source: str, text: str) -> bytes:
        name = request_id()
        about = f"{source} id={_quoted(name)}" if name else source
        line = f"{self._now()} INFO [{os.getpid()}] {about}: {text}\n"
        return line.encode(errors="backslashreplace")

    def notice(self, text: str) -> bytes:
        return f"{self._now()} WARNING [{os.getpid()}] {text}\n".encode()

    def _now(self) -> str:
        """Spell the time; each second once."""
        second, now = self._spelled
        if second != (current := int(time.time())):
            now = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(current))
            self._spelled = current, now
        return now


class Json(_Style):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {"message": self.said(record)}
        if not _OURS.match(record.name):
            said["logger"] = record.name
        said |= getattr(record, "facts", {})
        if record.exc_info:
            said["traceback"] = self.error(record)
        return self._whole(record.created, record.levelname, said)

    def lines(self, requests: Iterable[Line]) -> bytes:
        now, text = time.time(), ""
        for status, size, request in requests:
            sizes = {"bytes_in": request.bytes_in, "rows": request.rows}
            took = zip(_IN_MS, request.stages, strict=True)
            said = {
                "status": status,
                "bytes_out": size,
                **{name: count for name, count in sizes.items() if count},
                **{
                    name: round(value, 2) if type(value) is float else value
                    for name, value in request.facts.items()
                },
                **{name: round(seconds * 1e3, 2) for name, seconds in took if seconds},
                "id": request.request_id,
            }
            text += self._whole(now, "INFO", said) + "\n"
        return text.encode()

    def printed(self, source: str, text: str) -> bytes:
        name = {"id": given} if (given := request_id()) else {}
        said = {"source": source, **name, "message": text}
        return self._whole(time.time(), "INFO", said).encode() + b"\n"

    def notice(self, text: str) -> bytes:
        return self._whole(time.time(), "WARNING", {"message": text}).encode() + b"\n"

    def _whole(self, at: float, level: str, said: dict[str, Any]) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at))
        head = {"time": now, "level": level, "pid": os.getpid()}
        return json.dumps(head | said, default=str)


_style: _Style = Text()


def configure(level: int, style: str, values: bool = False) -> None:
    """Send every log, the user's scripts' included, to stderr in one format.

    `values` allows the messages of exceptions, which may quote what a caller sent.
    """
    global _style
    _style = Json(not values) if style == "json" else Text(not values)
    sink.notice = _style.notice
    handler = Handler()
    handler.setFormatter(_style)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


# Lines of requests that wait for `flush`.
_held: deque[Line] = deque()


def line(status: int, size: int | None, request: Request, hold: bool = False) -> None:
    """Write the line of a request, or `hold` it until `flush`.

    Not by a logger: its record, formatter and lock cost as much as a small model's answer. Several
    lines that are made one after another take half of their time each, and one write.
    """
    if hold:
        _held.append((status, size, request))
    else:
        sink.write(_style.lines([(status, size, request)]))


def printed(source: str, text: str) -> None:
    """Write a line that a script printed to `source`, stdout or stderr."""
    sink.write(_style.printed(source, text), BURST)


def flush() -> None:
    """Write the lines that are held, as many at once as a pipe takes unmixed with others."""
    if _held:
        data = _style.lines([_held.popleft() for _ in range(len(_held))])
        for block in [data] if len(data) <= PIPE_BUF else data.splitlines(keepends=True):
            sink.write(block)


def shows_values() -> bool:
    """Whether what callers sent may stand in the log."""
    return not _style._hides


def _spelled(value: Any) -> str:
    if type(value) is str:
        return _quoted(value)
    return f"{value:.2f}" if type(value) is float else str(value)


def _quoted(text: str) -> str:
    plain = (text.isalnum() and text.isascii()) or _PLAIN.fullmatch(text)
    return text if plain else json.dumps(text, ensure_ascii=False)
