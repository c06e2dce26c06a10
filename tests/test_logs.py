"""The log: it alone tells the cause, holds nothing that a caller sent, and never makes us wait."""

from __future__ import annotations

import gzip
import io
import json
import logging
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from skserve import errors, logs, telemetry
from skserve.tracebacks import without_messages
from tests.conftest import ROOT, START_LIMIT, Server, free_port, serving

SECRET = "Sesame4711"  # stands in every body; no other text of the tests holds it


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def line_of(log: str, request_id: str) -> dict[str, str]:
    """Return the facts of the one line that a request has."""
    (line,) = [one for one in log.splitlines() if f" id={request_id}" in one and "total_ms" in one]
    facts = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line)
    return {name: json.loads(said) if said[0] == '"' else said for name, said in facts}


# -------------------------------------------------------------------- the cause, and no body's text


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[SECRET] * 3]))
    return buffer.getvalue()


def _npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _parquet() -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"a": [SECRET], SECRET: [1], "c": [2]}).to_parquet(buffer)
    return buffer.getvalue()


JSON, CSV, HEADED = "application/json", "text/csv", "text/csv; header=present"

# Refused bodies by what is wrong with each: the body, its type, the status, and what the line of
# the log says of it, and headers. The model has the columns code (text), size (a number) and note
# (unused).
REFUSED: dict[str, tuple[Any, ...]] = {
    "a text for a number": (f'[["7", "{SECRET}", "x"]]', JSON, 400, "expected a number"),
    "the same in csv": (f"7,{SECRET},x\n", CSV, 400, "column 'size': expected a number"),
    "names that are not the model's": (
        json.dumps([{"code": "7", SECRET: 2, "note": "x"}]),
        JSON,
        400,
        "Missing: 'size'",
    ),
    "a header": (f"code,{SECRET},note\n7,2,x\n", HEADED, 400, "Missing: 'size'"),
    "a name twice": (f"code,{SECRET},{SECRET}\n7,2,3\n", HEADED, 400, "more than once"),
    "keys": (json.dumps({SECRET: [1]}), JSON, 400, "an object with the keys"),
    "rows with other keys": (
        json.dumps([{"code": "7", "size": 2, "note": "x"}, {SECRET: 1}]),
        JSON,
        400,
        "Row 2 has",
    ),
    "a method": (json.dumps({"instances": [[1]], "method": SECRET}), JSON, 400, ""),
    "no table": (f'"{SECRET}"', JSON, 400, "expected a list or an object"),
    "no json": (f'[["{SECRET}', JSON, 400, "not JSON"),
    "lines": (f'{{"code": "{SECRET}"}}\n', "application/jsonlines", 400, "Missing"),
    "no csv": (f'7,2,"{SECRET}\n', CSV, 400, "not CSV"),
    "too few": (f'[["{SECRET}"]]', JSON, 400, "Row 1 has 1 value, expected 3 ('code', 'size',"),
    "an array of text": (_npy(), "application/x-npy", 400, "expected a number"),
    "no array": (SECRET.encode(), "application/x-npy", 400, "not a .npy file"),
    "arrays": (_npz(**{SECRET: [1], "b": [2]}), "application/x-npz", 400, "2 arrays"),
    "no archive": (SECRET.encode(), "application/x-npz", 400, "not a .npz file"),
    "libsvm": (f"1 1:2 {SECRET}\n", "text/libsvm", 400, "Row 1"),
    "recordio": (SECRET.encode(), "application/x-recordio-protobuf", 400, "Record 1"),
    "parquet": (_parquet(), "application/x-parquet", 400, "Missing: 'code', 'size'"),
    "no parquet": (SECRET.encode(), "application/x-parquet", 400, "cannot be read"),
    "an unknown category": (json.dumps([[SECRET, 1.0, "x"]]), JSON, 400, "[...]"),
    "an unknown type": (SECRET, "text/unknown", 415, "text/unknown is not read here"),
    "an unknown charset": (SECRET, "text/csv; charset=none", 415, "charset"),
    "no UTF-8": (SECRET.encode() + b"\xff", CSV, 400, "utf-8"),
    "an unknown coding": (SECRET, CSV, 415, "br", {"Content-Encoding": "br"}),
    "no gzip": (SECRET, CSV, 400, "gzip", {"Content-Encoding": "gzip"}),
    "an answer that is not written": (
        f"7,2,{SECRET}\n",
        CSV,
        406,
        "Accept",
        {"Accept": "image/png"},
    ),
    "an unknown method": (
        f"7,2,{SECRET}\n",
        CSV,
        400,
        "no method",
        {"X-Amzn-SageMaker-Custom-Attributes": "method=fly"},
    ),
    "too large": (SECRET * 200_000, CSV, 413, "The body has 2,000,000 bytes; the limit is"),
    "a bomb": (
        gzip.compress(b"0" * (4 << 20)),
        CSV,
        413,
        "Unpacked, the body has",
        {"Content-Encoding": "gzip"},
    ),
}

