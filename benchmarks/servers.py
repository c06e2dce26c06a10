"""Starting a server, asking it, and ending it with every process that it has made."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import load, measure, models
from benchmarks.models import Case

ROOT = Path(__file__).parent.parent
START_LIMIT = 120  # seconds
END_LIMIT = 10
JSON = "application/json"

# Set for a server only where its definition says so. Compiled modules are kept, as in an image.
UNSET = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")


class Failed(Exception):
    """A server could not be installed or started, or has answered wrongly."""


@dataclass(frozen=True)
class Setup:
    """What a server is started with. `scratch` is an empty folder of its own."""

    case: Case
    port: int
    scratch: Path
    workers: int
    python: Path


@dataclass(frozen=True)
class Server:
    """One way to serve a model: how it starts, how it is asked, how it answers."""

    name: str
    start: Callable[[Setup], Sequence[str | Path]]
    environ: Callable[[Setup], Mapping[str, str]] = lambda setup: {}
    path: str = "/invocations"
    ask: Callable[[np.ndarray], bytes] = models.body
    read: Callable[[Any], np.ndarray] = np.asarray
    answers: bool = True  # False: a floor, which says the same to everyone
    needs: Sequence[str] = ()  # programs
    prepare: Callable[[Setup], None] = lambda setup: None  # before the clock of its start runs
    named: bool = False  # a peer that takes records of named columns
    url: Callable[[Case], str] | None = None  # of many models: where it is told to load one from


@dataclass(frozen=True)
class Running:
    """A server that answers; `ready` is how many seconds that took from its start."""

    server: Server
    case: Case
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    ready: float

    def tree(self) -> list[measure.Process]:
        return measure.tree(self.process.pid)

    def order(self, bodies: Sequence[bytes] = (), content_type: str = JSON) -> load.Order:
        """Return what to send in a measurement: the case's rows one by one, or these bodies."""
        bodies = bodies or [self.server.ask(row[None]) for row in self.case.rows]
        return load.Order(self.port, self.server.path, content_type, bodies)

    def check(self, count: int = models.ASKED, callers: int = 8) -> None:
        """Ask for so many rows, several at the same moment. Raises Failed at a wrong answer."""
        with ThreadPoolExecutor(callers) as pool:
            rows = range(min(count, len(self.case.rows)))
            wrong = [why for why in pool.map(self._wrong, rows) if why]
        if wrong:
            raise Failed(f"{len(wrong)} of {len(rows)} answers are wrong; one: {wrong[0]}")

    def _wrong(self, row: int) -> str | None:
        one = slice(row, row + 1)
        status, body = post(self.port, self.server.path, self.server.ask(self.case.rows[one]))
        if status != 200:
            return f"{status} {body[:300]!r}"
        return None if good(self.server, body, self.case, one) else f"row {row}: {body[:300]!r}"


def good(server: Server, body: bytes, case: Case, rows: slice) -> bool:
    """Whether an answer's numbers are right for these rows."""
    if not server.answers:
        return True
    try:
        seen = np.asarray(server.read(json.loads(body)), dtype=float)
        return models.equal(seen.reshape(len(case.answers[rows]), -1), case, rows)
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def add(port: int, name: str, url: str) -> None:
    """Load a model into a server of many. Raises Failed, and OSError."""
    status, said = post(port, "/models", json.dumps({"model_name": name, "url": url}).encode())
    if status != 200:
        raise Failed(f"{name} was not loaded: {status} {said[:300]!r}")


def post(port: int, path: str, body: bytes, content_type: str = JSON) -> tuple[int, bytes]:
    """Send one request on a connection of its own. Raises OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=load.PATIENCE)
    try:
        headers = {"Content-Type": content_type, "Accept": JSON}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(repr(error)) from error
    finally:
        connection.close()


@contextmanager
def serving(
    server: Server,
    case: Case,
    logs: Path,
    *,
    python: Path,
    workers: int = 2,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Serve the case's model until the block ends. Raises Failed with the end of the log."""
    for program in server.needs:
        if not shutil.which(program):
            raise Failed(f"{program} is not installed")
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{server.name}-{case.name}.log".replace(" ", "-")
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch:
        setup = Setup(case, free_port(), Path(scratch), workers, python)
        with log.open("wb") as sink:
            server.prepare(setup)
            full = {name: text for name, text in os.environ.items() if name not in UNSET}
            full |= {"PATH": f"{python.parent}:{os.environ['PATH']}", **server.environ(setup)}
            full |= environ or {}
            began = time.perf_counter()
            process = subprocess.Popen(
                [str(word) for word in server.start(setup)],
                env=full,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        try:
            _wait(server, case, process, setup.port, log)
            yield Running(server, case, process, setup.port, log, time.perf_counter() - began)
        finally:
            _end(process)


def _wait(
    server: Server, case: Case, process: subprocess.Popen[bytes], port: int, log: Path
) -> None:
    """Ask until the first row is answered well."""
    body = server.ask(case.rows[:1])
    deadline = time.perf_counter() + START_LIMIT
    said, missing = "", server.url
    while time.perf_counter() < deadline and process.poll() is None:
        try:
            if missing:
                add(port, "m0", missing(case))
                missing = None
            status, answer = post(port, server.path, body)
            if status == 200 and good(server, answer, case, slice(0, 1)):
                return
            said = f"; its last answer: {status} {answer[:300]!r}"
        except OSError:
            pass
        time.sleep(0.005)
    ending = log.read_text(errors="replace")[-1500:]
    raise Failed(f"did not start (status {process.poll()}){said}; its log ends:\n{ending}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and all that it has started, as kindly as they let us."""
    members = measure.tree(process.pid)
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_LIMIT)
    members = list({*members, *measure.tree(process.pid)})
    while members := [one for one in members if measure.lives(one)]:
        for one in members:
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        time.sleep(0.01)
    process.wait()


def free_port() -> int:
    """Return a free port, below those that the kernel gives to callers."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
