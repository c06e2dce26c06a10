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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("skserve")
_requests = logging.getLogger("skserve.requests")


@dataclass
class Record:
    """The facts of one request: `stages` in milliseconds, `facts` such as rows and bytes."""

    request_id: str
    began: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, **facts: Any) -> None:
        """Write the line."""
        if not _requests.isEnabledFor(logging.INFO):
            return
        total = (time.perf_counter() - self.began) * 1e3
        line = {**facts, **self.facts, **self.stages, "total_ms": round(total, 2)}
        line["id"] = self.request_id
        _requests.info("request", extra={"facts": line})


_current: contextvars.ContextVar[Record | None] = contextvars.ContextVar("record", default=None)


def begin(request_id: str) -> Record:
    """Start the record of the request that this thread, or context, now serves."""
    record = Record(request_id)
    _current.set(record)
    return record


def note(**facts: Any) -> None:
    """Add facts to the current request's line, if there is a request."""
    record = _current.get()
    if record is not None:
        record.facts.update(facts)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time a part of the current request."""
    record = _current.get()
    if record is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        record.stages[f"{name}_ms"] = round((time.perf_counter() - began) * 1e3, 2)


class _Text(logging.Formatter):
    """`2026-01-31 12:00:00 INFO [7] message`, with a request's facts as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", None)
        if facts is not None:
            record.message = record.msg = " ".join(
                f"{name}={value}" for name, value in facts.items()
            )
        return super().format(record)


class _Json(logging.Formatter):
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
