"""What a request costs the server grows with its bytes, whichever decoder or header has them.

Measured from outside, as CPU time of the server's processes; the bodies are those of one model.
"""

from __future__ import annotations

import gzip
import io
import os
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Server
from tests.servers import children

MOST = 2.5  # times the work for twice the bytes
REST = 0.05  # seconds: of a request that is cheap at any size the clock of the kernel says nothing
SIZE = 32 << 10  # bytes of a body, or so
HEAD = 3500  # bytes of a header

TICK = os.sysconf("SC_CLK_TCK")

JSON, CSV = "application/json", "text/csv"


def post(body: bytes, kind: str, *fields: str) -> bytes:
    lines = ["POST /invocations HTTP/1.1", "Host: x", "Connection: close", f"Content-Type: {kind}"]
    lines += [*fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def keys(size: int) -> dict[str, int]:
    return {f"k{at}": 1 for at in range(size // 10)}


def npz(size: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for at in range(size // 120):
            archive.writestr(f"{at}.npy", b"\x93NUMPY")
    return stream.getvalue()


def npy(size: int) -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 3), }" + b" " * size + b"\n"
    return b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(24)


def columns(size: int) -> pa.Table:
    return pa.table({f"c{at}": [1.0] for at in range(size // 100)})


def parquet(size: int) -> bytes:
    stream = io.BytesIO()
    pq.write_table(columns(size), stream)
    return stream.getvalue()


def arrow(size: int) -> bytes:
    stream, table = io.BytesIO(), columns(size)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def recordio(size: int) -> bytes:
    feature = b"\x0a\x04\x0a\x01a\x12\x00"  # an entry with the name a, without a tensor
    record = feature * (size // len(feature))
    padding = bytes(-len(record) % 4)
    return 0xCED7230A.to_bytes(4, "little") + len(record).to_bytes(4, "little") + record + padding


def chunks(size: int) -> bytes:
    head = post(b"", CSV).partition(b"Content-Length")[0]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n1\r\n" * (size // 6) + b"0\r\n\r\n"


ROW = b"1,2,3"
REQUESTS: dict[str, Callable[[int], bytes]] = {
    "csv: two names repeated": lambda n: post(b"a,b," * (n // 4) + b"\n1,2\n", CSV),
    "csv: unknown names": lambda n: post(
        b",".join(b"c%d" % at for at in range(n // 6)) + b"\n1\n", f"{CSV}; header=present"
    ),
    "csv: quotes": lambda n: post(b'"' * n, CSV),
    "csv: empty lines": lambda n: post(b"\n" * n, CSV),
    "json: keys of one record": lambda n: post(orjson.dumps([keys(n)]), JSON),
    "json: names in columns": lambda n: post(
        orjson.dumps({"columns": ["a", "b"] * (n // 8), "data": [[1] * (n // 4)]}), JSON
    ),
    "json: depth": lambda n: post(b"[" * n, JSON),
    "json: blanks": lambda n: post(b"[[1" + b"] " * (n // 2), JSON),
    "json lines: keys": lambda n: post(orjson.dumps(keys(n)), "application/jsonlines"),
    "npy: a long header": lambda n: post(npy(n), "application/x-npy"),
    "npz: entries": lambda n: post(npz(n), "application/x-npz"),
    "libsvm: columns": lambda n: post(b"1" + b" 1:1" * (n // 4), "text/libsvm"),
    "recordio: features": lambda n: post(recordio(n), "application/x-recordio-protobuf"),
    "parquet: columns": lambda n: post(parquet(n), "application/x-parquet"),
    "arrow: columns": lambda n: post(arrow(n), "application/vnd.apache.arrow.stream"),
    "gzip: members": lambda n: post(gzip.compress(b"") * (n // 20), CSV, "Content-Encoding: gzip"),
    "chunks of a byte": chunks,
    "accept: a quote that never ends": lambda n: post(ROW, CSV, 'Accept: "' + '\\"' * (n // 2)),
    "accept: ranges": lambda n: post(ROW, CSV, "Accept: " + "a/b," * (n // 4)),
    "accept: parameters": lambda n: post(ROW, CSV, "Accept: a/b" + ";c=d" * (n // 4)),
    "content type: parameters": lambda n: post(ROW, CSV + ";a=b" * (n // 4)),
    "content type: quotes": lambda n: post(ROW, CSV + ';a="' + '\\"' * (n // 2)),
    "content encoding": lambda n: post(ROW, CSV, "Content-Encoding: " + "gzip," * (n // 5)),
    "accept encoding": lambda n: post(ROW, CSV, "Accept-Encoding: " + "gzip;q=0," * (n // 9)),
    "attributes": lambda n: post(
        ROW, CSV, "X-Amzn-SageMaker-Custom-Attributes: " + "a=b;" * (n // 4)
    ),
    "fields": lambda n: post(ROW, CSV, *(f"x{at}: 1" for at in range(min(90, n // 50)))),
    "query": lambda n: (
        b"GET /ping?" + b"a=b&" * (n // 4) + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ),
    "target: escapes": lambda n: (
        b"GET /" + b"%41" * (n // 3) + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ),
}
IN_THE_HEAD = ("accept", "content", "attributes", "fields", "query", "target")


@pytest.fixture
def server(servers) -> Server:
    return servers("named")


def family(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from family(int(child))


def used(server: Server) -> float:
    """Return the CPU seconds of the worker, and of the children that read columns for it."""
    total = 0
    for pid in family(children(server)[0]):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def cost(server: Server, request: bytes) -> float:
    """Return the least CPU time of three tries; an answer must come."""
    best = np.inf
    for _ in range(3):
        began = used(server)
        port = int(server.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            client.sendall(request)
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 ")
        best = min(best, used(server) - began)
        if best == 0:
            break
    return float(best)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_costs_what_it_weighs(server, name):
    size = HEAD if name.startswith(IN_THE_HEAD) else SIZE
    made = REQUESTS[name]
    assert len(made(2 * size)) > 1.5 * len(made(size)) or name == "fields"

    once, twice = cost(server, made(size)), cost(server, made(2 * size))

    assert twice <= MOST * once + REST, f"{once} s, then {twice} s"
