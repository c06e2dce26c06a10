"""How many run, how many wait, for how long, and how much is held."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from skserve.errors import ModelFault, NotReady, Overloaded, TimedOut
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.costs import Durations, Pace, cost_since
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.slots import Slots
from skserve.telemetry import begin, note_rows


def test_places_are_bounded_and_the_rest_refused_at_once():
    slots = Slots(2, 1, timeout=10)
    with slots.place(), slots.place(), slots.place():
        began = time.perf_counter()
        with pytest.raises(Overloaded), slots.place():
            pass
        assert time.perf_counter() - began < 2
    with slots.place():
        assert slots.run(lambda: 7) == 7


def test_no_more_run_at_once_than_there_are_slots():
    slots, seen, now = Slots(2, 8, timeout=10), [], []

    def work() -> None:
        now.append(1)
        seen.append(len(now))
        time.sleep(0.02)
        now.pop()

    with ThreadPoolExecutor(8) as callers:
        for one in [callers.submit(slots.run, work) for _ in range(16)]:
            one.result()

    assert max(seen) == 2


def test_a_prediction_too_long_is_given_up_and_its_slot_counted_as_lost():
    slots, gate = Slots(1, 1, timeout=0.1), threading.Event()
    single = LocalModel(slots, model=object())

    with pytest.raises(TimedOut, match=r"longer than 0\.1 s"):
        slots.run(gate.wait)
    assert single.hung()
    assert not single.ready()
    with pytest.raises(Overloaded, match="Every prediction of this worker hangs"):
        slots.run(gate.wait)

    gate.set()
    while slots.hung:
        time.sleep(0.01)
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

    Slots(1, 0, timeout=1).run(lambda: note_rows(3))

    assert record.rows == 3


def test_a_registry_without_a_model_is_not_ready():
    single = LocalModel(Slots(1, 0, timeout=1))

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


def test_who_waits_behind_predictions_that_all_hang_is_answered_at_once():
    slots, gate = Slots(1, 4, timeout=2), threading.Event()
    with ThreadPoolExecutor(3) as callers:
        stuck = callers.submit(slots.run, gate.wait)
        time.sleep(1.5)
        waiting = [callers.submit(slots.run, lambda: 7) for _ in range(2)]

        assert isinstance(stuck.exception(10), TimedOut)
        began = time.perf_counter()
        assert [type(one.exception(10)) for one in waiting] == [Overloaded, Overloaded]
        assert time.perf_counter() - began < 1  # their own time would end 1.5 s after his
        gate.set()


def test_a_slot_that_is_not_free_in_time_is_said():
    slots, gate = Slots(2, 4, timeout=0.5), threading.Event()
    with ThreadPoolExecutor(3) as callers:
        streams = [
            callers.submit(slots.run, lambda: 7, after=lambda _: gate.wait(2)) for _ in range(2)
        ]
        time.sleep(0.05)
        with pytest.raises(TimedOut, match="No prediction slot was free"):
            slots.run(lambda: 7)
        gate.set()
        assert [one.result(1) for one in streams] == [7, 7]


def test_what_cannot_end_in_its_time_is_not_started():
    slots, started = Slots(1, 4, timeout=1), []

    for _ in range(Durations.FEW):
        slots.run(lambda: time.sleep(0.3))
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(slots.run, lambda: time.sleep(0.8))
        time.sleep(0.05)
        with pytest.raises(Overloaded, match=r"After 0\.\d s .* 1 s .* not started") as refused:
            slots.run(lambda: started.append(1))
        assert refused.value.reason == "late"
        first.result()
    assert started == []


def test_only_what_has_run_for_the_timeout_hangs():
    slots, gate = Slots(1, 4, timeout=1), threading.Event()
    slots.run(lambda: 7, size=1)
    with ThreadPoolExecutor(3) as callers:
        callers.submit(slots.run, lambda: time.sleep(0.8))
        time.sleep(0.05)
        late = callers.submit(slots.run, lambda: gate.wait(0.6), size=1)  # its time ends first
        assert isinstance(late.exception(), TimedOut)

        assert not slots.hung
        assert slots.run(lambda: 7) == 7


def test_what_would_wait_too_long_is_refused_at_once_and_told_when_to_come_back():
    slots = Slots(1, 100, timeout=10, longest_wait=0.3)
    for _ in range(Durations.FEW):
        slots.run(lambda: time.sleep(0.1), size=100)
    with ThreadPoolExecutor(10) as callers:
        asked = [
            callers.submit(slots.run, lambda: time.sleep(0.1), size=100, refusable=True)
            for _ in range(10)
        ]
        refused = [one.exception() for one in asked if one.exception()]
        with slots.place():
            pass  # nothing waits any more

    assert 5 <= len(refused) <= 7
    assert {type(one) for one in refused} == {Overloaded}
    assert {(one.reason, one.retry_after) for one in refused} == {("time", 1)}


def test_a_slot_that_is_free_takes_what_it_is_given_whatever_the_pace():
    slots = Slots(1, 4, timeout=0.2, longest_wait=0.01)
    for _ in range(3):
        with pytest.raises(TimedOut):
            slots.run(lambda: time.sleep(0.3))
        while slots.in_progress:
            time.sleep(0.01)
    assert slots.run(lambda: 7, refusable=True) == 7


def test_small_bodies_are_expected_to_take_as_long_as_small_ones():
    durations = Durations()
    durations.learn(100, 8.0)
    assert durations.expected(100) == 0, "the first is no measure"
    for seconds in (0.1, 0.1, 9.0, 0.1):
        durations.learn(100, seconds)
    for _ in range(Durations.FEW):
        durations.learn(1 << 20, 5.0)

    assert durations.expected(120) == 0.1, "one of them does not matter"
    assert durations.expected(1 << 20) == 5
    assert durations.expected(1 << 10) == 5, "as most of the last"


@pytest.mark.parametrize("error", [SystemExit(3), SystemExit("x"), KeyboardInterrupt()])
def test_what_would_end_the_server_is_a_fault_of_the_model(error):
    slots = Slots(1, 0, timeout=1)

    with pytest.raises(ModelFault, match=f"tried to end the server .{type(error).__name__}"):
        slots.run(lambda: (_ for _ in ()).throw(error))
    assert slots.run(lambda: 7) == 7


def test_a_size_is_cheap_after_a_few_cheap_answers_and_dear_after_one_that_was_not():
    pace = Pace()
    assert not pace.cheap(20)
    for _ in range(Pace.PROOF):
        pace.watch(20, lambda: 7)
    assert pace.cheap(20)
    assert not pace.cheap(200), "another size"

    assert pace.watch(20, lambda: time.sleep(0.1)) is None
    assert not pace.cheap(20)
    for _ in range(Pace.PROOF):
        pace.watch(20, lambda: 7)
    assert not pace.cheap(20), "the dearer it was, the more it takes"
    for _ in range(100):
        pace.watch(20, lambda: 7)
    assert pace.cheap(20)


def test_one_dear_answer_among_a_hundred_is_taken_for_chance():
    pace = Pace()
    for _ in range(Pace.MANY):
        pace.learn(20, Pace.CHEAP)

    pace.learn(20, 50 * Pace.CHEAP)
    assert pace.cheap(20)
    pace.learn(20, 50 * Pace.CHEAP)
    assert not pace.cheap(20), "another one so soon is none"


@pytest.mark.parametrize(
    ("cost", "cheap"),
    [
        (0.1, {1: True, 31: True, 200: True, 1000: False}),
        (0.9, {1: True, 31: True, 32: False}),
        (1.1, {1: False, 20: False}),
    ],
)
def test_what_a_row_cost_says_which_sizes_are_cheap(cost, cheap):
    pace = Pace()
    pace.expect(20, cost * Pace.CHEAP)
    assert {size: pace.cheap(size) for size in cheap} == cheap


def test_the_first_answer_may_be_dearer_than_expected_but_not_the_second():
    pace = Pace()
    pace.expect(20, 0.1 * Pace.CHEAP)
    pace.learn(20, 50 * Pace.CHEAP)
    assert pace.cheap(20), "it was the first of its process"
    pace.learn(20, 50 * Pace.CHEAP)
    assert not pace.cheap(20)


def test_a_short_wait_is_hardly_any_work():
    """Two of them, of a prediction and around it, would else make a cheap call dear."""
    costs = []
    for _ in range(5):
        cost = cost_since()
        time.sleep(0.9 * Pace.CHEAP)
        costs.append(cost())

    assert min(costs) < Pace.CHEAP / 4


def test_a_large_body_is_never_cheap():
    pace = Pace()
    for _ in range(10):
        pace.watch(1 << 20, lambda: 7)
    assert not pace.cheap(1 << 20)
