"""A thousand rounds of many models with kills, in a process and in the image."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.many_models import ManyModels, children, many_models
from tests.servers import until
from tests.test_image import pytestmark as needs_docker
from tests.test_multi_image import contained

pytestmark = pytest.mark.soak

READ_ONLY = ("--read-only", "--user", "10001", "--tmpfs", "/tmp")
PLACES = [
    "process",
    pytest.param(READ_ONLY, marks=needs_docker, id="image"),
    pytest.param((*READ_ONLY, "--memory", "1g"), marks=needs_docker, id="image-1g"),
]

NAMES = [f"model-{number}" for number in range(20)]
ROUNDS = 1000
DOCUMENTED = {200, 404, 409, 500, 503, 507}


@pytest.fixture(params=PLACES)
def place(request, tmp_path) -> Callable[[Path], AbstractContextManager[ManyModels]]:
    """Return what runs the server on a folder of models."""
    if request.param == "process":
        return partial(many_models, log=tmp_path / "log")
    return partial(contained, request.getfixturevalue("image"), options=request.param)


def test_a_thousand_rounds_with_kills_leave_everything_as_it_was(add, tmp_path, place):
    """8 clients load, call and unload 20 models at once, while their processes are killed."""
    for number, name in enumerate(NAMES):
        script = f"def predict_fn(data, model): return [{number}] * len(data)"
        add(tmp_path / "models", name, script)
    with place(tmp_path / "models") as running:
        for name in NAMES:  # what one of each leaves in workers and libraries
            assert running.load(name).status_code == 200
            assert running.invoke(name).status_code == 200
            assert running.unload(name).status_code == 200
        before, began = pss(running.server.pid), time.monotonic()
        with kills(running) as killed:
            seen, wrong = rounds(running)
        took = time.monotonic() - began
        for name in running.names():
            assert running.unload(name).status_code == 200
        until(lambda: running.models == [], 5)
        grown = (pss(running.server.pid) - before) / 2**20
        print(f"\n{took:.0f} s, {dict(seen)}, {len(killed)} kills, {before >> 20} MiB {grown:+.1f}")
        assert wrong == []
        assert seen[200] > ROUNDS
        assert running.names() == []
        assert abs(grown) < 20
        assert running.load(NAMES[7]).status_code == 200
        assert running.invoke(NAMES[7]).json() == [7]


def rounds(running: ManyModels) -> tuple[Counter[int], list[str]]:
    """Return how often each status was answered, and what is neither right nor documented."""
    left, lock = iter(range(ROUNDS)), threading.Lock()
    seen: Counter[int] = Counter()
    wrong: list[str] = []

    def client(seed: int) -> None:
        chance = random.Random(seed)
        while True:
            with lock:
                if next(left, None) is None:
                    return
            number = chance.randrange(20)
            name = NAMES[number]
            load, call = running.load(name), running.invoke(name)
            for answer in (load, call, running.unload(name)):
                seen[answer.status_code] += 1
                if answer.status_code not in DOCUMENTED:
                    wrong.append(answer.text)
            if call.status_code == 200 and call.json() != [number]:
                wrong.append(f"{name} answered {call.text}")

    with ThreadPoolExecutor(8) as clients:
        for work in [clients.submit(client, seed) for seed in range(8)]:
            work.result()
    return seen, wrong


@contextmanager
def kills(running: ManyModels) -> Iterator[list[int]]:
    """Kill a model's process five times a second; the list grows by who was killed."""
    chance, stop = random.Random(0), threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not stop.wait(0.2):
            victims = running.models
            if victims:
                victim = chance.choice(victims)
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    with ThreadPoolExecutor(1) as killer:
        killing = killer.submit(kill)
        try:
            yield killed
        finally:
            stop.set()
            killing.result()


def pss(pid: int) -> int:
    """Return the bytes that a process and all below it hold."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return own + sum(pss(child) for child in children(pid))
