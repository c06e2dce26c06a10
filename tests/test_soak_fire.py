"""Ten minutes of good, bad, slow and killing requests while processes are shot.

No answer is wrong, no connection hangs, memory does not grow, and a good request is lost only with
the process that had it. Half of the time goes to one model, half to many.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from tests.conftest import serving
from tests.many_models import ManyModels, many_models
from tests.servers import children, until
from tests.test_multi_soak import pss

pytestmark = pytest.mark.soak

SECONDS = int(os.environ.get("SKSERVE_SOAK_SECONDS", "600")) / 2
CALLERS = 8
GROWTH = 1.05

# The first number of a row says what is done, the second is the answer.
SCRIPT = """
import os, signal, time

def predict_fn(data, model):
    if data[0, 0] == 1:
        time.sleep(1.5)
    if data[0, 0] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return data[:, 1]
"""
GOOD, SLOW, KILLING = 0, 1, 2

# Bodies that callers get wrong, and the status of each.
BAD = [
    (b"1,2,3", "text/csv", 400),
    (b"a,b,c,d", "text/csv", 400),
    (b"[[1, 2, 3, 4]", "application/json", 400),
    (b"", "application/json", 400),
    (b"\xff\xfe", "application/json", 400),
    (b"1,2,3,4", "image/png", 415),
    (b"\x93NUMPY\x01", "application/x-npy", 400),
    (b"PK\x03\x04", "application/x-npz", 400),
]


class Death(NamedTuple):
    """When a process was shot, or a killing request was under way; `model` if only that one had."""

    began: float
    ended: float
    model: str


@dataclass
class Fire:
    """What was asked and met; `ask` sends a body to a model by its name."""

    ask: Callable[[str, bytes, str], requests.Response]
    names: tuple[str, ...]
    lost: frozenset[int]  # statuses that a request of a killed process may have
    deaths: list[Death] = field(default_factory=list)
    broken: list[Death] = field(default_factory=list)  # good requests that were lost, and when
    seen: Counter[Any] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def good(self, name: str, deed: int, chance: random.Random) -> None:
        """Ask for rows whose answers are known."""
        rows = [[deed, chance.randrange(10**6), 0, 0] for _ in range(chance.choice((1, 1, 20)))]
        body = "\n".join(",".join(map(str, row)) for row in rows).encode()
        began = time.monotonic()
        try:
            answer = self.ask(name, body, "text/csv")
        except requests.Timeout:
            self.wrong.append(f"{name}: no answer in {time.monotonic() - began:.0f} s")
            return
        except requests.RequestException:
            self.broken.append(Death(began, time.monotonic(), name))
            return
        self.seen[answer.status_code] += 1
        if answer.status_code in self.lost:
            self.broken.append(Death(began, time.monotonic(), name))
        elif answer.status_code == 200 and answer.json() != [row[1] for row in rows]:
            self.wrong.append(f"{name}: {answer.text[:200]} for {rows}")
        elif answer.status_code not in (200, 503):
            self.wrong.append(f"{name}: {answer.status_code} {answer.text[:200]}")

    def bad(self, name: str, chance: random.Random) -> None:
        body, kind, status = chance.choice(BAD)
        with suppress(requests.ConnectionError):
            answer = self.ask(name, body, kind)
            if answer.status_code not in (status, 503, *self.lost):
                self.wrong.append(f"{body!r} as {kind}: {answer.status_code} {answer.text[:200]}")

    def caller(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.stop.is_set():
            name, luck = chance.choice(self.names), chance.random()
            if luck < 0.15:
                self.bad(name, chance)
            else:
                self.good(name, SLOW if luck < 0.2 else GOOD, chance)

    def killer(self, shoot: Callable[[random.Random], str]) -> None:
        """Every few seconds shoot a process, or send a request that ends its own."""
        chance = random.Random(0)
        while not self.stop.wait(chance.uniform(3, 9)):
            began = time.monotonic()
            if chance.random() < 0.5:
                name = chance.choice(self.names)
                with suppress(requests.ConnectionError):
                    self.ask(name, b"%d,0,0,0" % KILLING, "text/csv")
            else:
                name = shoot(chance)
            self.deaths.append(Death(began, time.monotonic(), name))

    def run(self, shoot: Callable[[random.Random], str]) -> None:
        """Go on for the time of the soak, then wait until every call has ended."""
        works = [threading.Thread(target=self.caller, args=(seed,)) for seed in range(CALLERS)]
        works.append(threading.Thread(target=self.killer, args=(shoot,)))
        for work in works:
            work.start()
        time.sleep(SECONDS)
        self.stop.set()
        for work in works:
            work.join()

    def unexplained(self) -> list[Death]:
        """Return the good requests that were lost while no process that may have had them ended."""
        return [
            one
            for one in self.broken
            if not any(
                death.began < one.ended + 0.5
                and one.began < death.ended + 2
                and death.model in ("", one.model)
                for death in self.deaths
            )
        ]


def settled(measure: Callable[[], int], ask: Callable[[], None]) -> int:
    """Return the memory of a server after some calls of each kind, when it has come to rest."""
    for _ in range(60):
        ask()
    time.sleep(2)
    return measure()


def assert_held(fire: Fire, before: int, after: int) -> None:
    print(
        f"\n{dict(fire.seen)}, {len(fire.deaths)} kills, {len(fire.broken)} requests lost by them,"
        f" {before >> 20} MiB then {after >> 20} MiB"
    )
    assert fire.wrong == []
    assert fire.unexplained() == []
    assert len(fire.broken) <= len(fire.deaths) * CALLERS
    assert fire.seen[200] > SECONDS
    assert after <= before * GROWTH


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_one_model_under_fire(model_with_script, tmp_path):
    environ = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SKSERVE_THREADS": "2"}
    with serving(model_with_script(SCRIPT), tmp_path / "log", cold=True, **environ) as server:
        fire = Fire(lambda _, body, kind: server.post(body, kind), ("",), frozenset())

        def shoot(chance: random.Random) -> str:
            if workers := children(server):
                kill(chance.choice(workers))
            return ""

        def some() -> None:
            fire.good("", GOOD, random.Random(0))
            fire.bad("", random.Random(0))

        before = settled(lambda: pss(server.pid), some)
        fire.run(shoot)
        until(lambda: len(children(server)) == 2)
        after = settled(lambda: pss(server.pid), some)

        assert_held(fire, before, after)
        assert server.ping() == 200
        assert server.stop() == 0


NAMES = ("one", "two", "three")


def test_many_models_under_fire(add, tmp_path):
    for name in (*NAMES, "passing"):
        add(tmp_path / "models", name, SCRIPT)
    with many_models(tmp_path / "models", tmp_path / "log") as models:
        running: ManyModels = models
        for name in NAMES:
            assert running.load(name).status_code == 200

        def ask(name: str, body: bytes, kind: str) -> requests.Response:
            return running.invoke(name, body, kind)  # type: ignore[arg-type]

        fire = Fire(ask, NAMES, frozenset({500}))

        def shoot(chance: random.Random) -> str:
            """Shoot a model, a worker, or all models with their zygote; sometimes load another."""
            luck = chance.random()
            if luck < 0.2:
                running.load("passing")
                running.unload("passing")
                return "passing"
            with suppress(ValueError, IndexError, FileNotFoundError):
                if luck < 0.3:
                    kill(running.zygote)
                    return ""
                if luck < 0.5:
                    kill(chance.choice(running.workers))
                    return ""
                victim = chance.choice(running.models)
                name = Path(f"/proc/{victim}/comm").read_text().strip()
                kill(victim)
                return name
            return ""

        def some() -> None:
            for name in NAMES:
                fire.good(name, GOOD, random.Random(0))
                fire.bad(name, random.Random(0))

        before = settled(lambda: pss(running.server.pid), some)
        fire.run(shoot)
        until(lambda: sorted(running.names()) == sorted(NAMES))
        after = settled(lambda: pss(running.server.pid), some)

        assert_held(fire, before, after)
        assert running.server.stop() == 0
