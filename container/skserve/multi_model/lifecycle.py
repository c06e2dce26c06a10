"""The life of a model's process as data: a state and an event give a state and effects.

    NEW       loading for the first time; only the loader knows of it
    READY     answers
    DEAD      registered, without a process; the next call starts one
    STARTING  loading again; calls wait for it
    RETIRING  it answers what it can, ends, and is DEAD or, where that was planned, starts again
    LEAVING   unloaded: it answers what it has, ends, and is forgotten
    GONE      forgotten

Nothing here knows a socket, a process or a clock: the zygote says what has happened, and when, and
carries the effects out in their order.
"""

from __future__ import annotations

from collections.abc import Callable

from skserve.multi_model import transitions
from skserve.multi_model.entry import Entry, State
from skserve.multi_model.events import (
    Closed,
    Connect,
    Effect,
    Ended,
    Event,
    Failed,
    Hung,
    Late,
    Loaded,
    Malformed,
    ReplacementDue,
    Start,
    Unanswered,
    Unload,
    Unstartable,
)


def handle(entry: Entry, event: Event, now: float) -> list[Effect]:
    """Let an entry go on to its next state. Return what is to be done, in that order."""
    transition = TRANSITIONS.get((entry.state, type(event)))
    if transition is None:
        return []
    entry.state, effects = transition(entry, event, now)
    return effects


NEW, READY, DEAD, STARTING, RETIRING, LEAVING, GONE = State
_ALIVE = (NEW, READY, STARTING, RETIRING, LEAVING)  # states in which there is a process

# What is not here changes nothing: it comes too late, or from a process that lies.
TRANSITIONS: dict[tuple[State, type[Event]], Callable[..., transitions.Outcome]] = {
    (NEW, Connect): transitions.not_found,
    (READY, Connect): transitions.join,
    (DEAD, Connect): transitions.start_for,
    (STARTING, Connect): transitions.wait,
    (RETIRING, Connect): transitions.wait,
    (LEAVING, Connect): transitions.not_found,
    (GONE, Connect): transitions.not_found,
    (NEW, Unload): transitions.not_found,
    (READY, Unload): transitions.drain,
    (DEAD, Unload): transitions.forget,
    (STARTING, Unload): transitions.abandon,
    (RETIRING, Unload): transitions.let_end,
    (LEAVING, Unload): transitions.not_found,
    (GONE, Unload): transitions.not_found,
    (DEAD, Start): transitions.start,
    (NEW, Unstartable): transitions.not_loaded,
    (STARTING, Unstartable): transitions.not_started,
    (NEW, Loaded): transitions.loaded,
    (STARTING, Loaded): transitions.loaded,
    (NEW, Failed): transitions.failed,
    (STARTING, Failed): transitions.failed,
    (READY, Hung): transitions.hung,
    (READY, ReplacementDue): transitions.replacement_due,
    **{(state, Unanswered): transitions.unanswered for state in _ALIVE},
    **{(state, Malformed): transitions.malformed for state in _ALIVE},
    **{(state, Closed): transitions.closed for state in _ALIVE},
    **{(state, Late): transitions.late for state in _ALIVE},
    (NEW, Ended): transitions.ended_new,
    (READY, Ended): transitions.ended,
    (STARTING, Ended): transitions.ended_starting,
    (RETIRING, Ended): transitions.ended,
    (LEAVING, Ended): transitions.ended_leaving,
}
