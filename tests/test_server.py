"""The real gunicorn: health under load, starting, stopping, and dying."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import joblib
import pytest
import requests
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skserve.config import Config
from skserve.errors import StartError
from skserve.serving import preload, sizing
from skserve.serving import server as server_module
from skserve.serving.balancer import Balancer
from skserve.serving.listeners import Listeners
from skserve.serving.poller import Poller
from skserve.serving.responses import Answer
from skserve.serving.sizing import Limits, Plan
from tests.conftest import ROOT, Server, free_port, serving, start, wait_until_ready

ONE = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SKSERVE_THREADS": "1"}
ROW = "[[5.1, 3.5, 1.4, 0.2]]"
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


def test_ping_never_queues_behind_predictions(model_with_script, tmp_path):
    """Four times as many callers as slots, every prediction sleeping: the rest is bounded."""
    folder = model_with_script(SLEEPY.format(seconds=6))
    settings = {
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        "SKSERVE_THREADS": "2",
        "SKSERVE_QUEUE": "1",
    }
    with (
        serving(folder, tmp_path / "log", **settings) as server,
        ThreadPoolExecutor(16) as callers,
    ):
        answers = [callers.submit(server.post, ROW) for _ in range(16)]
        time.sleep(0.5)
        pings = []
        while not all(answer.done() for answer in answers) and len(pings) < 60:
            began = time.perf_counter()
            assert server.ping() == 200
            pings.append(time.perf_counter() - began)
            time.sleep(0.05)
        statuses = [answer.result().status_code for answer in answers]

        assert sorted(pings)[len(pings) * 9 // 10] < 0.1
        assert max(pings) < 3  # some may meet a busy neighbour of this machine
        assert set(statuses) == {200, 503}
        assert statuses.count(200) <= 6  # two workers of two slots and one place to wait
        refused = next(one.result() for one in answers if one.result().status_code == 503)
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["code"] == "overloaded"


def test_a_prediction_that_takes_too_long_is_a_504_and_its_worker_is_replaced(
    model_with_script, tmp_path
):
    script = "import time\ndef predict_fn(data, model):\n"
    script += "    time.sleep(60 if data[0, 0] > 100 else 0)\n    return model.predict(data)\n"
    settings = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "1", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with serving(model_with_script(script), tmp_path / "log", **settings) as server:
        before = children(server)
        began = time.perf_counter()
        answer = server.post("[[1000, 0, 0, 0]]")
        assert answer.status_code == 504
        assert "longer than 1 s" in answer.json()["error"]["message"]
        assert time.perf_counter() - began < 10

        until(lambda: children(server) and children(server) != before)
        wait_until_ready(server)
        assert server.post(ROW).json() == [0]
    assert "hangs; it is replaced" in (tmp_path / "log").read_text()


def test_sigterm_answers_every_accepted_request(model_with_script, tmp_path):
    folder = model_with_script(SLEEPY.format(seconds=0.05))
    with (
        serving(
            folder, tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="2", SKSERVE_QUEUE="300"
        ) as server,
        ThreadPoolExecutor(200) as callers,
    ):
        answers = [callers.submit(server.post, ROW) for _ in range(200)]
        until(lambda: sum(answer.done() for answer in answers) > 10)
        began = time.monotonic()
        status = server.stop()

        refused = 0
        for answer in answers:
            try:
                assert answer.result().json() == [0]
            except requests.ConnectionError as error:
                # Never accepted: the door was closed before this caller knocked.
                assert "refused" in str(error)
                refused += 1
        assert status == 0
        assert time.monotonic() - began < 25
        assert refused < 190


def test_a_server_that_stops_answers_who_is_at_the_door_and_lets_nobody_else_come(models, tmp_path):
    """Whom the kernel lets in after the workers have looked is reset, request and all."""
    with serving(models("iris"), tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        workers = children(server)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        early, late = connect(server), socket.socket()
        early.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "Handling signal: term" in server.log.read_text())
        time.sleep(0.5)
        late.settimeout(0.5)
        with late, pytest.raises(TimeoutError):
            late.connect(early.getpeername())
        for worker in workers:
            os.kill(worker, signal.SIGCONT)

        with early:
            assert b" 200 " in early.recv(4096)
        assert server.process.wait(20) == 0


def test_an_idle_server_stops_quickly(servers, models, tmp_path):
    with serving(models("iris"), tmp_path / "log") as server:
        silent = connect(server)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15  # less than `GRACE`
        silent.close()


def test_a_killed_worker_is_replaced_and_said(models, tmp_path):
    with serving(models("iris"), tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        victim = children(server)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in children(server) and len(children(server)) == 2)

        assert server.post(ROW).json() == [0]
    assert re.search(rf"pid:\s*{victim}\) was sent SIGKILL", (tmp_path / "log").read_text())


def test_a_model_that_cannot_load_ends_the_process_with_one_sentence(tmp_path):
    server = start(tmp_path, tmp_path / "log")

    assert server.process.wait(20) == 1
    said = [line for line in server.log.read_text().splitlines() if line.startswith("skserve: ")]
    assert len(said) == 1
    assert "holds no model" in said[0]
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("model", "needs"),
    [("iris", False), ("missing", False), ("text", False), ("named", True), ("mixed", True)],
)
def test_pandas_is_in_memory_where_x_is_a_frame_and_shared_there(models, tmp_path, model, needs):
    with serving(models(model), tmp_path / "log") as server:
        assert has_pandas(server) == {needs}


def test_pandas_is_shared_where_a_step_writes_frames_or_a_script_may(
    model_with_script, tmp_path, monkeypatch
):
    monkeypatch.setenv("SKSERVE_ACCELERATE", "off")  # its proof would ask the model
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, LogisticRegression()).fit([[0, 0], [1, 1]], [0, 1])
    (tmp_path / "frames").mkdir()
    joblib.dump(model, tmp_path / "frames" / "model.joblib")
    for folder in (tmp_path / "frames", model_with_script("def predict_fn(data, model): pass")):
        with serving(folder, tmp_path / "log") as server:
            assert has_pandas(server) == {True}


def has_pandas(server: Server) -> set[bool]:
    """Say which of a server's processes have pandas in memory."""
    pids = (server.pid, *children(server))
    return {"/pandas/_libs/" in Path(f"/proc/{pid}/maps").read_text() for pid in pids}


