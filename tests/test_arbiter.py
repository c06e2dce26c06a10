"""The master: it stops in order, and replaces workers that die or hang."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.conftest import ROOT, Server, serving, start, wait_until_ready
from tests.servers import (
    HEAD,
    ONE,
    ROW,
    SLEEPY,
    children,
    connect,
    until,
)


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
                # Never accepted: the socket was closed before this caller connected.
                assert "refused" in str(error)
                refused += 1
        assert status == 0
        assert time.monotonic() - began < 25
        assert refused < 190


def test_a_server_that_stops_answers_queued_connections_and_the_kernel_drops_new_ones(
    models, tmp_path
):
    """One that the kernel queues after the workers' last look would be reset with its request."""
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


@pytest.mark.parametrize("stops", [1, pytest.param(40, marks=pytest.mark.soak)])
def test_no_caller_is_reset_while_the_server_stops(models, tmp_path, stops):
    """Sixteen callers make a connection for each call until they are let in no more."""
    for turn in range(stops):
        log = tmp_path / str(turn)
        with (
            serving(models("iris"), log, SAGEMAKER_MODEL_SERVER_WORKERS="2") as server,
            ThreadPoolExecutor(16) as callers,
        ):
            answers = [callers.submit(calls_until_refused, server) for _ in range(16)]
            time.sleep(0.2 + turn / 100)  # not always at the same moment of a call
            assert server.stop() == 0
            assert sum(answer.result() for answer in answers) > 0, "no call before the stop"


def calls_until_refused(server: Server) -> int:
    """Call again and again; return how many calls were answered. Raises what breaks one off."""
    for answered in itertools.count():
        try:
            client = connect(server)
        except (ConnectionRefusedError, TimeoutError):
            return answered
        with client:
            client.settimeout(30)
            client.sendall(CALL)
            said = b""
            while part := client.recv(4096):
                said += part
        assert said.startswith(b"HTTP/1.1 200 OK")
        assert said.endswith(b"[0]")
    raise AssertionError("it counts without end")


CALL = HEAD + b"Connection: close\r\nContent-Length: 15\r\n\r\n5.1,3.5,1.4,0.2"


def test_an_idle_server_stops_quickly(models, tmp_path):
    with serving(models("iris"), tmp_path / "log") as server:
        silent = connect(server)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15  # less than `GRACE`
        silent.close()


def test_a_server_stops_though_a_script_left_a_thread(model_with_script, tmp_path):
    script = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
    with serving(model_with_script(script), tmp_path / "log", **ONE) as server:
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10


def test_a_worker_that_is_told_to_stop_before_it_listens_stops(models, tmp_path):
    """Each worker is told in the middle of its start."""
    (tmp_path / "early.py").write_text(EARLY)
    path = f"{ROOT / 'container'}:{tmp_path}"
    server = start(models("iris"), tmp_path / "log", module="early", PYTHONPATH=path)

    said = server.log.read_text
    assert server.process.wait(45) == 0, said()
    assert "Worker exiting" in said()


EARLY = """
import os, signal, sys
from pathlib import Path
from skserve import telemetry
from skserve.config import Config
from skserve.serving.single_model_app import SingleModelApplication
from skserve.serving.preload import preloaded
from skserve.serving.sizing import Plan


class Early(SingleModelApplication):
    def load_config(self):
        super().load_config()
        self.cfg.set("post_fork", lambda arbiter, worker: os.kill(os.getpid(), signal.SIGTERM))
        self.cfg.set("child_exit", lambda arbiter, worker: os.kill(os.getpid(), signal.SIGTERM))


config = Config(model_dir=Path(sys.argv[3]), port=int(sys.argv[5]))
telemetry.configure(config.log_level, config.log_format)
Early(config, Plan(1, 1, 1), preloaded(config, None), None).run()
"""


def test_a_killed_worker_is_replaced_and_said(servers):
    server = servers("iris", SAGEMAKER_MODEL_SERVER_WORKERS="2")
    victim = children(server)[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in children(server) and len(children(server)) == 2)

    assert server.post(ROW).json() == [0]
    assert re.search(rf"pid:\s*{victim}\) was sent SIGKILL", server.log.read_text())


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


def test_sys_exit_in_a_script_ends_neither_the_worker_nor_the_server(model_with_script, tmp_path):
    script = "import sys\ndef predict_fn(data, model): sys.exit(int(data[0][0]))"
    with serving(model_with_script(script), tmp_path / "log", **ONE) as server:
        before = children(server)
        for status in (0, 3, 0, 3):
            answer = server.post(f"[[{status}, 3.5, 1.4, 0.2]]")
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "model_error"
        assert children(server) == before


def test_a_script_that_ends_its_worker_ends_no_other(model_with_script, tmp_path):
    """Whatever the status: gunicorn takes 3 and 4 for a worker that can never start."""
    script = "import os\ndef predict_fn(data, model): \n    if data[0][0] < 0: "
    script += "os._exit(-int(data[0][0]))\n    return model.predict(data)"
    with serving(model_with_script(script), tmp_path / "log", **ONE) as server:
        for status in (1, 3, 4):
            (victim,) = children(server)
            with pytest.raises(requests.ConnectionError):
                server.post(f"[[-{status}, 3.5, 1.4, 0.2]]")
            until(lambda gone=victim: children(server) not in ([], [gone]))

            assert server.post(ROW).json() == [0]
        assert server.stop() == 0


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
