"""The server as a process: started on a free port, its log, its memory, its end."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from skserve.machine import resident
from skserve.selftest.client import Client

START_LIMIT = 480.0  # seconds: SageMaker gives a container 8 minutes until its first good ping
STOP_LIMIT = 30.0  # seconds from SIGTERM until SageMaker kills

# The log is read here, so it is text, and whole.
_READABLE = {"SKSERVE_LOG_FORMAT": "text", "SAGEMAKER_CONTAINER_LOG_LEVEL": "20"}


class StartFailed(Exception):
    """The server ended, or did not answer in time; the text is what it said last."""


class Server:
    """`python -m skserve serve` in a process of its own; `environ` is that of this program."""

    def __init__(self, model_dir: Path, environ: Mapping[str, str], log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        self.client, self._log = Client(port), log
        command = [sys.executable, "-m", "skserve", "serve"]
        command += ["--model-dir", str(model_dir), "--port", str(port)]
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, env={**environ, **_READABLE}, stdout=sink, stderr=sink
            )

    def wait(self) -> float:
        """Wait for the first good ping and return the seconds it took. Raises StartFailed."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < START_LIMIT:
            with suppress(OSError, http.client.HTTPException):
                if self.client.ask("GET", "/ping").status == 200:
                    return waited
            if self._process.poll() is not None:
                raise StartFailed(self._last_words() or "The server ended without a word.")
            time.sleep(0.02)
        raise StartFailed(f"/ping was not 200 within {START_LIMIT:.0f} s. {self._last_words()}")

    def log(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()

    def memory(self) -> dict[int, int]:
        """Return the bytes that each process of the server holds, by pid.

        What several processes share counts in parts; where the kernel does not say so of a
        process, it counts whole.
        """
        return {pid: _proportional(pid) or resident(pid) for pid in _family(self._process.pid)}

    def stop(self) -> tuple[int | None, float]:
        """Send SIGTERM; return the exit status, None where it does not end, and the seconds."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT)
        return self._process.returncode, time.monotonic() - began

    def end(self) -> None:
        """Kill what still runs."""
        if self._process.poll() is None:
            for pid in _family(self._process.pid):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def _last_words(self) -> str:
        """Return the sentence that a start failed with, or else the end of the log."""
        lines = self.log()
        sentences = [line for line in lines if line.startswith("skserve: ")]
        return sentences[-1].removeprefix("skserve: ") if sentences else " ".join(lines[-3:])


def _family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in brackets may hold spaces and brackets of its own.
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    family = [pid]
    for one in family:
        family += [child for child, parent in parents.items() if parent == one]
    return family


def _proportional(pid: int) -> int:
    """Return the bytes of a process, of shared pages its part; 0 where that cannot be read."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0
