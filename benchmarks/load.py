"""The callers: a closed loop of some of them, or an open loop of so many requests a second.

In a closed loop each caller sends its next request when it has its answer, so a slow server is
asked less. In an open loop requests are due at fixed times whatever the server does, and latency
counts from the time a request was due, so that what waits because others are slow is counted too.

Both run in a process of their own. The closed loop is wrk where it is installed; the rest is the
generator below: `python -m benchmarks.load` reads an order as JSON and prints an `Outcome`.
"""

from __future__ import annotations

import json
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

WRK = shutil.which("wrk")
PATIENCE = 60  # seconds for one answer
OPEN_CALLERS = 256  # connections that an open loop may use
LOST, REFUSED = 0, 503  # statuses
DRAIN = 3  # seconds after an open loop in which late answers still count


@dataclass(frozen=True)
class Load:
    """How many callers, and for an open loop the requests a second of all of them together."""

    callers: int
    rate: float | None = None

    def __str__(self) -> str:
        if self.rate is not None:
            return f"{self.rate:,.0f}/s"
        return f"{self.callers} caller" + "s" * (self.callers > 1)


@dataclass(frozen=True)
class Outcome:
    """What the callers saw. Latencies are those of good answers; `errors` are all others.

    In an open loop latencies begin when a request was due, which the callers may be too few to send
    then; 99 % came within `sent_p99_ms` of being sent. Of the errors `refused` were a 503, half of
    them within `refused_ms` of being sent, and `lost` were on a connection that ended without an
    answer. wrk does not tell them apart.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    refused: int = 0
    refused_ms: float = 0.0
    lost: int = 0
    sent_p99_ms: float = 0.0


@dataclass(frozen=True)
class Order:
    """What is sent: the bodies in turn, to a port of this machine."""

    port: int
    path: str
    content_type: str
    bodies: Sequence[bytes]


def run(order: Order, load: Load, seconds: float, wrk: str | None = WRK) -> Outcome:
    """Drive a server for some seconds, from another process."""
    with tempfile.NamedTemporaryFile("wb", suffix=".bodies") as bodies:
        for body in order.bodies:
            bodies.write(b"%d\n%b\n" % (len(body), body))
        bodies.flush()
        if wrk and load.rate is None:
            command = [wrk, "-t1", f"-c{load.callers}", f"-d{max(1, round(seconds))}s"]
            command += [f"--timeout={PATIENCE}s", "-s", str(Path(__file__).with_name("wrk.lua"))]
            command += [f"http://127.0.0.1:{order.port}{order.path}", "--"]
            command += [bodies.name, order.content_type]
        else:
            words = (order.port, order.path, order.content_type, bodies.name)
            command = [sys.executable, "-m", "benchmarks.load", *map(str, words)]
            command += [str(seconds), str(load.callers), str(load.rate or "")]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 2 * PATIENCE,
            cwd=Path(__file__).parent.parent,
        )
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


class _Caller:
    """One connection, with at most one request on it."""

    def __init__(self, address: tuple[str, int], selector: selectors.BaseSelector) -> None:
        self._address, self._selector = address, selector
        self.due = self.sent = 0.0
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ, self)
        self._seen = bytearray()
        self._busy = False
        self._end = 0  # bytes in the whole answer, once its head is there

    def send(self, request: bytes, due: float) -> None:
        self.due, self.sent, self._busy = due, time.perf_counter(), True
        self._left = memoryview(request)
        self._write()

    def _write(self) -> None:
        with suppress(OSError):  # reading says what it was
            self._left = self._left[self._socket.send(self._left) :]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._left else 0)
        if self._selector.get_key(self._socket).events != wanted:
            self._selector.modify(self._socket, wanted, self)

    def ready(self, events: int) -> int | None:
        """Take what has come. Return the status once the answer is whole, 0 if none will come."""
        if events & selectors.EVENT_WRITE:
            self._write()
        if not events & selectors.EVENT_READ:
            return None
        try:
            some = self._socket.recv(1 << 18)
        except BlockingIOError:
            return None
        except OSError:
            some = b""
        if not some:
            busy = self._busy
            self._connect_again()
            return LOST if busy else None  # an idle connection may be closed at any time
        self._seen += some
        if not self._end:
            self._end = self._length()
        if not self._end or len(self._seen) < self._end:
            return None
        status = int(self._seen[9:12])
        closing = re.search(rb"(?i)\r\nconnection: *close", self._seen[: self._head])
        if closing or self._seen.startswith(b"HTTP/1.0"):
            self._connect_again()
        self._seen.clear()
        self._end, self._busy = 0, False
        return status

    def _length(self) -> int:
        self._head = self._seen.find(b"\r\n\r\n") + 4
        if self._head < 4:
            return 0
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self._seen[: self._head])
        if length:
            return self._head + int(length[1])
        return len(self._seen) if self._seen.endswith(b"0\r\n\r\n") else 0  # the end of chunks

    def _connect_again(self) -> None:
        self.close()
        self._connect()

    def close(self) -> None:
        self._selector.unregister(self._socket)
        self._socket.close()


def generate(order: Order, load: Load, seconds: float) -> Outcome:
    """Drive a server from this process."""
    head = (
        f"POST {order.path} HTTP/1.1\r\nHost: 127.0.0.1:{order.port}\r\n"
        f"Content-Type: {order.content_type}\r\nAccept: application/json\r\n"
    )
    requests = [
        f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in order.bodies
    ]
    selector = selectors.DefaultSelector()
    address = ("127.0.0.1", order.port)
    count = load.callers if load.rate is None else min(load.callers, max(1, int(load.rate)))
    idle = deque(_Caller(address, selector) for _ in range(count))
    every = list(idle)
    took: list[float] = []
    since_sent: list[float] = []
    refused: list[float] = []
    sent = bad = lost = 0
    began = time.perf_counter()
    ending = began + seconds
    last = ending if load.rate is None else ending + DRAIN
    total = None if load.rate is None else int(load.rate * seconds)
    while (now := time.perf_counter()) < last and (total is None or len(took) + bad < total):
        wake = last
        while idle and sent != total:
            due = now if load.rate is None else began + sent / load.rate
            if due > now:
                wake = due
                break
            idle.popleft().send(requests[sent % len(requests)], due)
            sent += 1
        for key, events in selector.select(max(0.0, wake - now)):
            status = key.data.ready(events)
            if status is None:
                continue
            idle.append(key.data)
            if status == 200:
                took.append(time.perf_counter() - key.data.due)
                since_sent.append(time.perf_counter() - key.data.sent)
                continue
            bad += 1
            lost += status == LOST
            if status == REFUSED:
                refused.append(time.perf_counter() - key.data.sent)
    errors = bad if total is None else total - len(took)  # what was never answered is none either
    for caller in every:
        caller.close()
    p50, p99, middle = _at(took, 0.5), _at(took, 0.99), _at(refused, 0.5)
    sent_p99 = _at(since_sent, 0.99)
    return Outcome(len(took), seconds, p50, p99, errors, len(refused), middle, lost, sent_p99)


def _at(took: list[float], part: float) -> float:
    """Return the milliseconds within which that part of all was over."""
    return 1e3 * sorted(took)[int(part * len(took))] if took else 0.0


def _bodies(path: str) -> list[bytes]:
    found = []
    with Path(path).open("rb") as file:
        while length := file.readline():
            found.append(file.read(int(length)))
            file.read(1)
    return found


def main(arguments: Sequence[str]) -> None:
    port, path, content_type, bodies, seconds, callers, rate = arguments
    order = Order(int(port), path, content_type, _bodies(bodies))
    load = Load(int(callers), float(rate) if rate else None)
    print(json.dumps(asdict(generate(order, load, float(seconds)))))


if __name__ == "__main__":
    main(sys.argv[1:])
