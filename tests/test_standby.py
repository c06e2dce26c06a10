"""The standby: it polls while the poller is away with an answer that takes long."""

from __future__ import annotations

import importlib
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import joblib

from skserve.serving import standby
from tests.conftest import ROOT, serving
from tests.servers import ONE, connect

SLEEPER = """
import os, time
from sklearn.base import BaseEstimator, RegressorMixin

class Sleeper(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.n_features_in_ = 4
        return self

    def predict(self, X):
        while X[0, 0] > 100 and not os.path.exists(os.environ["GATE"]):
            time.sleep(0.01)
        return X[:, 0]
"""


def test_ping_does_not_wait_for_an_answer_that_is_dear_for_once(tmp_path, monkeypatch):
    """Nothing told the poller, which gives the cheap answers itself, that this one is not."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("sleeper").Sleeper().fit(None, None)
    (tmp_path / "model").mkdir()
    joblib.dump(model, tmp_path / "model" / "model.joblib")
    gate = tmp_path / "gate"
    settings = {**ONE, "GATE": str(gate), "PYTHONPATH": f"{ROOT / 'container'}:{tmp_path}"}
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
        assert not dear.done()
        gate.touch()
        assert dear.result().json() == [999.0]
        assert server.ping() == 200
        assert server.post("[[1.0, 0, 0, 0]]").json() == [1.0]


def test_the_standby_polls_for_an_answer_that_it_has_seen_before(monkeypatch):
    """A machine that stood still in between has not kept the poller from coming back."""
    look, looked, polled = threading.Semaphore(0), threading.Semaphore(0), queue.Queue()
    others = threading.enumerate()  # among them the standby threads of other tests

    def sleep(seconds: float) -> None:
        if threading.current_thread() in others:
            time.sleep(seconds)
            return
        looked.release()
        look.acquire()

    monkeypatch.setattr(standby, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    one = standby.Standby(lambda client, _: polled.put(client))
    one.start()
    looked.acquire()
    for client in ("first", "second"):
        one.leave(client)
        time.sleep(2 * standby.AWAY)
        look.release()
        assert looked.acquire(timeout=10)
        assert polled.empty()
        one.come_back()
    one.leave("third")
    look.release()
    looked.acquire()
    look.release()
    assert polled.get(timeout=10) == "third"
    one.come_back()
