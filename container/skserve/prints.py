"""What scripts and models print: each line arrives in the log, with where it came from."""

from __future__ import annotations

import io
import sys
from typing import Any

from skserve import logs


class _Printed(io.BufferedIOBase):
    """What stands below `sys.stdout` or `sys.stderr`: each line goes to the sink with a name."""

    def __init__(self, source: str, descriptor: int) -> None:
        self._source, self._descriptor = source, descriptor
        self._begun = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        *lines, self._begun = (self._begun + bytes(data)).split(b"\n")
        for one in lines:
            text = one.decode(errors="backslashreplace").rstrip("\r")
            logs.printed(self._source, text)
        return len(data)


def label_prints() -> None:
    """Let what is printed arrive in lines of the log."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        below: Any = _Printed(name, descriptor)
        text = io.TextIOWrapper(below, "utf-8", "backslashreplace", line_buffering=True)
        setattr(sys, name, text)