# What is refused before it is a request, or because its body does not come: the bytes that are
# sent before the caller stops, the status, and what the line of the log says.
_POST = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
BROKEN = {
    "no request": (SECRET.encode() + b"\r\n\r\n", 400, "its first line is not METHOD TARGET"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "it has no Host"),
    "a long head": (
        _POST + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        431,
        "The head of the request has",
    ),
    "a long target": (
        b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n",
        414,
        "The target has more than",
    ),
    "a later version": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "HTTP/2.0 is not spoken here"),
    "an unknown verb": (b"FLY / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "FLY is not implemented here"),
    "another coding": (
        _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        501,
        "gzip, chunked is not read here",
    ),
    "an expectation": (_POST + b"Expect: 200-ok\r\n\r\n", 417, "200-ok is not met here"),
    "an early end": (
        _POST + b"Content-Length: 99\r\n\r\n" + SECRET.encode(),
        400,
        "The body ended before it was whole",
    ),
    "an early end of a large body": (
        _POST + b"Content-Length: 999999\r\n\r\n" + SECRET.encode(),
        400,
        "The body ended before it was whole",
    ),
    "no chunks": (
        _POST + b"Transfer-Encoding: chunked\r\n\r\n" + SECRET.encode() + b"\r\n",
        400,
        "The body is not chunked",
    ),
    "a large chunk": (
        _POST + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n" + SECRET.encode(),
        413,
        "a chunk of 268,435,455",
    ),
}
CALLS = {name for name in BROKEN if name.endswith("end") or "body" in name or "chunk" in name}


@pytest.fixture(scope="module")
def refused(models, tmp_path_factory) -> tuple[str, dict[str, tuple[int, dict[str, str]]]]:
    """Send each of them once; return all of the log with the metrics, the statuses and errors."""
    log = tmp_path_factory.mktemp("logs") / "log"
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SKSERVE_THREADS": "3"}
    settings |= {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}
    with serving(models("mixed"), log, **settings) as server:
        said = {}
        for name, (body, kind, _, _, *headers) in REFUSED.items():
            sent = {"Content-Type": kind} | (headers[0] if headers else {})
            answer = requests.post(server.url + "/invocations", body, headers=sent, timeout=60)
            said[name] = answer.status_code, answer.json()["error"]
        said |= {name: raw(server, sent) for name, (sent, *_) in BROKEN.items()}
        metrics = requests.get(server.url + "/metrics", timeout=10).text
    return log.read_text() + metrics, said


def raw(server: Server, sent: bytes) -> tuple[int, dict[str, str]]:
    """Send bytes and end; return the status and the error of the one answer."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize("name", [*REFUSED, *BROKEN])
def test_the_line_of_a_refused_request_tells_why_and_not_what_was_sent(refused, name):
    text, answers = refused
    status, said = REFUSED[name][2:4] if name in REFUSED else BROKEN[name][1:]
    answered, error = answers[name]
    line = line_of(text, error["request_id"])

    assert answered == status
    assert (line["status"], line["code"]) == (str(status), error["code"])
    assert said in line["message"]
    assert SECRET not in text


def test_what_is_refused_is_an_invocation_once_its_head_calls_the_model(refused):
    text, _ = refused
    counted = re.findall(r'(?m)^skserve_requests_total{status="\w+"} (\d+)', text)

    assert sum(map(int, counted)) == len(REFUSED) + len(CALLS)
    assert "\nskserve_requests_in_progress 0.0\n" in text


def test_what_scikit_learn_refused_is_found_by_where_it_was_raised(refused):
    text, answers = refused
    _, error = answers["an unknown category"]
    line = line_of(text, error["request_id"])

    assert SECRET in error["message"]  # the caller reads it
    assert re.fullmatch(r"ValueError at .*_encoders\.py:\d+ in \w+", line["raised"])


FAILING = """
import logging, os, random, sys, time, warnings
def stream(body):
    if "late" in body: yield "1"
    raise RuntimeError(body)
