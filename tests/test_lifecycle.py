"""The life of a model's process, as a table: every event in every state, and every death."""

from __future__ import annotations

import signal
from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skserve.multi_model import events, lifecycle
from skserve.multi_model.entry import DEATHS, DEATHS_WITHIN, Entry, State
from skserve.multi_model.events import (
    Answer,
    Closed,
    Connect,
    Count,
    Deadline,
    Drain,
    Ended,
    Event,
    Failed,
    Forget,
    Hung,
    Join,
    Kill,
    Late,
    Loaded,
    Malformed,
    Persist,
    ReplacementDue,
    Say,
    Spawn,
    Start,
    StartNext,
    Unanswered,
    Unload,
    Unstartable,
)

NEW, READY, DEAD, STARTING, RETIRING, LEAVING, GONE = State
ALIVE = (NEW, READY, STARTING, RETIRING, LEAVING)

HAPPENINGS: tuple[Event, ...] = (
    Connect("caller"),
    Unload("owner"),
    Start(),
    Unstartable("no process"),
    Loaded("A model", True, 0.1),
    Failed(400, "It cannot be read."),
    Hung(),
    ReplacementDue("it has answered 5 requests"),
    Unanswered(),
    Closed(),
    Malformed(),
    Late("it was late"),
    Ended(0, False),
    Ended(3, False),
    Ended(-signal.SIGKILL, False),
    Ended(-signal.SIGKILL, True),
)
EXIT, OOM = Ended(3, False), Ended(-signal.SIGKILL, True)

# (state, event): the next state and the kinds of effects in their order. All else changes nothing.
TABLE: dict[tuple[State, type[Event]], tuple[State, list[type]]] = {
    (NEW, Connect): (NEW, [Answer]),
    (NEW, Unload): (NEW, [Answer]),
    (NEW, Unstartable): (GONE, [Forget, Answer]),
    (NEW, Loaded): (READY, [Say, Deadline, Persist, Answer, StartNext]),
    (NEW, Failed): (NEW, []),
    (NEW, Ended): (GONE, [Forget, Say, Answer]),
    (READY, Connect): (READY, [Join]),
    (READY, Unload): (LEAVING, [Drain, Deadline]),
    (READY, Hung): (RETIRING, [Say, Drain, Deadline]),
    (READY, ReplacementDue): (RETIRING, [Say, Drain, Deadline]),
    (READY, Ended): (DEAD, [Count, Say]),
    (DEAD, Connect): (STARTING, [Spawn]),
    (DEAD, Unload): (GONE, [Forget, Persist, Say, Answer]),
    (DEAD, Start): (STARTING, [Spawn]),
    (STARTING, Connect): (STARTING, []),
    (STARTING, Unload): (LEAVING, [Kill, Deadline, Answer]),
    (STARTING, Unstartable): (DEAD, [Answer]),
    (STARTING, Loaded): (READY, [Say, Deadline, Persist, Join, StartNext]),
    (STARTING, Failed): (STARTING, []),
    (STARTING, Ended): (DEAD, [Count, Say, Answer, StartNext]),
    (RETIRING, Connect): (RETIRING, []),
    (RETIRING, Unload): (LEAVING, [Deadline, Answer]),
    (RETIRING, Ended): (STARTING, [Count, Say, Spawn]),
    (LEAVING, Connect): (LEAVING, [Answer]),
    (LEAVING, Unload): (LEAVING, [Answer]),
    (LEAVING, Ended): (GONE, [Forget, Persist, Say, Answer, StartNext]),
    (GONE, Connect): (GONE, [Answer]),
    (GONE, Unload): (GONE, [Answer]),
    **{(state, Unanswered): (state, [Kill]) for state in ALIVE},
    **{(state, Malformed): (state, [Kill]) for state in ALIVE},
    **{(state, Closed): (state, [Deadline]) for state in ALIVE},
    **{(state, Late): (state, [Deadline, Kill]) for state in ALIVE},
}


def entry(state: State) -> Entry:
    """Return a model in that state; a caller waits where one may."""
    one = Entry("m", "/m", 60.0, state)
    if state in (NEW, LEAVING):
        one.asker = "loader"
    if state in (STARTING, RETIRING):
        one.callers = ["first"]
    return one


@pytest.mark.parametrize(
    ("state", "event"),
    list(product(State, HAPPENINGS)),
    ids=lambda one: getattr(one, "name", str(one)),
)
def test_an_event_in_a_state(state, event):
    one = entry(state)
    wanted, kinds = TABLE.get((state, type(event)), (state, []))

    effects = lifecycle.handle(one, event, 0.0)

    assert one.state is wanted
    assert [type(effect) for effect in effects] == kinds


def after(*happened: Event, state: State = NEW) -> tuple[Entry, list[events.Effect]]:
    one, effects = entry(state), []
    for at, event in enumerate(happened):
        effects = lifecycle.handle(one, event, float(at))
    return one, effects


