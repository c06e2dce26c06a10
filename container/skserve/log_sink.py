"""Where the log goes, which never waits for its reader.

A line for which there is no room is dropped and counted, so a log that is not read holds up no
request and no end.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress

STDERR = 2

# Seconds that a burst of what models and scripts print may wait for the reader of the log.
BURST = 0.05


class Sink:
    """Where the lines go: descriptor 2. From `open` on, which is for a server, writing never waits.

    Open it again where descriptor 2 has become another file.
    """

    def __init__(self) -> None:
        self.notice: Callable[[str], bytes] = lambda text: f"{text}\n".encode()  # a line of the log
        self.dropped: Callable[[int], None] = lambda lines: None  # is told what is dropped
        self._lost, self._lock = 0, threading.Lock()
        self._cut = False  # the last line that was taken has no end
        self._send: Callable[[bytes], int] = lambda data: os.write(STDERR, data)

    def open(self) -> None:
        """Find out how to write to descriptor 2 without waiting.

        A pipe or a terminal is opened a second time, because the flag not to wait would else be
        that of everybody who shares it, a shell for one. A file never makes a writer wait.
        """
        with suppress(OSError):
            mode = os.fstat(STDERR).st_mode
            if stat.S_ISSOCK(mode):
                end = socket.socket(fileno=os.dup(STDERR))
                self._send = lambda data: end.send(data, socket.MSG_DONTWAIT)
            elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
                self._send = self._when_ready
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                own = os.open(f"/proc/self/fd/{STDERR}", flags)
                self._send = lambda data: os.write(own, data)
            else:
                self._send = lambda data: os.write(STDERR, data)

    @staticmethod
    def _when_ready(data: bytes) -> int:
        """Write as much as surely fits, where the pipe is another user's."""
        if not _room(0):
            raise BlockingIOError
        return os.write(STDERR, data[: select.PIPE_BUF])

    def write(self, data: bytes, patience: float = 0.0) -> None:
        """Write whole lines at once, so that those of two processes do not mix, or drop them.

        A burst may wait for its reader, `patience` seconds, unless lines have been dropped before.
        """
        lost, until = self._lost, 0.0
        if lost:
            data = self.notice(f"{lost} lines were dropped: the log was not read.") + data
        rest = b"\n" + data if self._cut else data
        while rest:
            try:
                done = self._send(rest)
            except BlockingIOError:
                until = until or time.monotonic() + patience
                if lost or (left := until - time.monotonic()) <= 0 or not _room(left):
                    break
            except OSError:  # the log is gone, which is no reason to fail
                break
            else:
                self._cut = done < len(rest) and rest[done - 1 : done] != b"\n"
                rest = rest[done:]
        if lost or rest:
            self._count(rest.count(b"\n"), lost if len(rest) < len(data) else 0)

    def _count(self, dropped: int, told: int) -> None:
        """Count lines that were dropped, and leave out those that the log was told of."""
        with self._lock:
            self._lost += dropped - told
        if dropped:
            self.dropped(dropped)


def _room(seconds: float) -> bool:
    """Wait until stderr takes more, or has no reader any more; return whether it does."""
    writable = select.poll()
    writable.register(STDERR, select.POLLOUT)
    return bool(writable.poll(seconds * 1000))


sink = Sink()
