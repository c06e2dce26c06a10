"""What a request cost, said in one line of the log.

`stage` times a part of the current request, wherever in the program that part runs; the line is
written by the code that began the `Record`. The log is stdout and stderr, as SageMaker collects
them.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

log = logging.getLogger("skserve")
_requests = logging.getLogger("skserve.requests")

STDERR = 2


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
        # Not by the logger: its record, formatter and lock cost as much as a small model's answer.
        # One call, so that no two lines mix; a log that is gone is no reason to fail.
        with suppress(OSError):
            os.write(STDERR, _style.line(line).encode(errors="backslashreplace"))


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


class _Text(logging.Formatter):
    """`2026-01-31 12:00:00 INFO [7] message`, with a request's facts as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s [%(process)d] %(message)s", "%Y-%m-%d %H:%M:%S")
        self._spelled = 0, ""

    def line(self, facts: dict[str, Any]) -> str:
        """Write the line of a request; each second is spelled once."""
        second, now = self._spelled
        if second != int(time.time()):
            second = int(time.time())
            now = time.strftime(self.datefmt or "", time.localtime(second))
            self._spelled = second, now
        said = " ".join([f"{name}={value}" for name, value in facts.items()])
        return f"{now} INFO [{os.getpid()}] {said}\n"


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {"message": record.getMessage()}
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return self._whole(record.created, record.levelname, said)

    def line(self, facts: dict[str, Any]) -> str:
        """Write the line of a request."""
        return self._whole(time.time(), "INFO", facts) + "\n"

    def _whole(self, at: float, level: str, said: dict[str, Any]) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at))
        head = {"time": now, "level": level, "pid": os.getpid()}
        return json.dumps(head | said, default=str)


_style: _Text | _Json = _Text()


def configure(level: int, style: str) -> None:
    """Send every log, the user's scripts' included, to stderr in one format."""
    global _style
    _style = _Json() if style == "json" else _Text()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_style)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
