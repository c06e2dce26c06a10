"""A child process for libraries that a hostile file may crash, hang or make hungry.

It is this program again, started when it is first needed and kept. It gets one job at a time, with
a limit on memory and on time; where it dies, the job has failed and nothing else has.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import orjson

Job = tuple[dict[str, Any], bytes]
Work = Callable[[dict[str, Any], bytes], Job]

_HEAD = struct.Struct("<QQ")

# Bytes of memory with which a child is not kept for the next job.
_TIRED = 512 << 20


class HelperError(Exception):
    """The child died, took too long, or took too much memory over a job."""


# Not by -m: the child finds us where we are, however the parent did.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from {} import ready; from {} import main; main(ready())"
)


class Helper:
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
        self._owner = 0

    def ask(self, facts: dict[str, Any], body: bytes, memory: int) -> Job:
        """Have a job done within `memory` bytes more than an idle child has. Raises HelperError."""
        with self._lock:
            child = self._ready()
            assert child.stdin is not None
            assert child.stdout is not None
            timer = threading.Timer(self._timeout, child.kill)
            timer.daemon = True
            timer.start()
            try:
                _send(child.stdin, {**facts, "memory": memory}, body)
                done, result = _received(child.stdout)
                if done.pop("last"):
                    self._child = None
                    child.communicate()
                return done, result
            except (OSError, EOFError) as error:
                child.kill()
                status = child.wait()
                raise HelperError(f"its reader ended with {status}") from error
            finally:
                timer.cancel()

    @property
    def pid(self) -> int | None:
        """The child's process id, if there is a child."""
        return self._child.pid if self._child else None

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return the child, a new one if there is none that lives, or it is another process's."""
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server; the pipe then ends
            )
            self._owner = os.getpid()
        return self._child


def main(work: Work) -> None:
    """Do jobs from stdin until it ends. Whatever `work` raises goes back as `{"error": ...}`."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a library that prints must not speak in between
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError):
        last = False
        while not last:
            facts, body = _received(source)
            _limit(facts["memory"])
            try:
                done, result = work(facts, body)
            except MemoryError:
                done, result = {"error": "memory"}, b""
            except Exception as error:
                done, result = {"error": f"{type(error).__name__}: {error}"[:300]}, b""
            _limit(None)
            last = _pages()[1] * resource.getpagesize() > _TIRED
            _send(sink, {**done, "last": last}, result)


def _limit(more: int | None) -> None:
    """Bound the address space to what it is now and `more` bytes; None lifts the bound."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = hard
    if more is not None:
        soft = _pages()[0] * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _pages() -> list[int]:
    """Return in pages what this process has of addresses, of memory, and other sizes."""
    return [int(word) for word in Path("/proc/self/statm").read_text().split()]


def _send(pipe: BinaryIO | Any, facts: dict[str, Any], body: bytes) -> None:
    head = orjson.dumps(facts)
    pipe.write(_HEAD.pack(len(head), len(body)))
    pipe.write(head)
    pipe.write(body)
    pipe.flush()


def _received(pipe: BinaryIO | Any) -> Job:
    """Read one job, or the answer to it. Raises EOFError."""
    sizes = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    head, body = (_exactly(pipe, size) for size in sizes)
    return orjson.loads(head), body


def _exactly(pipe: BinaryIO | Any, size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return bytes(data)