@pytest.mark.parametrize(
    ("happened", "status", "words"),
    [
        ([EXIT], 400, "The model cannot be loaded: its process ended by itself (exit status 3)."),
        ([Failed(507, "Too little."), Ended(0, False)], 507, "Too little."),
        ([Failed(400, "No file."), EXIT], 400, "No file."),
        ([OOM], 507, "There was not enough memory to load the model: its process was killed."),
        ([Ended(-9, False)], 507, "There was not enough memory to load the model: its process was "
         "killed."),
        ([Ended(-11, False)], 400, "The model cannot be loaded: its process was ended by SIGSEGV."),
        ([Ended(-99, False)], 400, "The model cannot be loaded: its process was ended by signal "
         "99."),
        ([Late("it did not load within 5 s"), Ended(-9, False)], 400,
         "The model cannot be loaded: it did not load within 5 s."),
        ([Malformed(), Ended(-9, False)], 400,
         "The model cannot be loaded: it wrote into the server's socket."),
        ([Closed(), Late("it closed the server's socket"), Ended(-9, False)], 400,
         "The model cannot be loaded: it closed the server's socket."),
        ([Unstartable("no memory")], 507, "No process can be started for the model: no memory."),
    ],
)  # fmt: skip
def test_the_loader_is_told_why_there_is_no_model(happened, status, words):
    one, effects = after(*happened)

    assert one.state is GONE
    assert effects[-1] == Answer("loader", status, words)


@pytest.mark.parametrize("death", [EXIT, OOM, Ended(0, False), Ended(-15, False)])
@pytest.mark.parametrize("state", ALIVE)
def test_a_death_at_any_moment_leaves_nothing_waiting_that_nothing_will_answer(state, death):
    one = entry(state)
    if state is READY:
        lifecycle.handle(one, Hung(), 0.0)
        lifecycle.handle(one, Connect("second"), 0.0)
    waiting = len(one.callers) + (one.asker is not None)

    effects = lifecycle.handle(one, death, 1.0)

    answered = sum(isinstance(effect, Answer) for effect in effects)
    assert answered == waiting or (one.state is STARTING and Spawn() in effects)
    assert len(one.deaths) == (state not in (NEW, LEAVING))


def test_a_model_that_dies_often_is_left_alone_for_a_while():
    one = entry(DEAD)
    for at in range(DEATHS):
        assert lifecycle.handle(one, Connect("caller"), at) == [Spawn()]
        lifecycle.handle(one, EXIT, at)

    (answer,) = lifecycle.handle(one, Connect("caller"), DEATHS)
    assert (answer.status, one.state) == (503, DEAD)
    assert "died 5 times" in answer.message
    assert "in 295 s" in answer.message
    assert lifecycle.handle(one, Connect("caller"), DEATHS_WITHIN + 1) == [Spawn()]


def test_a_planned_replacement_is_no_death_and_keeps_its_callers():
    one, effects = after(ReplacementDue("enough"), Connect("caller"), Ended(0, False), state=READY)

    assert (one.state, effects, len(one.deaths)) == (STARTING, [Count("recycled"), Spawn()], 0)
    assert Join("caller") in lifecycle.handle(one, Loaded("m", False, 0.1), 9.0)


def test_a_replacement_that_is_killed_for_being_late_is_a_death():
    one, effects = after(
        ReplacementDue("enough"),
        Late("it did not end when it was replaced"),
        Ended(-9, False),
        state=READY,
    )

    assert (one.state, len(one.deaths)) == (DEAD, 1)
    assert effects == [
        Count("hang"),
        Say("ERROR", "it did not end when it was replaced."),
    ]


@given(st.lists(st.sampled_from(HAPPENINGS), max_size=40), st.booleans())
def test_every_question_has_one_answer_and_every_model_one_process(happened, loads):
    """Whatever happens in whatever order, to a model that is loaded or was before."""
    one = entry(NEW if loads else DEAD)
    alive, asked, answered = loads, Counter({"loader": int(loads)}), Counter()
    for at, event in enumerate(happened):
        if isinstance(
            event, Ended | Loaded | Failed | Hung | ReplacementDue | Closed | Malformed | Late
        ):
            if not alive:
                continue  # a process says this
            alive = not isinstance(event, Ended)
        if isinstance(event, Unstartable):
            continue
        if isinstance(event, Connect | Unload):
            asked[event.peer] += 1
        before = one.state
        for effect in lifecycle.handle(one, event, float(at)):
            if isinstance(effect, Spawn):
                assert not alive
                alive = True
            if isinstance(effect, Kill | Drain | Join | Deadline):
                assert alive or before is not one.state
            if isinstance(effect, Answer | Join):
                answered[effect.peer] += 1
        assert alive == (one.state in ALIVE)
    waiting = Counter(one.callers)
    if one.state in (NEW, LEAVING):
        waiting[one.asker] += 1
    assert asked == answered + waiting
    assert waiting.total() == 0 or alive
