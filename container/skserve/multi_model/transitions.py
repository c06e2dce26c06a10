"""What each event does to a model: the transitions that the table of `lifecycle` names.

Each returns the next state and the effects, in the order in which they are to be carried out."""

from __future__ import annotations

import signal

from skserve.multi_model.entry import Entry, State
from skserve.multi_model.events import (
    Answer,
    Closed,
    Connect,
    Count,
    Deadline,
    Drain,
    Effect,
    Ended,
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

# Seconds that a process may live without its channel: if it is dying, its own end says why.
EXIT_GRACE = 1


Outcome = tuple[State, list[Effect]]


def join(entry: Entry, event: Connect, now: float) -> Outcome:
    return entry.state, [Join(event.peer)]


def wait(entry: Entry, event: Connect, now: float) -> Outcome:
    entry.callers.append(event.peer)
    return entry.state, []


def not_found(entry: Entry, event: Connect | Unload, now: float) -> Outcome:
    return entry.state, [Answer(event.peer, 404, f"Model not found: {entry.name}")]


def start_for(entry: Entry, event: Connect, now: float) -> Outcome:
    """Start a dead model for a call, unless it has died too often."""
    if entry.dies_often(now):
        return State.DEAD, [Answer(event.peer, 503, entry.why_not(now))]
    entry.callers.append(event.peer)
    return _begun(entry)


def start(entry: Entry, event: Start, now: float) -> Outcome:
    return (State.DEAD, []) if entry.deaths else _begun(entry)


def _begun(entry: Entry) -> Outcome:
    entry.reason, entry.failure, entry.planned = "", None, False
    return State.STARTING, [Spawn()]


def not_loaded(entry: Entry, event: Unstartable, now: float) -> Outcome:
    message = f"No process can be started for the model: {event.why}."
    return State.GONE, [Forget(), Answer(entry.asker, 507, message)]


def not_started(entry: Entry, event: Unstartable, now: float) -> Outcome:
    entry.last_error = f"no process can be started ({event.why})."
    return State.DEAD, _refused(entry, 503, entry.why_not(now))


def loaded(entry: Entry, event: Loaded, now: float) -> Outcome:
    entry.scripted = event.scripted
    say = Say("INFO", f"{event.title}, loaded in {1e3 * event.seconds:.0f} ms")
    # Written down before it is answered: what was answered is not forgotten.
    effects: list[Effect] = [say, Deadline(None), Persist()]
    if entry.asker is not None:
        effects.append(Answer(entry.asker, 200))
    effects += [Join(peer) for peer in entry.callers]
    entry.asker, entry.callers = None, []
    return State.READY, [*effects, StartNext()]


def failed(entry: Entry, event: Failed, now: float) -> Outcome:
    entry.failure = event
    return entry.state, []


def hung(entry: Entry, event: Hung, now: float) -> Outcome:
    entry.reason = "every prediction hung"
    say = Say("ERROR", "every prediction hangs; its process is replaced")
    return State.RETIRING, [say, Drain(), Deadline(entry.patience, entry.reason)]


def replacement_due(entry: Entry, event: ReplacementDue, now: float) -> Outcome:
    entry.planned = True
    late = Deadline(entry.patience, "it did not end when it was replaced")
    return State.RETIRING, [Say("INFO", f"its process is replaced: {event.why}"), Drain(), late]


def drain(entry: Entry, event: Unload, now: float) -> Outcome:
    return _leaving(entry, event, [Drain()])


def abandon(entry: Entry, event: Unload, now: float) -> Outcome:
    return _leaving(entry, event, [Kill()])


def let_end(entry: Entry, event: Unload, now: float) -> Outcome:
    return _leaving(entry, event, [])


def _leaving(entry: Entry, event: Unload, effects: list[Effect]) -> Outcome:
    entry.asker = event.peer
    late = Deadline(entry.patience, "it did not end when it was unloaded")
    refused = _refused(entry, 404, f"Model not found: {entry.name}")
    return State.LEAVING, [*effects, late, *refused]


def forget(entry: Entry, event: Unload, now: float) -> Outcome:
    entry.asker = event.peer
    return State.GONE, _forgotten(entry)


def unanswered(entry: Entry, event: Unanswered, now: float) -> Outcome:
    entry.reason = "it did not answer in time, and was killed"
    return entry.state, [Kill()]


def malformed(entry: Entry, event: Malformed, now: float) -> Outcome:
    entry.reason = entry.reason or "it wrote into the server's socket"
    return entry.state, [Kill()]


def closed(entry: Entry, event: Closed, now: float) -> Outcome:
    return entry.state, [Deadline(EXIT_GRACE, "it closed the server's socket")]


def late(entry: Entry, event: Late, now: float) -> Outcome:
    entry.reason = entry.reason or event.why
    return entry.state, [Deadline(None), Kill()]


def ended_new(entry: Entry, event: Ended, now: float) -> Outcome:
    """Tell the loader why there is no model."""
    if entry.failure:
        status, message = entry.failure.status, entry.failure.words
    elif event.code == -signal.SIGKILL and not entry.reason:
        status = 507
        message = "There was not enough memory to load the model: its process was killed."
    else:
        status, message = 400, f"The model cannot be loaded: {entry.how_it_ended(event)}."
    say = Say("ERROR", f"not loaded: {message}")
    return State.GONE, [Forget(), say, Answer(entry.asker, status, message)]


def ended(entry: Entry, event: Ended, now: float) -> Outcome:
    """Start it again where that was planned, or where callers wait for it."""
    if entry.planned and event.code == 0:
        state, effects = _begun(entry)
        return state, [Count("recycled"), *effects]
    died = _died(entry, event, now)
    if not entry.callers:
        return State.DEAD, died
    if entry.dies_often(now):
        return State.DEAD, [*died, *_refused(entry, 503, entry.why_not(now))]
    state, effects = _begun(entry)
    return state, [*died, *effects]


def ended_leaving(entry: Entry, event: Ended, now: float) -> Outcome:
    return State.GONE, [*_forgotten(entry), StartNext()]


def ended_starting(entry: Entry, event: Ended, now: float) -> Outcome:
    died = _died(entry, event, now)
    out_of_memory = event.out_of_memory or (
        entry.failure is not None and entry.failure.status == 507
    )
    words = f"Model {entry.name} died and cannot be started again: {entry.last_error}"
    refused = _refused(entry, 507 if out_of_memory else 500, words)
    return State.DEAD, [*died, *refused, StartNext()]


def _died(entry: Entry, event: Ended, now: float) -> list[Effect]:
    """Remember a death."""
    end = "out_of_memory" if event.out_of_memory else "hang" if entry.reason else "crash"
    entry.deaths.append(now)
    entry.last_error = entry.failure.words if entry.failure else entry.how_it_ended(event) + "."
    return [Count(end), Say("ERROR", entry.last_error)]


def _forgotten(entry: Entry) -> list[Effect]:
    return [Forget(), Persist(), Say("INFO", "unloaded"), Answer(entry.asker, 200)]


def _refused(entry: Entry, status: int, message: str) -> list[Effect]:
    callers, entry.callers = entry.callers, []
    return [Answer(peer, status, message) for peer in callers]
