"""What a request cost, said in one line of the log.

`stage` times a part of the current request, wherever in the program that part runs; the line is
written by whoever began the `Record`. The log is stdout and stderr, as SageMaker collects them.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

log = logging.getLogger("skserve")
_requests = logging.getLogger("skserve.requests")


class Response(Protocol):
    """What is said of an answer."""

    @property
    def status_code(self) -> int: ...

    @property
    def content_length(self) -> int | None: ...


@dataclass
class Record:
    """The facts of one request: `stages` in seconds, `facts` such as rows and bytes."""

    request_id: str
    began: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, response: Response) -> None:
        """Write the line."""
        if not _requests.isEnabledFor(logging.INFO):
            return
        line = {"status": response.status_code, "bytes_out": response.content_length, **self.facts}
        total = time.perf_counter() - self.began
        for name, seconds in (*self.stages.items(), ("total", total)):
            line[f"{name}_ms"] = round(seconds * 1e3, 2)
        line["id"] = self.request_id
        # Not by `info`, which would walk the stack for the name of this very function.
        record = logging.LogRecord(_requests.name, logging.INFO, __file__, 0, "request", None, None)
        record.facts = line
        _requests.handle(record)


_current: contextvars.ContextVar[Record | None] = contextvars.ContextVar("record", default=None)


def begin(request_id: str) -> Record:
    """Start the record of the request that this thread, or context, now serves."""
    record = Record(request_id)
    _current.set(record)
    return record


def current() -> Record | None:
    """Return the record of the request that this thread serves, if it serves one."""
    return _current.get()


def note(**facts: Any) -> None:
    """Add facts to the current request's line, if there is a request."""
    record = _current.get()
    if record is not None:
        record.facts.update(facts)


def spent(name: str, seconds: float) -> None:
    """Say how long a part of the current request took, if there is a request."""
    record = _current.get()
    if record is not None:
        record.stages[name] = record.stages.get(name, 0.0) + seconds


class stage:  # noqa: N801 - it reads as the function it would be if that were not slower
    """Time a part of the current request, all together where it runs several times."""

    __slots__ = ("_began", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent(self._name, time.perf_counter() - self._began)


class _Clock(logging.Formatter):
    """Spells each second once."""

    _spelled: tuple[int, str] = (0, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        second, text = self._spelled
        if second != int(record.created):
            text = super().formatTime(record, datefmt)
            self._spelled = int(record.created), text
        return text


class _Text(_Clock):
    """`2026-01-31 12:00:00 INFO [7] message`, with a request's facts as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", None)
        if facts is not None:
            record.message = record.msg = " ".join(
                f"{name}={value}" for name, value in facts.items()
            )
        return super().format(record)


class _Json(_Clock):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "pid": record.process,
        }
        line.update(getattr(record, "facts", None) or {"message": record.getMessage()})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: int, style: str) -> None:
    """Send every log, the user's scripts' included, to stderr in one format."""
    handler = logging.StreamHandler(sys.stderr)
    text = _Text("%(asctime)s %(levelname)s [%(process)d] %(message)s", "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(_Json() if style == "json" else text)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