@pytest.mark.parametrize("preload", ["on", "off"])
def test_a_failing_model_fn_ends_the_process_without_a_restart_loop(
    model_with_script, tmp_path, preload
):
    folder = model_with_script("def model_fn(model_dir): raise RuntimeError('no weights')")
    server = start(folder, tmp_path / "log", SKSERVE_PRELOAD=preload)

    assert server.process.wait(20) not in (0, None)
    log = server.log.read_text()
    assert "The script's model_fn failed: RuntimeError: no weights (inference.py, line 1)" in log
    assert log.count("Booting worker") <= 2


def test_a_model_that_leaves_threads_is_loaded_in_each_worker(model_with_script, tmp_path):
    script = """
import joblib, os, threading, time
def model_fn(model_dir):
    time.sleep(0.5)
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    open(os.path.join("/tmp", os.environ["SEEN"]), "a").write(f"{os.getpid()}\\n")
    return joblib.load(os.path.join(model_dir, "model.joblib"))
"""
    seen = tmp_path / "seen"
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SEEN": str(seen)}
    server = start(model_with_script(script), tmp_path / "log", **settings)
    try:
        statuses = set()

        def ready() -> bool:
            try:
                statuses.add(server.ping())
            except requests.RequestException:
                return False
            return len(seen.read_text().split()) == 3 if seen.exists() else False

        until(ready)
        wait_until_ready(server)
        pids = {int(pid) for pid in seen.read_text().split()}

        assert pids == {server.process.pid, *children(server)}
        assert 503 in statuses
        assert server.post(ROW).json() == [0]
        assert "leaves threads behind" in server.log.read_text()
    finally:
        server.process.kill()
        server.process.wait()


def test_warm_up_runs_in_every_worker_before_it_is_ready(model_with_script, tmp_path):
    script = """
import os
def model_warmup_fn(model_dir, model):
    model.predict([[1, 2, 3, 4]])
    open(os.environ["SEEN"], "a").write(f"{os.getpid()}\\n")
"""
    seen = tmp_path / "seen"
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SEEN": str(seen)}
    with serving(model_with_script(script), tmp_path / "log", **settings) as server:
        until(lambda: len(seen.read_text().split()) == 2)

        assert {int(pid) for pid in seen.read_text().split()} == set(children(server))


