"""What follows when one of many models hangs, dies, is unloaded or comes back: to it alone."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.many_models import ManyModels, alive, error
from tests.servers import until

HOSTILE = """
import ctypes, os, sys, time
def predict_fn(data, model):
    deed = int(data[0, 0])
    if deed == 11: os._exit(3)
    if deed == 12: time.sleep(3600)
    if deed == 13: ctypes.PyDLL(None).sleep(3600)  # and no other thread gets Python's lock
    if deed == 14: raise MemoryError
    if deed == 15:
        for _ in range(100): os.write(1, b"x" * 999_999 + b"\\n")
    if deed == 16: os.kill(os.getpid(), 9)
    if deed == 17: os.closerange(3, 1000)
    if deed == 18: sys.exit(1)
    return model.predict(data)
"""


@pytest.fixture
def hostile(shared, add) -> ManyModels:
    if not (shared.root / "hostile").exists():
        add(shared.root, "hostile", HOSTILE)
    shared.load("hostile")
    shared.load("peaceful", shared.root / "iris")
    return shared


@pytest.mark.parametrize(
    ("deed", "status", "says"),
    [
        (11, 500, "died while it answered: its process ended by itself (exit status 3)"),
        (12, 504, "took longer than 2 s"),
        (13, 504, "did not answer within 7 s; its process was ended"),
        (14, 507, "ran out of memory"),
        (15, 200, ""),
        (16, 500, "its process was ended by SIGKILL"),
        (17, 500, "died"),
        (18, 500, "predict_fn failed"),
    ],
)
def test_a_hostile_model_hurts_only_itself(hostile, deed, status, says):
    took = []
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(hostile.invoke, "hostile", f"{deed},3.5,1.4,0.2")
        while not answer.done() or len(took) < 5:
            began = time.monotonic()
            assert hostile.invoke("peaceful").json() == [0]
            took.append(time.monotonic() - began)
            time.sleep(0.02)
    answer = answer.result()
    assert answer.status_code == status, answer.text
    if says:
        assert says in error(answer)
    assert sorted(took)[len(took) // 2] < 0.2
    assert hostile.invoke("hostile").json() == [0]
    if deed == 15:
        assert "[hostile] " in hostile.log
        until(lambda: "bytes of output dropped" in hostile.log)
        assert hostile.server.log.stat().st_size < 20 << 20


def test_a_model_that_keeps_dying_is_reported_and_not_looped(hostile):
    for _ in range(5):
        assert hostile.invoke("hostile", "11,1,1,1").status_code == 500
    answer = hostile.invoke("hostile")
    assert (answer.status_code, answer.json()["code"]) == (503, 503)
    assert "died 5 times, the last time because its process ended" in answer.json()["message"]
    assert answer.headers["Retry-After"] == "1"
    assert "hostile" in hostile.names()
    assert hostile.invoke("peaceful").json() == [0]
    hostile.unload("hostile")
    assert hostile.load("hostile").status_code == 200
    assert hostile.invoke("hostile").json() == [0]


def test_an_unload_waits_for_calls_in_flight_and_leaves_nothing(shared, add):
    script = "import tempfile, time, subprocess\n"
    script += "left = tempfile.mkdtemp(); helper = subprocess.Popen(['sleep', '3600'])\n"
    script += "def predict_fn(data, model):\n    time.sleep(2)\n    return [helper.pid]"
    add(shared.root, "busy", script)
    shared.load("busy")
    (pid,) = shared.models
    with ThreadPoolExecutor(1) as caller:
        call = caller.submit(shared.invoke, "busy")
        time.sleep(0.4)
        began = time.monotonic()
        assert shared.unload("busy").status_code == 200
        assert time.monotonic() - began > 0.3
        assert not Path(f"/proc/{pid}").exists()
        answer = call.result()
    assert answer.status_code == 200
    until(lambda: not alive(answer.json()[0]))
    until(lambda: not list(Path(tempfile.gettempdir()).glob(f"skserve-models-*/{pid}-*")))


def test_nothing_leaks_over_many_loads(shared):
    def descriptors() -> int:
        pids = [shared.server.pid, shared.zygote, *shared.workers]
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)

    def rounds(count: int) -> None:
        for number in range(count):
            name = f"leak-{number}"
            assert shared.load(name, shared.root / "iris").status_code == 200
            assert shared.invoke(name).json() == [0]
            assert shared.unload(name).status_code == 200

    rounds(5)
    time.sleep(1.1)
    rounds(2)
    before = descriptors()
    rounds(30)

    def few() -> bool:
        rounds(1)  # lines of models that are gone are closed by the next call, once a second
        return descriptors() <= before + 8

    until(few)
    assert shared.models == []


def test_a_killed_model_is_started_again(three):
    victims = three.models
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in victims))
    for name in ("a", "b", "c"):
        assert three.invoke(name).json() == [0]
    assert not set(three.models) & set(victims)
