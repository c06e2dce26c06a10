"""A child process for libraries that a hostile file may crash, hang or make hungry.

It is this program again, started when it is first needed and kept. It gets one job at a time, with
a limit on memory and on time; where it dies, the job has failed and nothing else has.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skserve import privileges
from skserve.formats.message_framing import receive_frame, send_frame
from skserve.machine import addressed, resident

Job = tuple[dict[str, Any], bytes]
Work = Callable[[dict[str, Any], bytes], Job]

# Bytes in the facts of a job, of which columns of text are a part.
_FACTS_LIMIT = 1 << 40

# Bytes of memory with which a child is not kept for the next job.
_KEPT_BELOW = 512 << 20


class SandboxError(Exception):
    """The child died, took too long, or took too much memory over a job."""


# Not by -m: the child finds us where we are, however the parent did.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from {} import ready; from {} import main; main(ready())"
)


class Sandbox:
    """A child that does jobs for any number of threads, one after the other.

    What does them is returned by `ready` of `module`, which first imports all that they need.
    """

    def __init__(self, module: str, timeout: float = 20) -> None:
        start = _START.format(module, __name__)
        folder = str(Path(__file__).parent.parent)
        self._command = [sys.executable, "-P", "-c", start, folder]
        self._timeout = timeout  # seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._end: socket.socket | None = None  # what we say goes in here, what it says comes out
        self._owner = 0

    def ask(self, facts: dict[str, Any], body: bytes, memory: int) -> Job:
        """Do a job within `memory` bytes more than an idle child has. Raises SandboxError."""
        with self._lock:
            child, end = self._ready()
            timer = threading.Timer(self._timeout, child.kill)
            timer.daemon = True
            timer.start()
            try:
                send_frame(end, {**facts, "memory": memory}, body)
                done, result = _received(end)
                if done.pop("last"):
                    self._child = None
                    child.wait()
                return done, result
            except (OSError, EOFError) as error:
                child.kill()
                status = child.wait()
                raise SandboxError(f"its reader ended with {status}") from error
            finally:
                timer.cancel()

    @property
    def pid(self) -> int | None:
        """The child's process id, if there is a child."""
        return self._child.pid if self._child else None

    def _ready(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Return the child and our end of its socket.

        A new one if there is none that lives, or it is another process's.
        """
        child, end, ours = self._child, self._end, self._owner == os.getpid()
        if child is None or end is None or not ours or child.poll() is not None:
            if end is not None:
                end.close()
            end, other = socket.socketpair()
            with other:
                child = subprocess.Popen(
                    self._command,
                    stdin=other.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the server; the socket then ends
                )
            self._child, self._end, self._owner = child, end, os.getpid()
        return child, end


def main(work: Work) -> None:
    """Do jobs from the socket that is stdin until it ends.

    Whatever `work` raises goes back as `{"error": ...}`.
    """
    end = socket.socket(fileno=os.dup(0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    privileges.shield()
    with contextlib.suppress(EOFError):
        last = False
        while not last:
            facts, body = _received(end)
            _limit(facts["memory"])
            try:
                done, result = work(facts, body)
            except MemoryError:
                done, result = {"error": "memory"}, b""
            except Exception as error:
                done, result = {"error": f"{type(error).__name__}: {error}"[:300]}, b""
            _limit(None)
            last = resident() > _KEPT_BELOW
            send_frame(end, {**done, "last": last}, result)


def _limit(more: int | None) -> None:
    """Bound the address space to what it is now and `more` bytes; None lifts the bound."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = hard
    if more is not None:
        soft = addressed() + more
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _received(end: socket.socket) -> Job:
    """Receive one job, or the answer to it. Raises EOFError."""
    frame = receive_frame(end, head_limit=_FACTS_LIMIT)
    if frame is None:
        raise EOFError
    return frame
