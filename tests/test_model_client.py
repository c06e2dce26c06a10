"""The workers, as clients of the processes of many models."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import skserve.multi_model.client
import skserve.multi_model.pool
import skserve.serving.multi_model_api
from skserve.config import Config
from skserve.errors import Overloaded
from tests.many_models import IRIS, many_models
from tests.servers import until


def test_nothing_is_forgotten_when_a_worker_dies(three):
    victims = three.workers
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    until(lambda: len(set(three.workers) - set(victims)) == 2)
    for name in ("a", "b", "c"):
        until(lambda name=name: three.invoke(name).json() == [0])
    assert three.load("a").status_code == 409


def test_a_client_that_leaves_takes_nothing_with_it(three):
    host, port = three.server.url.removeprefix("http://").split(":")
    head = b"POST /models/a/invoke HTTP/1.1\r\nContent-Length: 15\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head + IRIS.encode())
    assert three.invoke("a").json() == [0]


def test_one_hanging_model_leaves_places_to_others(three, add):
    add(three.root, "hangs", "import time\ndef predict_fn(data, model): time.sleep(4)")
    three.load("hangs")
    with ThreadPoolExecutor(40) as callers:
        calls = [callers.submit(three.invoke, "hangs") for _ in range(40)]
        until(lambda: sum(call.done() for call in calls) > 20)
        assert three.invoke("a").json() == [0]
        assert three.server.ping() == 200
        assert {call.result().status_code for call in calls} == {503, 504}


def switches(pid: int) -> int:
    """Return how often the threads of a worker went to sleep, beside the one that polls."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if task.name != str(pid):
            status = (task / "status").read_text()
            found += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return found


def in_the_poller(running, worker: int) -> bool:
    """Whether most of 200 calls need no thread: a busy machine may make some look dear."""
    began, before = time.monotonic(), switches(worker)
    for _ in range(200):
        assert running.invoke("quick").json() == [0]
    standby = 10 * (time.monotonic() - began)  # it looks ten times a second
    return switches(worker) - before < 100 + standby


def test_the_poller_calls_cheap_models_and_waits_for_none(add, tmp_path):
    root = tmp_path / "models"
    for name in ("quick", "stopped"):
        add(root, name)
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "5"}
    with (
        many_models(root, tmp_path / "log", **settings) as running,
        ThreadPoolExecutor(1) as callers,
    ):
        running.load("stopped")
        (stopped,) = running.models
        running.load("quick")
        for name in ("quick", "stopped") * 20:
            assert running.invoke(name).json() == [0]

        (worker,) = running.workers
        assert any(in_the_poller(running, worker) for _ in range(5)), "all calls went to threads"

        os.kill(stopped, signal.SIGSTOP)
        hanging = callers.submit(running.invoke, "stopped")
        time.sleep(0.3)
        took: list[float] = []
        while len(took) < 20 and not hanging.done():  # a busy machine may need long for 20
            began = time.monotonic()
            assert running.invoke("quick").json() == [0]
            assert running.server.ping() == 200
            took.append(time.monotonic() - began)
        assert max(took) < 2.5, "one waited for it"
        assert hanging.result().status_code == 504
        assert running.invoke("stopped").json() == [0]


@pytest.mark.parametrize(
    ("said", "seconds", "cheap"), [(True, 0.001, True), (False, 0.001, False), (True, 1, False)]
)
def test_a_model_is_cheap_if_it_says_so_and_is(said, seconds, cheap):
    ours, theirs = socket.socketpair()
    connection = skserve.multi_model.pool.ModelConnection(ours.detach(), 1, False, 1)

    with theirs, connection.end:
        connection.learn(100, 0.001, True)
        connection.learn(100, seconds, said)

    assert ((100).bit_length() in connection.cheap) == cheap


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"POST /models/iris/invoke", "iris"),
        (b"POST /models/a%2Fb%20c/invoke", "a/b c"),
        (b"POST /models/\xff/invoke", "\udcff"),
        (b"GET /models/iris/invoke", None),
        (b"POST /models//invoke", None),
        (b"POST /models/a/b/invoke", None),
        (b"POST /models/iris/invoke?x=1", None),
        (b"POST http://host/models/iris/invoke", None),
    ],
)
def test_the_poller_sees_which_model_is_called(line, name):
    assert skserve.serving.multi_model_api.invoked(line) == name


def test_models_that_hang_share_the_places_with_those_that_do_not():
    with socket.socket() as control, ExitStack() as held:
        models = skserve.multi_model.client.ModelClient(control, Config(queue=1000), 60)
        for name, places in (("hangs", 30), ("hangs too", 15), ("another", 8)):
            for _ in range(places):
                held.enter_context(models.place(name))
            with pytest.raises(Overloaded, match="of this model"):
                held.enter_context(models.place(name))
        held.enter_context(models.place("quick"))
