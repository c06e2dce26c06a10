"""Answers in parts: they leave as they come, and end whole, broken, or with their client."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import joblib
import pytest
import requests
from sklearn.linear_model import LinearRegression

from skserve.config import Config
from skserve.errors import ModelFault
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NPY
from skserve.inference.calls import Call
from skserve.inference.model import Model
from tests.conftest import Server, serving
from tests.servers import HEAD, ONE, children, connect, until

PARTS = """
import json, time

class Teapot(Exception):
    status_code = 418

def transform_fn(model, body, content_type, accept, context):
    ask = json.loads(body)
    if "type" in ask:
        context.set_response_content_type(0, ask["type"])
    return parts(ask)

def parts(ask):
    try:
        for number in range(ask["count"]):
            if number == ask.get("fail"):
                raise Teapot("half-way")
            if number == ask.get("hang"):
                time.sleep(60)
            yield "%d," % number + "x" * ask.get("size", 0)
            time.sleep(ask.get("pause", 0))
    finally:
        if "seen" in ask:
            open(ask["seen"], "a").write("closed")
"""


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams") / "model"
    shutil.copytree(models("iris"), folder)
    (folder / "inference.py").write_text(PARTS)
    with serving(folder, folder.parent / "log", SAGEMAKER_MODEL_SERVER_TIMEOUT="2", **ONE) as one:
        yield one


def asked(server: Server, **ask: object) -> requests.Response:
    return requests.post(server.url + "/invocations", json=ask, stream=True, timeout=10)


def test_parts_leave_as_they_are_made(server):
    began = time.perf_counter()
    answer = asked(server, count=10, pause=0.1, type="text/event-stream")
    parts = [(time.perf_counter() - began, part) for part in answer.iter_content(None)]

    assert answer.headers["Content-Type"] == "text/event-stream"
    assert [part for _, part in parts] == [b"%d," % number for number in range(10)]
    assert parts[-1][0] - parts[0][0] > 0.5


def test_a_failure_in_the_middle_breaks_the_stream_and_is_logged(server):
    headers = {"X-Amzn-SageMaker-Inference-Id": "broken-one"}
    answer = requests.post(
        server.url + "/invocations",
        json={"count": 5, "fail": 3},
        headers=headers,
        stream=True,
        timeout=10,
    )
    got: list[bytes] = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        got.extend(answer.iter_content(None))

    assert (answer.status_code, b"".join(got)) == (200, b"0,1,2,")
    until(lambda: "id=broken-one" in server.log.read_text())
    log = server.log.read_text()
    assert "request broken-one: the stream broke." in log
    assert "inference.Teapot\n" in log
    assert "Teapot: half-way" not in log  # a message may quote what the caller sent
    assert "stream=broken" in log
    assert log.count("id=broken-one") == 1


def test_a_failure_before_the_first_part_has_its_own_status(server):
    answer = asked(server, count=5, fail=0)

    assert answer.status_code == 418
    assert answer.json()["error"]["message"] == "half-way"


def test_a_first_part_too_late_is_a_504(models, model_with_script, tmp_path):
    settings = {**ONE, "SKSERVE_THREADS": "2", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "0.5"}
    with serving(model_with_script(PARTS), tmp_path / "log", **settings) as server:
        assert asked(server, count=1, hang=0).status_code == 504
        answer = asked(server, count=2, hang=1)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            answer.content  # noqa: B018
        # Both slots are lost by now, so the worker is replaced, as after predictions that hang.
        before = children(server)
        until(lambda: children(server) and children(server) != before)


def test_a_client_that_leaves_stops_the_generator_and_frees_its_slot(server, tmp_path):
    seen = tmp_path / "seen"
    answer = asked(server, count=1000, pause=0.05, seen=str(seen))
    next(answer.iter_content(None))
    answer.close()

    until(seen.exists)
    assert asked(server, count=1).content == b"0,"


def test_a_stream_holds_its_slot_until_it_ends(server):
    with ThreadPoolExecutor(1) as callers:
        answer = asked(server, count=10, pause=0.1)
        began = time.perf_counter()
        other = callers.submit(asked, server, count=1)
        assert answer.content == b"0,1,2,3,4,5,6,7,8,9,"
        assert other.result().content == b"0,"
        assert time.perf_counter() - began > 0.3


def test_a_client_that_stops_reading_loses_its_slot_within_the_timeout(server, tmp_path):
    seen = tmp_path / "seen"
    body = json.dumps({"count": 100, "size": 1 << 20, "seen": str(seen)}).encode()
    with connect(server) as stalled:
        head = HEAD.replace(b"text/csv", b"application/json")
        stalled.sendall(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        stalled.recv(100)

        began = time.monotonic()
        until(seen.exists)
        assert time.monotonic() - began < 6
        assert asked(server, count=1).content == b"0,"


def test_http_1_0_has_no_chunks_so_it_gets_the_parts_together(server):
    body = b'{"count": 3}'
    with connect(server) as old:
        old.sendall(b"POST /invocations HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (12, body))
        answer = http.client.HTTPResponse(old)
        answer.begin()
        assert answer.headers["Content-Length"] == "6"
        assert answer.read() == b"0,1,2,"
    body = b'{"count": 3, "fail": 1}'
    with connect(server) as old:
        old.sendall(b"POST /invocations HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (23, body))
        answer = http.client.HTTPResponse(old)
        answer.begin()
        assert answer.status == 418


def test_sigterm_lets_a_stream_end(model_with_script, tmp_path):
    with serving(model_with_script(PARTS), tmp_path / "log", **ONE) as server:
        answer = asked(server, count=10, pause=0.1)
        server.process.send_signal(signal.SIGTERM)

        assert answer.content.count(b",") == 10
        answer.close()
        assert server.process.wait(10) == 0


def test_a_worker_killed_in_the_middle_is_an_error_and_no_short_success(server):
    answer = asked(server, count=100, pause=0.05)
    parts = answer.iter_content(None)
    next(parts)
    for pid in children(server):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(parts)
    until(lambda: server.ping() == 200)


TABLES = "import numpy as np\ndef predict_fn(data, model):\n"
TABLES += "    for row in data: yield model.predict(row.reshape(1, -1))\n"
VALUES = "def predict_fn(data, model):\n    yield {'a': 1}\n    yield {'a': None}\n"
LISTS = "def predict_fn(data, model):\n    yield [1, 2]\n    yield [3]\n"
TEXTS = "def predict_fn(data, model):\n    yield '{\"x\":'\n    yield b'1}'\n"
NONE = "def predict_fn(data, model):\n    yield from ()\n"
MIXED = "def predict_fn(data, model):\n    yield 1\n    yield 'text'\n"
FLASK = """
from flask import Response
def output_fn(prediction, accept): return Response((str(n) for n in range(3)), 201, mimetype="a/b")
"""
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


@pytest.mark.parametrize(
    ("script", "accept", "expected"),
    [
        (TABLES, JSON, b"[0,2]"),
        (TABLES, CSV, b"0\n2\n"),
        (TABLES, JSON_LINES, b"0\n2\n"),
        (VALUES, JSON, b'[{"a":1},{"a":null}]'),
        (VALUES, JSON_LINES, b'{"a":1}\n{"a":null}\n'),
        (LISTS, JSON, b"[1,2,3]"),
        (LISTS, CSV, b"1\n2\n3\n"),
        (TEXTS, JSON, b'{"x":1}'),
        (NONE, JSON, b"[]"),
        (NONE, CSV, b""),
        (FLASK, "a/b", b"012"),
    ],
)
def test_a_stream_is_the_answer_in_parts(model_with_script, script, accept, expected):
    model = Model.load(model_with_script(script), Config())
    reply = model.invoke(Call(json.dumps(ROWS).encode(), JSON, accept))

    assert b"".join(reply.body) == expected
    assert reply.media_type == accept


def test_a_stream_mirrors_the_envelope(model_with_script):
    model = Model.load(model_with_script(TABLES), Config())
    reply = model.invoke(Call(json.dumps({"instances": ROWS}).encode(), JSON))

    assert b"".join(reply.body) == b'{"predictions":[0,2]}'


@pytest.mark.parametrize(("script", "accept"), [(TABLES, NPY), (VALUES, CSV), (MIXED, JSON)])
def test_what_has_no_parts_is_a_fault_of_the_script(model_with_script, script, accept):
    model = Model.load(model_with_script(script), Config())

    with pytest.raises(ModelFault, match="cannot be written|no rows to write"):
        list(model.invoke(Call(json.dumps(ROWS).encode(), JSON, accept)).body)


def test_an_output_fn_gets_the_generator_itself(model_with_script):
    script = TABLES + "def output_fn(parts, accept): return ','.join(str(one[0]) for one in parts)"
    model = Model.load(model_with_script(script), Config())

    assert model.invoke(Call(json.dumps(ROWS).encode(), JSON)).body == b"0,2"


# ------------------------------------------------------------- read and answered at the same time

MB = 10**6
LINES = b"".join(b"%07d,0.12345\n" % row for row in range(50_000))  # 800 kB


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """Serve y = x, whose answers tell the rows apart."""
    folder = tmp_path_factory.mktemp("line")
    joblib.dump(LinearRegression().fit([[0.0, 0.0], [1.0, 0.0]], [0, 1]), folder / "model.joblib")
    limit = {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "400"}
    with serving(folder, folder / "log", **limit, **ONE) as one:
        yield one


def duplex(
    server: Server, pieces: Iterator[bytes], length: int | None, end: bytes = b"0\r\n\r\n"
) -> socket.socket:
    """Send the head, and go on with the body in a thread; `end` follows the last chunk."""
    connection = connect(server)
    framing = f"Content-Length: {length}" if length else "Transfer-Encoding: chunked"
    connection.sendall(
        f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nAccept: text/csv\r\n"
        f"X-Amzn-SageMaker-Custom-Attributes: stream=duplex\r\n{framing}\r\n\r\n".encode()
    )

    def send() -> None:
        with contextlib.suppress(OSError):
            for piece in pieces:
                connection.sendall(piece if length else b"%x\r\n%b\r\n" % (len(piece), piece))
            if not length:
                connection.sendall(end)

    threading.Thread(target=send, daemon=True).start()
    return connection


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [8 * MB, pytest.param(300 * MB, marks=pytest.mark.soak)])
def test_a_duplex_body_of_any_size_is_answered_to_its_last_row(line, size, chunked):
    times = size // len(LINES)
    length = None if chunked else times * len(LINES)
    with duplex(line, iter([LINES] * times), length) as connection:
        connection.settimeout(30)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        for _ in range(times):
            time.sleep(0.02)  # slower than the server: it has to wait for its reader
            for row in range(50_000):
                assert round(float(answer.readline())) == row
        assert answer.read() == b""


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        (b"no size\r\n", "not chunked as HTTP says"),
        (b"", "ended before it was whole"),
    ],
)
def test_a_duplex_body_that_breaks_off_is_told_by_its_true_cause(line, ending, cause):
    seen = line.log.stat().st_size
    length = None if ending else 50 * MB
    with duplex(line, iter([LINES] * 5), length, ending) as connection:
        connection.settimeout(30)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        for row in range(50_000):
            assert round(float(answer.readline())) == row
        if length:
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer.read()

    until(lambda: cause in line.log.read_bytes()[seen:].decode())
