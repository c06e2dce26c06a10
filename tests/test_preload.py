"""What is loaded before the workers fork and what in each of them, and starts that must fail."""

from __future__ import annotations

import importlib
import os
import signal
import time
from pathlib import Path

import joblib
import pytest
import requests
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skserve.config import Config
from skserve.errors import StartError
from skserve.serving import preload
from skserve.serving import server as server_module
from tests.conftest import ROOT, Server, serving, start, wait_until_ready
from tests.servers import (
    ROW,
    children,
    until,
)


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
    # The process that others are forked from has no pandas, or all of them would show it.
    with serving(models(model), tmp_path / "log", cold=model == "iris") as server:
        assert has_pandas(server) == {needs}


def test_pandas_is_shared_where_a_step_writes_frames_or_a_script_may(
    model_with_script, tmp_path, monkeypatch
):
    monkeypatch.setenv("SKSERVE_ACCELERATE", "off")  # its proof would ask the model
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, LogisticRegression()).fit([[0, 0], [1, 1]], [0, 1])
    (tmp_path / "frames").mkdir()
    joblib.dump(model, tmp_path / "frames" / "model.joblib")
    script = model_with_script("def predict_fn(data, model): pass")
    for folder, cold in ((tmp_path / "frames", False), (script, True)):
        with serving(folder, tmp_path / "log", cold) as server:
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


def test_the_first_request_of_a_worker_is_answered_as_the_later_ones_are(models, tmp_path):
    """By its poller: a thread would make it wait for a slot."""
    with serving(models("iris"), tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        assert server.post(ROW).json() == [0]

        until(lambda: "status=200" in server.log.read_text())
        line = server.log.read_text().partition("status=200")[2]
        assert "predict_ms" in line
        assert "queue_ms" not in line


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


GARBAGE = """
import gc
from sklearn.base import BaseEstimator, RegressorMixin

class Collecting(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.n_features_in_ = 4
        return self

    def predict(self, X):
        return [gc.isenabled()] * len(X)
"""


def test_garbage_is_collected_in_workers(tmp_path, monkeypatch):
    (tmp_path / "collecting.py").write_text(GARBAGE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "model").mkdir()
    model = importlib.import_module("collecting").Collecting().fit(None, None)
    joblib.dump(model, tmp_path / "model" / "model.joblib")
    settings = {"PYTHONPATH": f"{ROOT / 'container'}:{tmp_path}"}
    with serving(tmp_path / "model", tmp_path / "log", cold=True, **settings) as server:
        assert server.post(ROW).json() == [True]


def test_garbage_is_collected_while_a_script_is_loaded(model_with_script, tmp_path):
    script = "import gc\nat_load = gc.isenabled()\n"
    script += "def predict_fn(data, model):\n    return [at_load, gc.isenabled()]\n"
    with serving(model_with_script(script), tmp_path / "log", cold=True) as server:
        assert server.post(ROW).json() == [True, True]
