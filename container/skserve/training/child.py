"""The child process that trains, and this one, which looks after it.

As process 1 of a container we must do what an init does: hand on signals, which the kernel would
otherwise drop, and reap orphans. Signals are blocked and fetched one by one, so that none can come
between two looks. The child's stdout is ours; its stderr passes through here unchanged, because its
last lines are the reason why a job failed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skserve.machine import resident

log = logging.getLogger("skserve")

# SIGTERM comes 120 seconds before SIGKILL (contract 6.1); the rest is for the failure file.
GRACE = 115
HEARTBEAT = 30  # seconds

FORWARDED = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
_WATCHED = FORWARDED | {signal.SIGCHLD}
_TAIL = 8 << 20  # bytes of stderr that are kept: a message may quote a whole table
_LEFTOVERS = 2  # seconds that what the child leaves running gets to end by itself


@dataclass(frozen=True)
class Ended:
    """How the child ended: `status` is its exit code, or minus the signal that ended it.

    `stopped` says that SIGTERM or SIGINT came from outside, `overdue` that the grace was used up.
    """

    status: int
    seconds: float
    stopped: bool
    overdue: bool
    said: str  # the end of its stderr
    peak: int  # bytes of memory at the most


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    folder: Path,
    grace: float = GRACE,
    heartbeat: float = HEARTBEAT,
) -> Ended:
    """Run `command` in `folder` until it ends, or until `grace` seconds after it was told to.

    Raises OSError or ValueError where it cannot be started.
    """
    # For good: what comes after the child has ended is too late to matter.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    reader, writer = os.pipe()
    try:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stderr=writer,
            start_new_session=True,  # so that what it leaves behind can be found
            preexec_fn=_unblocked,
        )
    finally:
        os.close(writer)
    stderr = _Passed(reader)
    ended = _watch(child.pid, grace, heartbeat)
    child.returncode = ended.status  # reaped by us; subprocess must not look for it
    _end_leftovers(child.pid, stderr)
    return replace(ended, said=stderr.tail())


def _unblocked() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)


def _watch(child: int, grace: float, heartbeat: float) -> Ended:
    """Forward signals, reap, and say every `heartbeat` seconds that the child lives."""
    began = time.monotonic()
    beat, deadline = began + heartbeat, float("inf")
    overdue = False
    while True:
        for pid, status, peak in _reaped():
            if pid == child:
                seconds = time.monotonic() - began
                return Ended(status, seconds, deadline < float("inf"), overdue, "", peak)
        now = time.monotonic()
        if now >= deadline and not overdue:
            overdue = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        if now >= beat:
            beat += heartbeat * (1 + (now - beat) // heartbeat)
            _say_alive(child, now - began)
        until = beat if overdue else min(beat, deadline)
        got = signal.sigtimedwait(_WATCHED, max(0.0, until - now))
        if got is None or got.si_signo == signal.SIGCHLD:
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, got.si_signo)
        if got.si_signo in (signal.SIGTERM, signal.SIGINT) and deadline == float("inf"):
            deadline = time.monotonic() + grace
            log.info(
                "%s: the training has %.0f s to save what it has.",
                signal.Signals(got.si_signo).name,
                grace,
            )


def _reaped() -> list[tuple[int, int, int]]:
    """Return (pid, status, peak memory in bytes) of every process that has ended."""
    found: list[tuple[int, int, int]] = []
    while True:
        try:
            pid, raw, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, os.waitstatus_to_exitcode(raw), usage.ru_maxrss << 10))


def _say_alive(child: int, seconds: float) -> None:
    """Say how long the child has run, the CPU time it took, and the memory it holds."""
    try:
        stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return  # it has ended meanwhile
    ticks = sum(int(field) for field in stat[11:15])  # its own and its children's
    log.info(
        "still training after %s: %.0f s of CPU, %.0f MiB",
        clock(seconds),
        ticks / os.sysconf("SC_CLK_TCK"),
        resident(child) / 2**20,
    )


def clock(seconds: float) -> str:
    """Write seconds as 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _end_leftovers(group: int, stderr: _Passed) -> None:
    """End what the child has left running, which could still write into the model."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        if stderr.done(_LEFTOVERS):
            return


class _Passed:
    """A stream that is handed on byte by byte, and whose end is remembered."""

    def __init__(self, source: int) -> None:
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._thread = threading.Thread(target=self._pass, args=(source,), daemon=True)
        self._thread.start()

    def done(self, patience: float) -> bool:
        """Wait until the last writer has closed the stream."""
        self._thread.join(patience)
        return not self._thread.is_alive()

    def tail(self) -> str:
        """Return the end of what passed."""
        return b"".join(self._chunks)[-_TAIL:].decode("utf-8", "replace")

    def _pass(self, source: int) -> None:
        while chunk := self._read(source):
            view = memoryview(chunk)
            with contextlib.suppress(OSError):  # our stderr is not read: the child goes on
                while view:
                    view = view[os.write(2, view) :]
            self._chunks.append(chunk)
            self._held += len(chunk)
            while self._held - len(self._chunks[0]) >= _TAIL:
                self._held -= len(self._chunks.popleft())

    @staticmethod
    def _read(source: int) -> bytes:
        try:
            return os.read(source, 1 << 16)
        except OSError:
            return b""
