"""What tests of running servers share: settings, bodies, sockets, and looks at processes."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

from tests.conftest import Server

ONE = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SKSERVE_THREADS": "1"}


ROW = "[[5.1, 3.5, 1.4, 0.2]]"


HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"


SLEEPY = """
import time
def predict_fn(data, model):
    time.sleep({seconds})
    return model.predict(data)
"""


def children(server: Server) -> list[int]:
    task = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in task.read_text().split()]


def until(condition, patience: float = 60) -> None:
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sockets(pid: int) -> int:
    """Return the number of sockets that a process holds."""
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found += str(descriptor.readlink()).startswith("socket:")
        except OSError:
            continue
    return found


def answer_of(client: socket.socket) -> bytes:
    """Read one answer with a length, and return it all; what there was of it where it broke off."""
    said = b""
    while part := client.recv(1 << 16):
        said += part
        head, found, body = said.partition(b"\r\n\r\n")
        if found and len(body) >= int(re.search(rb"(?i)content-length: (\d+)", head)[1]):
            break
    return said


# A prediction that lasts until there is a file at GATE.
GATED = """
import os, time
def predict_fn(data, model):
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.01)
    return model.predict(data)
"""