def test_ping_waits_for_every_worker_once_and_never_turns_back(model_with_script, tmp_path):
    """The first worker is warm at once, each later one after two seconds."""
    script = """
import os, time
def model_warmup_fn(model_dir, model):
    try:
        os.mkdir(os.environ["FIRST"])
    except FileExistsError:
        time.sleep(2)
    open(os.environ["SEEN"], "a").write(f"{os.getpid()}\\n")
"""
    seen = tmp_path / "seen"
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SEEN": str(seen)}
    settings["FIRST"] = str(tmp_path / "first")
    with serving(model_with_script(script), tmp_path / "log", **settings) as server:
        assert len(seen.read_text().split()) == 2  # `serving` has waited for /ping

        os.kill(children(server)[0], signal.SIGKILL)
        until(lambda: len(children(server)) == 2)
        while len(seen.read_text().split()) < 3:  # the new worker is cold
            began = time.perf_counter()
            assert server.ping() == 200
            assert server.post(ROW).status_code == 200
            assert time.perf_counter() - began < 1.5
        assert server.ping() == 200


HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"


@pytest.mark.parametrize(
    "said",
    [b"", pytest.param(b"G", marks=pytest.mark.soak), b"GET /ping HTTP/1.1\r\nHost:", HEAD],
    ids=len,
)
def test_clients_that_never_finish_a_head_hold_no_thread(models, tmp_path, said):
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SKSERVE_QUEUE": "0", "SKSERVE_THREADS": "1"}
    with serving(models("iris"), tmp_path / "log", **settings) as server:
        slow = [connect(server) for _ in range(100)]
        for one in slow:
            one.sendall(said)
        time.sleep(0.3)

        began = time.perf_counter()
        assert server.ping() == 200
        assert server.post(ROW).json() == [0]
        assert time.perf_counter() - began < 10  # less than `STALL`

        busy = cpu_seconds(children(server)[0])
        time.sleep(1)
        assert cpu_seconds(children(server)[0]) - busy < 0.3, "the poller spins"
        if said:
            slow[0].sendall(rest(said))
            slow[0].settimeout(5)
            assert slow[0].recv(12) == b"HTTP/1.1 200"
        for one in slow:
            one.close()
        wait_until_ready(server)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))


def rest(said: bytes) -> bytes:
    """Return what makes a request of what was said so far."""
    if said == HEAD:
        return b"Content-Length: 15\r\n\r\n5.1,3.5,1.4,0.2"
    return b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n".removeprefix(said)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(("size", "status"), [(15, 200), (100_000, 503)])
def test_clients_that_never_finish_a_body_are_bounded_and_ping_goes_on(
    models, tmp_path, size, status
):
    """A small body is waited for without a thread, so it costs nobody anything."""
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SKSERVE_QUEUE": "3", "SKSERVE_THREADS": "1"}
    with serving(models("iris"), tmp_path / "log", **settings) as server:
        slow = [connect(server) for _ in range(60)]
        for one in slow:
            one.sendall(HEAD + b"Content-Length: %d\r\n\r\n5" % size)
        time.sleep(0.5)

        began = time.perf_counter()
        assert server.ping() == 200
        assert time.perf_counter() - began < 10  # less than `STALL`
        assert server.post(ROW).status_code == status

        for one in slow:
            one.close()
        until(lambda: server.post(ROW).status_code == 200)


def test_requests_sent_all_at_once_are_answered_in_turn(models, tmp_path):
    one = HEAD + b"Content-Length: 15\r\n\r\n5.1,3.5,1.4,0.2"
    with serving(models("iris"), tmp_path / "log") as server, connect(server) as client:
        client.sendall(one * 3 + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        client.settimeout(10)
        said = b""
        while part := client.recv(4096):
            said += part

    assert said.count(b"HTTP/1.1 200 OK") == 4
    assert said.count(b"[0]") == 3


def test_a_chunked_body_is_read_and_cut_at_the_limit(models, tmp_path):
    def endless(parts: int):
        yield b"[[5.1, 3.5, 1.4, 0.2]"
        for _ in range(parts):
            yield b", [5.1, 3.5, 1.4, 0.2]" * 1000
        yield b"]"

    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}
    with serving(models("iris"), tmp_path / "log", **settings) as server:
        url = server.url + "/invocations"

        assert len(requests.post(url, data=endless(2), timeout=10).json()) == 2001
        refused = requests.post(url, data=endless(100), timeout=10)

        assert refused.status_code == 413
        assert "more than 1,048,576 bytes" in refused.json()["error"]["message"]
        assert server.post(ROW).json() == [0]


