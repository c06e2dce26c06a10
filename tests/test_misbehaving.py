"""Each way in which a script may misbehave has its documented end, alone and among many models."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.conftest import serving
from tests.many_models import ManyModels, many_models
from tests.servers import children, until
from tests.test_image import Container, container, readable
from tests.test_multi_image import contained

# The first number of a row says what is done. At import the script takes the signals away, seeds
# `random`, and puts its own handlers in the place of ours.
SCRIPT = """
import os, random, signal, threading
import numpy as np

random.seed(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD])
if threading.current_thread() is threading.main_thread():  # else Python refuses
    for name in ("TERM", "INT", "QUIT", "CHLD", "USR1", "ALRM", "WINCH"):
        signal.signal(getattr(signal, "SIG" + name), lambda *_: None)


def flood():
    for _ in range(20_000):
        os.write(1, b"x" * 1000 + b"\\n")


def predict_fn(data, model):
    deed = int(data[0, 0])
    random.seed(0)
    if deed in (3, 4):
        os._exit(deed)
    if deed == 5:
        os.closerange(3, 4096)
    if deed == 6:
        threading.Thread(target=flood, daemon=True).start()
    return np.array([deed])
"""

EXITS_3, EXITS_4, CLOSES, FLOODS, HARMLESS = 3, 4, 5, 6, 7


Ask = Callable[[int | str], requests.Response]


def row(deed: int | str) -> str:
    return f"{deed},0,0,0"


@contextmanager
def alone(folder: Path, log: Path) -> Iterator[Ask]:
    with serving(folder, log, SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        yield lambda deed: server.post(row(deed), "text/csv")
        (worker, *_) = children(server)
        os.kill(worker, signal.SIGKILL)
        until(lambda: worker not in children(server) and len(children(server)) == 2)
        assert server.stop() == 0


@contextmanager
def alone_in_the_image(image: str, folder: Path) -> Iterator[Ask]:
    with container(image, readable(folder), noisy=True) as running:
        yield lambda deed: post(running, "/invocations", deed)


def post(running: Container, path: str, deed: int | str) -> requests.Response:
    headers = {"Content-Type": "text/csv"}
    return requests.post(f"{running.url}{path}", row(deed), headers=headers, timeout=60)


def answered(ask: Ask, deed: int) -> requests.Response:
    """Ask until a worker answers: one that has just died may still hold a connection."""
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = ask(deed)
            if answer.status_code == 200 or time.monotonic() > deadline:
                return answer
        except requests.ConnectionError:
            assert time.monotonic() < deadline
        time.sleep(0.1)


def assert_alone_it_ends_its_worker_at_most(ask: Ask) -> None:
    ids = {ask_for_an_error(ask) for _ in range(4)}
    assert len(ids) == 4, "a seeded random does not repeat them"
    for deed in (EXITS_3, EXITS_4, CLOSES):
        with pytest.raises(requests.ConnectionError):
            ask(deed)
        assert answered(ask, HARMLESS).json() == [HARMLESS]
    assert ask(FLOODS).json() == [FLOODS]
    assert answered(ask, HARMLESS).json() == [HARMLESS]


def ask_for_an_error(ask: Ask) -> str:
    answer = ask("no number")
    assert answer.status_code == 400
    return str(answer.json()["error"]["request_id"])


def assert_among_many_it_ends_its_own_process(models: ManyModels) -> None:
    for deed, says in (
        (EXITS_3, "exit status 3"),
        (EXITS_4, "exit status 4"),
        (CLOSES, "it closed the server's socket"),
    ):
        answer = models.invoke("bad", row(deed))
        assert answer.status_code == 500, answer.text
        assert says in answer.json()["error"]["message"]
        assert models.invoke("good").json() == [0]
    assert models.invoke("bad", row(FLOODS)).json() == [FLOODS]
    assert models.invoke("good").json() == [0]
    assert models.invoke("bad", row(HARMLESS)).json() == [HARMLESS]
    until(lambda: "bytes of output dropped" in models.log)
    assert models.unload("bad").status_code == 200


def test_alone_it_ends_its_worker_at_most(model_with_script, tmp_path):
    with alone(model_with_script(SCRIPT), tmp_path / "log") as ask:
        assert_alone_it_ends_its_worker_at_most(ask)


def test_among_many_it_ends_its_own_process(add, tmp_path):
    add(tmp_path / "models", "good")
    add(tmp_path / "models", "bad", SCRIPT)
    with many_models(tmp_path / "models", tmp_path / "log") as models:
        assert [models.load(name).status_code for name in ("good", "bad")] == [200, 200]
        assert_among_many_it_ends_its_own_process(models)
        assert models.server.stop() == 0


def test_alone_in_the_image(image, model_with_script):
    with alone_in_the_image(image, model_with_script(SCRIPT)) as ask:
        assert_alone_it_ends_its_worker_at_most(ask)


def test_among_many_in_the_image(image, add, tmp_path):
    for name, script in (("good", ""), ("bad", SCRIPT)):
        add(tmp_path / name, "model", script)
    with contained(image, tmp_path) as models:
        for name in ("good", "bad"):
            assert models.load(name, f"/opt/ml/models/{name}/model").status_code == 200
        assert_among_many_it_ends_its_own_process(models)