class Late(Exception): status_code = 422
def input_fn(body, content_type):
    return body
def predict_fn(body, model):
    if "raise" in body: raise RuntimeError(body)
    if "chain" in body:
        try: int(body)
        except ValueError as error: raise KeyError(body) from error
    if "own" in body: raise Late(body)
    if "none" in body: return None
    if "deep" in body: return predict_fn(body, model)
    if "object" in body: return object()
    if "stream" in body: return stream(body)
    while "wait" in body and not os.path.exists(os.environ["GATE"]): time.sleep(0.01)
    if "die" in body: os._exit(3)
    if "exit" in body: sys.exit(body)
    if "memory" in body: raise MemoryError(body)
    if "warn" in body: warnings.warn("careful: " + body)
    if "print" in body: print("one\\ntwo"); print("three", file=sys.stderr)
    if "seed" in body: random.seed(0)
    if "much" in body: print("x" * 300000); print("y\\n" * 20000)
    if "log" in body: logging.getLogger("mine").warning("from the script")
    return [1.0]
"""

# What a script does, with the status and what the log says beside the line.
FAULTS = {
    "raise": (500, "RuntimeError", "RuntimeError at model/code/inference.py:10 in predict_fn"),
    "chain": (500, "KeyError", "KeyError at model/code/inference.py:13 in predict_fn"),
    "own": (422, "", "Late at model/code/inference.py:14 in predict_fn"),
    "none": (500, "The script returned None", ""),
    "deep": (500, "RecursionError", "RecursionError at model/code/inference.py:16 in predict_fn"),
    "object": (500, "The answer cannot be written as JSON", "TypeError"),
    "stream": (500, "RuntimeError", "RuntimeError at model/code/inference.py:5 in stream"),
    "exit": (500, "SystemExit", "SystemExit at model/code/inference.py:21 in predict_fn"),
    "memory": (500, "MemoryError", "MemoryError at model/code/inference.py:22 in predict_fn"),
}


@pytest.fixture(scope="module")
def faulty(models, tmp_path_factory) -> Iterator[Server]:
    from tests import zoo

    folder = tmp_path_factory.mktemp("faulty") / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "code/inference.py").write_text(FAILING)
    zoo.make("iris", folder)
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "GATE": str(folder.parent / "gate")}
    settings |= {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1", "SKSERVE_IN_FLIGHT_MB": "1"}
    settings |= {"SKSERVE_THREADS": "2"}
    with serving(folder, folder.parent / "log", **settings) as server:
        yield server


@pytest.mark.parametrize("fault", FAULTS)
def test_the_line_of_a_failed_request_tells_where_and_the_traceback_is_there_once(faulty, fault):
    status, said, raised = FAULTS[fault]
    answer = faulty.post(f"{fault} {SECRET}", CSV)
    request_id = answer.json()["error"]["request_id"]
    until(lambda: f" id={request_id}" in faulty.log.read_text())
    log = faulty.log.read_text()
    line = line_of(log, request_id)

    assert (answer.status_code, line["status"]) == (status, str(status))
    assert line.get("raised", "") == raised
    assert log.count(f"request {request_id}:") == (status >= 500)
    entry = log[log.index(f"request {request_id}:") :] if status >= 500 else ""
    assert said in entry
    assert SECRET not in log


def test_a_stream_that_breaks_is_told_of_under_the_id_of_its_call(faulty):
    named = {"X-Amzn-SageMaker-Inference-Id": "late-stream", "Content-Type": CSV}
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.post(
            faulty.url + "/invocations", f"stream late {SECRET}", headers=named, timeout=9
        )
    until(lambda: " id=late-stream" in faulty.log.read_text())
    log = faulty.log.read_text()

    assert line_of(log, "late-stream")["stream"] == "broken"
    assert log.count("request late-stream: the stream broke.") == 1
    assert "RuntimeError" in log[log.index("request late-stream:") :]
    assert SECRET not in log


def test_what_is_refused_for_the_memory_tells_so(faulty):
    large = "wait " + "x" * 900_000
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(faulty.post, large, CSV)
        until(lambda: "skserve_requests_in_progress 1.0" in scrape(faulty))
        until(lambda: faulty.post("none", CSV).status_code == 500)  # the body is there
        refused = faulty.post(large, CSV)
        (faulty.log.parent / "gate").touch()
        assert slow.result().status_code == 200
    line = line_of(faulty.log.read_text(), refused.json()["error"]["request_id"])

    assert (line["status"], line["code"]) == ("503", "overloaded")
    assert "more do not fit" in line["message"]


def test_the_end_of_a_worker_is_told_of(faulty):
    with pytest.raises(requests.ConnectionError):
        faulty.post(f"die {SECRET}", CSV)
    until(lambda: 'skserve_worker_ends_total{reason="crash"} 1.0' in scrape(faulty))
    log = faulty.log.read_text()

    assert "crashed, or its script ended it. Requests left unanswered: 1." in log
    assert SECRET not in log
    until(lambda: _pings(faulty))


def scrape(server: Server) -> str:
    try:
        return requests.get(server.url + "/metrics", timeout=9).text
    except requests.ConnectionError:  # the worker has just ended
        return ""


def test_prints_logs_and_warnings_of_a_script_arrive_with_their_source(faulty):
    headers = {"X-Amzn-SageMaker-Inference-Id": "mine", "Content-Type": "text/csv"}
    requests.post(
        faulty.url + "/invocations", f"print log warn {SECRET}", headers=headers, timeout=9
    )
    log = faulty.log.read_text()
    own = [line.split(" ", 4)[4] for line in log.splitlines() if len(line.split(" ", 4)) > 4]

    assert "stdout id=mine: one" in own
    assert "stdout id=mine: two" in own
    assert "stderr id=mine: three" in own
    assert "mine: from the script" in own
    assert any("inference.py:23: UserWarning" in line for line in own)
    assert SECRET not in log


@pytest.fixture(scope="module")
def in_json(faulty, tmp_path_factory) -> list[dict]:
    """Return the lines of a log in JSON, in which messages are allowed."""
    allowed = {"SKSERVE_LOG_VALUES": "true", "SKSERVE_LOG_FORMAT": "json"}
    log = tmp_path_factory.mktemp("json") / "log"
    folder = faulty.log.parent / "model"
    with serving(folder, log, SAGEMAKER_MODEL_SERVER_WORKERS="1", **allowed) as server:
        for fault in ("raise", "own", "print"):
            server.post(f"{fault} {SECRET}", CSV)
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_messages_are_there_where_a_setting_allows_it(in_json):
    (traced,) = [line for line in in_json if "traceback" in line]
    said = [line.get("message") for line in in_json if "total_ms" in line]

    assert f"RuntimeError: raise {SECRET}" in traced["traceback"]
    assert said[1] == f"own {SECRET}"


def test_json_has_an_object_for_the_start_each_request_and_each_print(in_json):
    (start,) = [line for line in in_json if line.get("message", "").endswith(" serves")]
    requests_ = [line for line in in_json if "total_ms" in line]
    (printed,) = [line for line in in_json if line.get("message") == "two"]

    assert start["workers"] == "1, as set"
    assert [line["status"] for line in requests_] == [500, 422, 200]
    assert (printed["source"], printed["id"]) == ("stdout", requests_[2]["id"])


def test_a_model_of_many_tells_no_more(add, tmp_path):
    folder = add(tmp_path, "m", FAILING)
    many = {"SAGEMAKER_MULTI_MODEL": "true", "SKSERVE_MODEL_ROOT": str(tmp_path)}
    with serving(folder, tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="1", **many) as server:
        made = {"model_name": "m", "url": str(folder)}
        assert requests.post(server.url + "/models", json=made, timeout=60).ok
        call = server.url + "/models/m/invoke"
        plain = {"Content-Type": "text/csv"}
        failed = [
            requests.post(call, f"{fault} {SECRET}", headers=plain, timeout=60).json()["error"]
            for fault in ("raise", "own", "none")
        ]
        refused = [requests.post(server.url + "/models", json=one, timeout=60) for one in UNLOADED]
        refused.append(requests.delete(server.url + "/models/lost", timeout=60))
        refused.append(requests.post(server.url + "/models/lost/invoke", SECRET, timeout=60))
        metrics = requests.get(server.url + "/metrics", timeout=10).text
    log = (tmp_path / "log").read_text()

    assert SECRET not in log + metrics
    for error, fault in zip(failed, ("raise", "own", "none"), strict=True):
        line = line_of(log, error["request_id"])
        assert line["code"] == error["code"]
        assert log.count(f"request {error['request_id']}:") == (fault != "own")
    assert "RuntimeError" in log
    for answer in refused:
        line = line_of(log, answer.json()["request_id"])
        assert line["status"] == str(answer.status_code) != "200"
        assert line["message"] in answer.json()["message"]


UNLOADED = [
    {"model_name": "m", "url": "/there/already"},
    {"model_name": "lost", "url": "/no/such/folder"},
    {"name": SECRET},
]


# --------------------------------------------------------------------------- one line, not forged


def test_a_caller_cannot_forge_facts(faulty):
    forged = {"X-Amzn-SageMaker-Inference-Id": 'x status=200 code="y'}
    requests.post(faulty.url + "/invocations", "none", headers=forged, timeout=9)
    (line,) = [one for one in faulty.log.read_text().splitlines() if 'id="x' in one]

    assert line.endswith(r' id="x status=200 code=\"y"')


def test_no_message_of_several_lines_begins_a_line_as_ours_do(caplog):
    record = logging.LogRecord("any", 20, "", 0, "one\n2026-01-01 00:00:00 INFO [1] two", (), None)

    assert logs.Text().format(record).split("\n")[1].startswith("  2026")


def test_ids_are_not_drawn_from_a_generator_that_scripts_seed(faulty):
    ids = set()
    for _ in range(3):
        assert faulty.post("seed", CSV).status_code == 200
        ids.add(faulty.post("none", CSV).json()["error"]["request_id"])

    assert len(ids) == 3


def test_the_start_is_summed_up_in_one_entry(refused):
    log = refused[0]
    entry = dict(re.findall(r"(?m)^  ([\w -]+): (.*)$", log.partition("serves\n")[2]))

    assert entry["model"] == "Pipeline.predict"
    assert "scikit-learn 1." in entry["versions"]
    assert (
        "1 of type text (the values that an encoder or imputer learned): code" in entry["columns"]
    )
    assert entry["fast path"] == "predict"
    assert entry["workers"] == "1, as set"
    assert entry["threads"].startswith("3 in each worker (as set)")
    assert "SKSERVE_THREADS=3" in entry["settings"]
    assert re.search(r"import \d+\.\d\d, code .*, model .*, check ", entry["seconds"])


# ------------------------------------------------------------------------- nothing is waited for


@pytest.fixture
def unread(tmp_path) -> Iterator[Callable[..., tuple[Server, int]]]:
    """Start servers whose log is a pipe that nothing reads, until the test does."""
    started: list[tuple[subprocess.Popen[bytes], int]] = []

    def start(folder: Path, **environ: str) -> tuple[Server, int]:
        port = free_port()
        read, written = os.pipe()
        command = [sys.executable, "-m", "skserve", "serve"]
        command += ["--model-dir", str(folder), "--port", str(port)]
        full = {**os.environ, "SKSERVE_USER": "root", "PYTHONPATH": str(ROOT / "container")}
        process = subprocess.Popen(command, env=full | environ, stdout=written, stderr=written)
        os.close(written)
        started.append((process, read))
        server = Server(process, f"http://127.0.0.1:{port}", tmp_path)
        until(lambda: _pings(server), START_LIMIT)
        return server, read

    yield start
    for process, read in started:
        process.kill()
        process.wait()
        os.close(read)


def _pings(server: Server) -> bool:
    try:
        return server.ping() == 200
    except requests.RequestException:
        return False


def dropped(server: Server) -> float:
    text = requests.get(server.url + "/metrics", timeout=9).text
    return float(re.findall(r"(?m)^skserve_log_lines_dropped_total (\S+)", text)[0])


def test_a_log_that_is_not_read_holds_up_nothing(faulty, unread):
    server, read = unread(faulty.log.parent / "model", SAGEMAKER_MODEL_SERVER_WORKERS="1")
    much = [server.post("much", CSV).status_code for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: server.post("fine", CSV).status_code, range(500)))
    assert much + answers == [200] * 503
    assert dropped(server) > 20_000

    os.set_blocking(read, False)
    drained = b"".join(iter(lambda: _read(read), b""))
    server.post("fine", CSV)
    until(lambda: b"lines were dropped: the log was not read." in _read(read) + drained)
    assert server.stop(patience=28) == 0


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize("kind", ["pipe", "socket", "file"])
def test_lines_that_are_read_arrive_whole_whatever_the_log_is(kind, tmp_path):
    code = (
        "from skserve.log_sink import sink\nsink.open()\n"
        "for n in range(3000): sink.write(b'%04d ' % n + b'x' * 90 + b'\\n', 5)\n"
    )
    ends = {"pipe": os.pipe, "file": lambda: (None, os.open(tmp_path / "f", 0o102))}
    reader, writer = (
        [one.detach() for one in socket.socketpair()] if kind == "socket" else ends[kind]()
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "container")}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=writer, env=environ)
    os.close(writer)
    if reader is None:
        process.wait()
        said = (tmp_path / "f").read_bytes()
    else:
        said = b"".join(iter(lambda: os.read(reader, 1 << 16), b""))
        process.wait()
        os.close(reader)

    assert said == b"".join(b"%04d " % n + b"x" * 90 + b"\n" for n in range(3000))


@pytest.mark.parametrize("length", [10, 3000])
def test_lines_that_are_held_are_written_together_where_a_pipe_takes_them_whole(
    monkeypatch, length
):
    written: list[bytes] = []
    monkeypatch.setattr(logs.sink, "write", written.append)

    for number in range(3):
        record = telemetry.Record(f"{number}" * length)
        record.stages = [0, 0, 0, 0, 126e-6]
        logs.line(200, 0, record, hold=True)
    assert written == []
    logs.flush()
    logs.flush()

    assert len(written) == (1 if length == 10 else 3)
    lines = b"".join(written).decode().splitlines()
    assert [line.partition("status=")[2] for line in lines] == [
        f"200 bytes_out=0 total_ms=0.13 id={number * length}" for number in "012"
    ]


def test_what_shares_the_log_is_left_as_it_was():
    read, write = os.pipe()
    code = "from skserve.log_sink import sink\nsink.open()"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "container")}
    subprocess.run([sys.executable, "-c", code], stderr=write, env=environ, check=True)

    assert os.get_blocking(write)
    os.close(read)
    os.close(write)


# ---------------------------------------------------------------------------------------- the marks


@pytest.mark.parametrize(
    ("message", "plain", "logged"),
    [
        ("nothing", "nothing", "nothing"),
        (
            f"got {errors.quote('a')} and {errors.quote('b')}.",
            "got a and b.",
            "got [...] and [...].",
        ),
        (f"got {errors.quote(errors.quote('a'))}.", "got a.", "got [...]."),
        (f"got {errors.quote('a')}"[:-1], "got a", "got [...]"),
    ],
)
def test_what_is_quoted_is_read_by_the_caller_alone(message, plain, logged):
    error = errors.BadRequest(message)

    assert (error.message, error.logged, str(error)) == (plain, logged, plain)


def test_a_traceback_without_messages_has_every_frame_and_type():
    def inner() -> None:
        raise ValueError(SECRET)

    try:
        try:
            inner()
        except ValueError as error:
            raise KeyError(SECRET) from error
    except KeyError as error:
        said = "".join(without_messages(error))

    assert SECRET not in said
    assert [line for line in said.splitlines() if re.match(r"\w+Error$", line)] == [
        "ValueError",
        "KeyError",
    ]
    assert "in inner" in said


def test_an_exception_that_leads_to_itself_is_formatted():
    error, other = ValueError("a"), KeyError("b")
    error.__context__, other.__context__ = other, error

    assert "".join(without_messages(error)).count("KeyError") == 1


def test_a_time_is_told_in_hundredths_whatever_it_is():
    told = [0.0, 0.004, 0.006, 9.994, 9.996, 10.0, 12345.678, -0.25, float("nan"), float("inf")]

    record = telemetry.Record("me")
    record.facts = {f"t{at}": value for at, value in enumerate(told)}
    record.stages = [0.0, 1e-5, 0.006, 0.1, math.inf]
    line = logs.Text().lines([(200, 0, record)]).decode()

    said = [fact.partition("=")[2] for fact in line.split()[6:]]
    assert said == [f"{value:.2f}" for value in told] + ["0.01", "6.00", "100.00", "inf", "me"]
