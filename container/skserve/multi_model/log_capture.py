"""What the process of a model prints, on its way into the log.

Each model writes into a pipe of its own, and so cannot hold up the log of the others. A line gets
the model's name; a model that prints more than its share has the rest thrown away, and counted.
"""

from __future__ import annotations

import json
import os
import time
from urllib.parse import quote

from skserve.log_sink import BURST as PATIENCE
from skserve.log_sink import sink

# Bytes that one model may print: at once, and then each second.
BURST = 1 << 20
RATE = 256 << 10

# Seconds without output after which it is said how much was thrown away.
QUIET = 1

# Reads of a pipe that take all it holds, at its largest.
READ = 64 << 10
READS = BURST // READ

# Bytes after which a line is cut, and characters of a name that are shown.
LINE_LIMIT = 16 << 10
NAME_LIMIT = 80


def shown(name: str) -> str:
    """Return a model's name for the log: no byte of it can break a line or look like another."""
    quoted = quote(name, safe="", errors="surrogateescape")
    return quoted if len(quoted) <= NAME_LIMIT else quoted[:NAME_LIMIT] + "..."


class LogCapture:
    """The reading end of one model's pipe."""

    def __init__(self, descriptor: int, name: str, style: str) -> None:
        self.descriptor = descriptor
        self._name, self._json = shown(name), style == "json"
        self._begun = b""  # a line without its end yet
        self._allowance, self._seen = float(BURST), time.monotonic()
        self._dropped = 0

    def forward(self) -> bool:
        """Pass on what is there. Returns False once every writing end of the pipe is closed."""
        try:
            data = os.read(self.descriptor, READ)
        except BlockingIOError:
            return True
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._seen) * RATE)
        self._seen = now
        if len(data) > self._allowance:
            self._dropped += len(data)
            return True
        self._allowance -= len(data)
        if self._dropped and data:
            self._say_dropped()
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > LINE_LIMIT:
            lines, self._begun = [*lines, self._begun], b""
        self._write(lines)
        return bool(data)

    @property
    def due(self) -> float | None:
        """When to say what was thrown away, unless more is printed until then."""
        return self._seen + QUIET if self._dropped else None

    def keep_time(self, now: float) -> None:
        """Say what was thrown away, if that is due."""
        if self.due is not None and self.due <= now:
            self._say_dropped()

    def close(self) -> None:
        """Pass on what is left when the process has ended."""
        for _ in range(READS):  # more does not fit into a pipe; who still prints is not waited for
            if not self._drains():
                break
        if self._dropped:
            self._say_dropped()
        if self._begun:
            self._write([self._begun])
        os.close(self.descriptor)

    def _drains(self) -> bool:
        """Read on, unless the pipe is empty: a process that the model has left may hold it open."""
        before = self._seen
        return self.forward() and self._seen != before

    def _say_dropped(self) -> None:
        text = f"{self._dropped:,} bytes of output dropped: more than {RATE >> 10} KiB a second"
        self._dropped = 0
        self._write([text.encode()])

    def _write(self, lines: list[bytes]) -> None:
        tagged = b"".join(self._tagged(line) for line in lines)
        if tagged:
            sink.write(tagged, PATIENCE)

    def _tagged(self, line: bytes) -> bytes:
        """Add the name: in front, or into the JSON object that the line is or becomes."""
        if not self._json:
            return f"[{self._name}] ".encode() + line + b"\n"
        head = json.dumps({"model": self._name})
        if line.startswith(b'{"time"'):  # a line of our own log
            return head[:-1].encode() + b", " + line[1:] + b"\n"
        text = {"model": self._name, "message": line.decode(errors="replace")}
        return json.dumps(text).encode() + b"\n"