def test_a_client_that_stops_half_way_is_given_up(models, tmp_path):
    with serving(models("iris"), tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        with connect(server) as half:
            half.sendall(HEAD + b"Content-Length: 100\r\n\r\n[[")
            half.shutdown(socket.SHUT_WR)
            half.settimeout(10)
            said = half.recv(4096) + half.recv(4096)  # gunicorn sends the head by itself
        assert b"400" in said.split(b"\r\n")[0]
        assert b"before it was whole" in said
        assert server.post(ROW).json() == [0]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "http", "is 'http'; expected a whole number from 1 to 65,535"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "0", "expected a whole number from 1"),
        ("SKSERVE_USER", "nobody-such", "is nobody-such, who does not exist here"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_sentence(models, tmp_path, name, value, sentence):
    server = start(models("iris"), tmp_path / "log", **{name: value})

    assert server.process.wait(20) == 1
    assert sentence in server.log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give root up")
def test_root_is_given_up_only_where_the_model_stays_readable(models, tmp_path):
    """Here the interpreter may lie below /root, so only the refusal is sure; see test_image."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "model.joblib").write_bytes((models("iris") / "model.joblib").read_bytes())
    with serving(private, tmp_path / "log", SKSERVE_USER="nobody") as server:
        assert server.post(ROW).json() == [0]
    assert "nobody cannot read" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("status", [0, 3])
def test_sys_exit_in_a_script_ends_neither_the_worker_nor_the_server(
    model_with_script, tmp_path, status
):
    script = f"import sys\ndef predict_fn(data, model): sys.exit({status})"
    with serving(model_with_script(script), tmp_path / "log", **ONE) as server:
        before = children(server)
        for _ in range(2):
            answer = server.post(ROW)
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "model_error"
        assert children(server) == before


@pytest.mark.parametrize("status", [1, 3, 4])
def test_a_script_that_ends_its_worker_ends_no_other(model_with_script, tmp_path, status):
    script = f"import os\ndef predict_fn(data, model): \n    if data[0][0] < 0: os._exit({status})"
    script += "\n    return model.predict(data)"
    with serving(model_with_script(script), tmp_path / "log", **ONE) as server:
        (victim,) = children(server)
        with pytest.raises(requests.ConnectionError):
            server.post("[[-1, 3.5, 1.4, 0.2]]")
        until(lambda: children(server) not in ([], [victim]))

        assert server.post(ROW).json() == [0]
        assert server.stop() == 0


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_that_a_script_left_does_not_keep_the_process(model_with_script, tmp_path, daemon):
    script = "import threading, time\n"
    script += f"threading.Thread(target=time.sleep, args=(60,), daemon={daemon}).start()\n"
    folder = model_with_script(script + "def model_fn(model_dir): raise KeyError('x')")
    began = time.monotonic()
    server = start(folder, tmp_path / "log")

    assert server.process.wait(20) == 1
    assert time.monotonic() - began < 15
    assert "skserve: The script's model_fn failed: KeyError" in server.log.read_text()


@pytest.mark.parametrize("preload", ["on", "off"])
def test_signals_that_a_script_blocks_are_heard(model_with_script, tmp_path, preload):
    script = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
    settings = {**ONE, "SKSERVE_PRELOAD": preload}
    with serving(model_with_script(script), tmp_path / "log", **settings) as server:
        (victim,) = children(server)
        os.kill(victim, signal.SIGKILL)
        until(lambda: children(server) not in ([], [victim]), 10)
        wait_until_ready(server)

        assert server.post(ROW).json() == [0]
        assert server.stop(15) == 0


def test_a_server_stops_though_a_script_left_a_thread(model_with_script, tmp_path):
    script = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
    with serving(model_with_script(script), tmp_path / "log", **ONE) as server:
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10


def test_who_waits_behind_a_hung_prediction_is_answered(model_with_script, tmp_path):
    settings = {**ONE, "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}
    folder = model_with_script(SLEEPY.format(seconds=60))
    with (
        serving(folder, tmp_path / "log", **settings) as server,
        ThreadPoolExecutor(4) as callers,
    ):
        stuck = callers.submit(server.post, ROW)
        time.sleep(1)
        waiting = [callers.submit(server.post, ROW) for _ in range(3)]

        assert stuck.result().status_code == 504
        for one in waiting:
            assert one.result().status_code == 503
            assert one.result().headers["Retry-After"] == "1"
            assert one.result().json()["error"]["code"] == "overloaded"


@pytest.mark.parametrize(
    ("script", "preload"),
    [
        ("def model_warmup_fn(model_dir, model): raise KeyError('cold')", "on"),
        ("def model_fn(model_dir): raise KeyError('cold')", "off"),
        ("def model_fn(model_dir): raise SystemExit(0)", "off"),
    ],
)
def test_workers_that_cannot_start_end_the_process_with_one_sentence(
    model_with_script, tmp_path, script, preload
):
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "3", "SKSERVE_PRELOAD": preload}
    server = start(model_with_script(script), tmp_path / "log", **settings)

    assert server.process.wait(20) == 1
    log = server.log.read_text()
    assert log.count("skserve: The script's model_") == 1
    assert "Traceback" not in log
    assert "HaltServer" not in log


@pytest.mark.skipif(os.geteuid() != 0, reason="made unreadable for another user")
@pytest.mark.parametrize("unreadable", ["model.joblib", "."])
def test_what_cannot_be_read_is_one_sentence(models, tmp_path, monkeypatch, unreadable):
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / unreadable))

    monkeypatch.setattr(preload.Model, "load", denied)
    with pytest.raises(StartError, match="cannot be read: Permission denied"):
        preload.preloaded(Config(model_dir=tmp_path), None)
    monkeypatch.setattr(server_module.source, "fetch", denied)
    monkeypatch.setattr(server_module.telemetry, "configure", lambda *_: None)
    monkeypatch.setattr(server_module.signal, "signal", lambda *_: None)
    with pytest.raises(StartError, match="cannot be read: Permission denied"):
        server_module.serve(Config(model_dir=tmp_path, user="root"))


@pytest.mark.parametrize("preload", ["on", "off"])
def test_the_code_is_fetched_once_for_all_workers(model_with_script, tmp_path, preload):
    script = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
    folder = model_with_script(script, requirements__txt="joblib\n")
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SKSERVE_PRELOAD": preload}
    with serving(folder, tmp_path / "log", **settings) as server:
        assert server.post(ROW).json() == [0]
        assert (tmp_path / "log").read_text().count("requirements.txt installed") == 1


def test_a_head_without_end_is_refused_without_a_thread(models, tmp_path):
    with serving(models("iris"), tmp_path / "log", **ONE) as server, connect(server) as client:
        client.settimeout(5)
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (70 << 10))
        said = b""
        while part := client.recv(4096):
            said += part
        assert said.startswith(b"HTTP/1.1 431 ")
        assert json.loads(said.split(b"\r\n\r\n")[1])["error"]["code"] == "head_too_large"
        assert server.ping() == 200


def test_chunks_that_are_none_are_the_callers_fault(models, tmp_path):
    with serving(models("iris"), tmp_path / "log", **ONE) as server, connect(server) as client:
        client.settimeout(5)
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n[[")
        said = b""
        while part := client.recv(4096):
            said += part
        assert said.startswith(b"HTTP/1.1 400 ")
        assert b"not chunked as HTTP says" in said
    assert "Traceback" not in (tmp_path / "log").read_text()


def sockets(pid: int) -> int:
    """Return the number of sockets that a process holds."""
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found += str(descriptor.readlink()).startswith("socket:")
        except OSError:
            continue
    return found


def test_new_connections_go_to_the_worker_that_holds_fewer(models, tmp_path):
    """No worker of two gets more than 60 %, also after one was killed with connections open."""
    with serving(models("iris"), tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        for _ in range(2):
            time.sleep(0.5)  # both are here
            held = dict.fromkeys(children(server), 0)
            for _ in range(5):
                idle = {pid: sockets(pid) for pid in held}
                clients = []
                for _ in range(8):
                    clients.append(connect(server))
                    time.sleep(0.03)
                for pid in held:
                    held[pid] += sockets(pid) - idle[pid]
                for one in clients[:-1]:
                    one.close()
                time.sleep(0.1)
            assert sum(held.values()) > 20  # of 40, should some still be on their way out
            assert max(held.values()) <= 0.6 * sum(held.values())
            victim = min(held)
            os.kill(victim, signal.SIGKILL)
            until(lambda gone=victim: gone not in children(server))
            until(lambda: len(children(server)) == 2)


def test_a_connection_is_taken_though_the_less_loaded_worker_is_stopped(models, tmp_path):
    with serving(models("iris"), tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        time.sleep(0.5)
        stopped = children(server)[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            clients = [connect(server) for _ in range(50)]
            for one in clients:
                one.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            for one in clients:
                one.settimeout(30)
                assert one.recv(12) == b"HTTP/1.1 200"
        finally:
            os.kill(stopped, signal.SIGCONT)


@pytest.fixture
def poller() -> Iterator[Poller]:
    """Return a poller that nothing runs, whose worker has a place of two."""
    balancer = Balancer(2)
    wake = os.pipe()
    one = Poller([], balancer, balancer.join(), wake, Limits(3, 1, 60, 60, 1000), None, None)
    one.start()
    yield one
    one.close()
    for end in wake:
        os.close(end)


def test_a_worker_that_stands_in_for_another_for_long_looks_no_further_than_the_last_connection(
    monkeypatch,
):
    monkeypatch.setattr("skserve.serving.listeners.PATIENCE", 60)
    looks = []

    def nobody() -> None:
        looks.append(1)
        assert len(looks) < 10, "looks for connections that are not there"
        raise BlockingIOError(errno.EAGAIN, "nobody")

    balancer = Balancer(2)
    place = balancer.join()
    listener = SimpleNamespace(fileno=lambda: 0, setblocking=lambda _: None, accept=nobody)
    listeners = Listeners([listener], balancer, place, lambda *_: None)
    balancer.say(place, 0)
    balancer.say(1, -5)  # holds fewer, for ever
    listeners._left_since, listeners._share = time.monotonic() - 90, 1 << 40
    listeners.accept(0)

    assert len(looks) == 1


def test_a_client_that_does_not_leave_does_not_keep_others_out(poller):
    """A client that said goodbye after it was once counted as still here."""
    pairs = [socket.socketpair() for _ in range(3)]
    clients = []
    for ours, _ in pairs:
        ours.setblocking(False)
        poller._take(ours, ("", 0), ("", 0))
        clients.append(poller._clients.get(ours.fileno()))
        poller._farewell(clients[-1])
    for client, (_, theirs) in zip(clients[1:], pairs[1:], strict=True):
        theirs.close()
        poller._readable(client)

    assert poller.held == 1
    pairs[0][1].close()
    poller._readable(clients[0])
    assert poller.held == 0


def test_a_worker_without_a_free_descriptor_goes_on_with_those_it_has(models, tmp_path):
    with serving(models("iris"), tmp_path / "log", **ONE) as server, connect(server) as client:
        worker = children(server)[0]
        client.settimeout(10)
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        used = len(list(Path(f"/proc/{worker}/fd").iterdir()))
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 10, used + 10))
        crowd = [connect(server) for _ in range(30)]
        time.sleep(0.2)

        busy = cpu_seconds(worker)
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        time.sleep(1)
        assert cpu_seconds(worker) - busy < 0.3, "the poller spins"
        for one in crowd:
            one.close()
        until(lambda: server.ping() == 200)
        assert children(server) == [worker]


@pytest.mark.parametrize(("files", "most"), [(1 << 20, 1200), (256, 128)])
def test_a_worker_holds_no_more_connections_than_files_may_be_open(monkeypatch, files, most):
    monkeypatch.setattr(sizing.resource, "getrlimit", lambda _: (files, files))
    config = Config(queue=182)
    limits = Limits.make(config, Plan(1, 2, 1))

    assert limits.threads == 200
    assert limits.connections == most


def test_a_head_that_cannot_end_is_refused_at_once(models, tmp_path):
    with serving(models("iris"), tmp_path / "log", **ONE) as server, connect(server) as client:
        client.settimeout(5)
        client.sendall(b"GET /ping HTTP/1.1\nHost: x\n\n")
        assert client.recv(12) == b"HTTP/1.1 400"


def test_a_worker_that_is_told_to_stop_before_it_listens_stops(models, tmp_path):
    """Each worker is told in the middle of its start."""
    script = tmp_path / "early.py"
    script.write_text(EARLY)
    command = [sys.executable, str(script), str(models("iris")), str(free_port())]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "container"), "SKSERVE_USER": "root"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=45)

    assert done.returncode == 0, done.stderr
    assert "Worker exiting" in done.stderr


EARLY = """
import os, signal, sys
from pathlib import Path
from skserve import telemetry
from skserve.config import Config
from skserve.serving.applications import SingleModelApplication
from skserve.serving.preload import preloaded
from skserve.serving.sizing import Plan


class Early(SingleModelApplication):
    def load_config(self):
        super().load_config()
        self.cfg.set("post_fork", lambda arbiter, worker: os.kill(os.getpid(), signal.SIGTERM))
        self.cfg.set("child_exit", lambda arbiter, worker: os.kill(os.getpid(), signal.SIGTERM))


config = Config(model_dir=Path(sys.argv[1]), port=int(sys.argv[2]))
telemetry.configure(config.log_level, config.log_format)
Early(config, Plan(1, 1, 1), preloaded(config, None), None).run()
"""


SLEEPER = """
import time
from sklearn.base import BaseEstimator, RegressorMixin

class Sleeper(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.n_features_in_ = 4
        return self

    def predict(self, X):
        time.sleep(5 if X[0, 0] > 100 else 0)
        return X[:, 0]
"""


def test_ping_does_not_wait_for_an_answer_that_is_dear_for_once(tmp_path, monkeypatch):
    """Nothing told the poller, which gives the cheap answers itself, that this one is not."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("sleeper").Sleeper().fit(None, None)
    (tmp_path / "model").mkdir()
    joblib.dump(model, tmp_path / "model" / "model.joblib")
    settings = {**ONE, "PYTHONPATH": f"{ROOT / 'container'}:{tmp_path}"}
    with (
        serving(tmp_path / "model", tmp_path / "log", **settings) as server,
        connect(server) as kept,
        ThreadPoolExecutor(1) as callers,
    ):
        kept.settimeout(10)
        for _ in range(20):
            assert server.post("[[1.0, 0, 0, 0]]").json() == [1.0]
        dear = callers.submit(server.post, "[[999, 0, 0, 0]]")
        time.sleep(0.5)
        for _ in range(10):
            assert server.ping() == 200
            kept.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(4096).startswith(b"HTTP/1.1 200")
            assert server.post("[[1.0, 0, 0, 0]]").json() == [1.0]
        assert not dear.done(), "they waited for it"
        assert dear.result().json() == [999.0]
        assert server.ping() == 200
        assert server.post("[[1.0, 0, 0, 0]]").json() == [1.0]


def test_what_the_poller_saw_of_a_connection_that_has_left_it_since_counts_for_nothing(poller):
    """It may see more of a client at the same moment in which it ends what that one sent before."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        poller._take(ours, ("", 0), ("", 0))
        client = poller._clients.get(ours.fileno())
        poller._clients.leave(client)
        theirs.sendall(b"GET /ping HTTP/1.1")
        poller.turn(0)

    assert poller.held == 1  # a thread has it
    assert ours.recv(100) == b"GET /ping HTTP/1.1", "read by nobody else"
    ours.close()


def test_an_answer_that_a_client_does_not_read_holds_nobody_up(models, tmp_path):
    """Cheap requests sent by the thousand on one connection whose answers are left lying."""
    one, count = HEAD + b"Content-Length: 15\r\n\r\n5.1,3.5,1.4,0.2", 1500
    with (
        serving(models("iris"), tmp_path / "log", **ONE) as server,
        connect(server) as client,
        ThreadPoolExecutor(1) as sender,
    ):
        for _ in range(20):
            assert server.post(ROW).status_code == 200  # known to be cheap now
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        client.settimeout(30)
        sent = sender.submit(client.sendall, one * count)
        time.sleep(0.5)
        began = time.perf_counter()
        assert server.ping() == 200
        assert server.post(ROW).json() == [0]
        assert time.perf_counter() - began < 10  # a poller that waited would do so for `STALL`

        said = b""
        while said.count(b"[0]") < count:
            said += client.recv(1 << 16)
        sent.result()
        assert said.count(b"HTTP/1.1 200 OK") == count


def test_a_thread_sends_what_the_kernel_does_not_take(poller):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        poller._take(ours, ("", 0), ("", 0))
        client, body = poller._clients.get(ours.fileno()), bytes(range(256)) * 8192
        client.connection.feed(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        poller._send(client, client.connection.request, Answer(200, body))
        assert client.group is None, "a thread has it"
        theirs.settimeout(10)
        got = b""
        while len(got) < len(body) or not got.endswith(body):
            got += theirs.recv(1 << 20)
        poller.turn(10)

        assert got.endswith(b"\r\n\r\n" + body)
        assert client.group is poller._clients.kept


def test_a_cheap_request_in_pieces_is_answered(models, tmp_path):
    one = HEAD + b"Content-Length: 15\r\n\r\n5.1,3.5,1.4,0.2"
    with serving(models("iris"), tmp_path / "log", **ONE) as server, connect(server) as client:
        client.settimeout(10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(10):
            for place in range(0, len(one), 40):
                client.sendall(one[place : place + 40])
                time.sleep(0.002)
            said = client.recv(4096)
            assert said.startswith(b"HTTP/1.1 200 OK")
            assert said.endswith(b"[0]"), "head and body come in one piece"


def test_what_a_client_sends_behind_a_large_body_is_the_next_request(models, tmp_path):
    """Also where the end of one and the start of the other come in one piece."""
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(models("iris"), tmp_path / "log", **ONE) as server, connect(server) as client:
        client.settimeout(10)
        for rows in (4200, 20_000):  # a little more than the poller reads, and more
            body = b"5.1,3.5,1.4,0.2\n" * rows
            large = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            client.sendall(large + ping + large)
            answer, said = b"[%s]" % b",".join([b"0"] * rows), b""
            while said.count(answer) < 2 and (part := client.recv(1 << 16)):
                said += part
            heads = said.split(answer)
            assert [one.count(b"HTTP/1.1 200 OK") for one in heads] == [1, 2, 0]


def answer_of(client: socket.socket) -> bytes:
    """Read one answer with a length, and return it all; what there was of it where it broke off."""
    said = b""
    while part := client.recv(1 << 16):
        said += part
        head, found, body = said.partition(b"\r\n\r\n")
        if found and len(body) >= int(re.search(rb"(?i)content-length: (\d+)", head)[1]):
            break
    return said


def test_no_kept_connection_loses_a_request_under_overload(model_with_script, tmp_path):
    """A refusal comes before the body does: it is followed by a request, or says "close"."""
    settings = {**ONE, "SKSERVE_QUEUE": "0"}
    body = b"5.1,3.5,1.4,0.2\n" * 6000  # more than is waited for without a place
    one = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with (
        serving(
            model_with_script(SLEEPY.format(seconds=6)), tmp_path / "log", **settings
        ) as server,
        ThreadPoolExecutor(1) as callers,
    ):
        busy = callers.submit(server.post, ROW)
        time.sleep(0.5)
        client, refused = connect(server), 0
        for _ in range(8):
            client.settimeout(10)
            client.sendall(one[: len(one) // 2])
            time.sleep(0.1)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(one[len(one) // 2 :])
            said = answer_of(client)
            assert said.startswith(b"HTTP/1.1 503"), "a request was lost"
            refused += 1
            if b"Connection: close" in said:
                client.close()
                client = connect(server)
        client.close()
        assert refused == 8
        assert busy.result().json() == [0]


def test_a_body_that_trickles_in_gives_its_place_up(model_with_script, tmp_path):
    """Every place is taken by a body of which a byte comes a second: less than anyone needs."""
    settings = {**ONE, "SKSERVE_QUEUE": "3"}
    folder = model_with_script("def predict_fn(data, model): return model.predict(data)")
    with serving(folder, tmp_path / "log", **settings) as server:
        slow = [connect(server) for _ in range(8)]
        for one in slow[:4]:
            one.sendall(HEAD + b"Content-Length: 100000\r\n\r\n5")
        for one in slow[4:]:
            one.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n5\r\n")
        began, statuses = time.monotonic(), []
        while 200 not in statuses:
            assert time.monotonic() - began < 15, "no place came free"
            for one in slow:
                with contextlib.suppress(OSError):
                    one.sendall(b".")
            statuses.append(server.post(ROW).status_code)
            time.sleep(1)

        assert 503 in statuses, "there was always a place"
        slow[0].settimeout(10)
        assert slow[0].recv(12) in (b"HTTP/1.1 408", b"HTTP/1.1 503")
        for one in slow:
            one.close()


def test_idle_connections_make_room_for_new_ones(models, tmp_path):
    """More than a worker holds, none of which says anything."""
    count = 1100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 1000), hard))
    try:
        with serving(models("iris"), tmp_path / "log", SKSERVE_QUEUE="0", **ONE) as server:
            idle = [connect(server) for _ in range(count)]
            began = time.monotonic()
            for _ in range(5):
                assert server.ping() == 200
                assert server.post(ROW).json() == [0]
            assert time.monotonic() - began < 10  # less than `STALL`, when they are given up

            idle[0].settimeout(5)
            assert idle[0].recv(1) == b"", "the one that has waited longest has to go"
            idle[-1].settimeout(5)
            idle[-1].sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle[-1].recv(12) == b"HTTP/1.1 200"
            for one in idle:
                one.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_waits_to_be_told_to_send_its_body_is_told(models, tmp_path):
    """Told only if the body is read: a refusal comes instead, and ends the connection."""
    with serving(models("iris"), tmp_path / "log", **ONE) as server:
        head = HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n"
        with connect(server) as client:
            client.settimeout(10)
            client.sendall(head % 15)
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(b"5.1,3.5,1.4,0.2")
            assert answer_of(client).startswith(b"HTTP/1.1 200")
        with connect(server) as client:
            client.settimeout(10)
            client.sendall(head % 10**9)
            said = answer_of(client)
            assert said.startswith(b"HTTP/1.1 413")
            assert b"Connection: close" in said
