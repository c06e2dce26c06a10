"""How many run, how many wait, for how long, and how much is held."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from skserve.bounds import Bodies, Slots
from skserve.errors import NotReady, Overloaded, TimedOut
from skserve.registry import Single
from skserve.telemetry import begin, note


def test_running_and_waiting_are_bounded_and_the_rest_refused_at_once():
    slots, gate = Slots(2, 3, timeout=10), threading.Event()
    with ThreadPoolExecutor(5) as callers:
        admitted = [callers.submit(slots.run, gate.wait) for _ in range(5)]
        time.sleep(0.2)
        began = time.perf_counter()
        with pytest.raises(Overloaded):
            slots.run(gate.wait)
        assert time.perf_counter() - began < 0.1
        gate.set()
        assert all(one.result() for one in admitted)

    assert slots.run(lambda: 7) == 7


def test_a_prediction_too_long_is_given_up_and_its_slot_counted_as_lost():
    slots, gate = Slots(1, 1, timeout=0.1), threading.Event()
    single = Single(slots, model=object())

    with pytest.raises(TimedOut, match=r"longer than 0\.1 s"):
        slots.run(gate.wait)
    assert single.hung()
    assert not single.ready()
    with pytest.raises(TimedOut, match="No prediction slot was free"):
        slots.run(gate.wait)

    gate.set()
    assert slots.run(lambda: 7) == 7
    assert single.ready()


def test_an_exception_comes_through_and_frees_the_slot():
    slots = Slots(1, 0, timeout=1)
    for error in (ValueError("x"), TimeoutError("of the work itself")):
        with pytest.raises(type(error), match=str(error)):
            slots.run(lambda error=error: (_ for _ in ()).throw(error))

    assert slots.run(lambda: 7) == 7


def test_the_record_of_a_request_follows_it_into_its_slot():
    record = begin("id")

    Slots(1, 0, timeout=1).run(lambda: note(rows=3))

    assert record.facts == {"rows": 3}


def test_a_registry_without_a_model_is_not_ready():
    single = Single(Slots(1, 0, timeout=1))

    assert not single.ready()
    with pytest.raises(NotReady):
        single.describe()


def test_bodies_are_bounded_all_together():
    bodies = Bodies(100)
    full = pytest.raises(Overloaded, match="100 bytes are in work; 1 more")
    with bodies.hold(60), bodies.hold(40), full, bodies.hold(1):
        pass
    with bodies.hold(1000):  # alone, a body may be larger than the bound for all
        pass
    with bodies.hold(100):
        pass
