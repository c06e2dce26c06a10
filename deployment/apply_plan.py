"""Applying a plan: the calls in order, and an honest end when one fails.

Three rules. What this run made and nothing serves is removed again. What serves is never touched.
What goes on by itself (an endpoint still being made or changed) is left alone and named, with the
command that picks it up again. Refusals that only mean "not yet" are waited out in `patience`.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field

from deployment import survey, watch
from deployment.answers import absent
from deployment.aws import Answer, Cloud
from deployment.console import Talk
from deployment.errors import ApiError, DeployError, Failed, Refused, Unreachable
from deployment.logs import paragraph, tail
from deployment.patience import patiently
from deployment.state import Endpoint
from deployment.step import Call, Plan, Wait
from deployment.watch import EndpointFailed, Pace

_SERVING = ("create_endpoint", "update_endpoint")  # from here on, something may serve
_ASYNC_SECONDS = 900.0  # an asynchronous call's own default limit
_GONE_SECONDS = 1800  # how long the removal of a failed endpoint is waited for


@dataclass
class Run:
    """One application of a plan: what has been done so far."""

    cloud: Cloud
    plan: Plan
    talk: Talk
    pace: Pace
    made: list[Call] = field(default_factory=list)
    handed_over: Call | None = None  # the call that made or changes the endpoint
    answers: list[Answer] = field(default_factory=list)


def apply(cloud: Cloud, plan: Plan, talk: Talk, pace: Pace, wait: bool = True) -> Run:
    """Apply the plan and return what was done. Raises `DeployError`, after cleaning up.

    Without `wait` it ends once AWS has taken up the change of the endpoint; what comes after that
    is left to the next run.
    """
    if plan.restore and not wait:
        raise Refused(
            "scaling is taken away before this update and put back after it",
            "run it without --no-wait",
        )
    run = Run(cloud, plan, talk, pace)
    try:
        for step in plan.steps:
            if isinstance(step, Wait) and step.until == "in service" and not wait:
                break
            _step(run, step)
    except EndpointFailed as error:
        _note_failure(run)
        _after_failure(run, error)
        raise
    except KeyboardInterrupt:
        raise Failed(f"interrupted. {_left(run, None)}") from None
    except DeployError as error:
        error.message = f"{error.message}\n{_left(run, error)}"
        raise
    return run


def _step(run: Run, step: Call | Wait) -> None:
    if isinstance(step, Wait):
        watch.endpoint(run.cloud, step, run.talk, run.pace)
        return
    run.talk.say(f"{step.operation}: {step.why}")
    if step.operation in _SERVING:
        run.handed_over = step
    if step.undo is not None:
        run.made.append(step)  # before the call: if its answer is lost, it may be made all the same
    try:
        run.answers.append(patiently(run.cloud, step, run.talk, run.pace))
    except ApiError as error:
        if not _happened(run, step, error):
            _refused(run, step)
            if "in-progress" in error.message.lower():
                error.hint = "another run changes it; run the same command again: it waits for that"
            if step.operation.startswith("invoke_endpoint"):
                _note_failure(run)
            raise
        if step.undo is not None and not error.tried_again:
            run.made.remove(step)  # it exists, and no attempt of ours made it: another run did
    if step.operation.startswith("invoke_endpoint"):
        try:
            _answered(run)
        except Failed:
            _note_failure(run)
            raise


def _refused(run: Run, step: Call) -> None:
    """Note that AWS refused the call, so nothing was made by it."""
    if step is run.handed_over:
        run.handed_over = None
    if step.undo is not None:
        run.made.remove(step)


def _note_failure(run: Run) -> None:
    """Write into the endpoint's tag that this config failed, so that no rollback returns to it."""
    for call in run.plan.on_failure:
        with suppress(DeployError):
            run.cloud.apply(call)


def _happened(run: Run, call: Call, error: ApiError) -> bool:
    """Say whether a refused call has in fact taken effect, or need not.

    A retry after a lost answer is told "already existing"; a removal may find nothing to remove.
    """
    if call.operation.startswith(("delete_", "deregister_")):
        return absent(error)
    taken = ("BucketAlreadyOwnedByYou", "RepositoryAlreadyExistsException")
    if error.code not in taken and "already exist" not in error.message.lower():
        return False
    if call.operation != "create_endpoint":
        return True  # names are digests: what has this name holds this content
    found = survey.find_endpoint(run.cloud, run.plan.endpoint)
    return found is not None and found.config == call.arguments["EndpointConfigName"]


def _answered(run: Run) -> None:
    """Tell what the test call brought. An asynchronous one is waited for: 202 proves nothing."""
    answer = run.answers[-1]
    if "OutputLocation" in answer:
        content = watch.outcome(run.cloud, answer, run.pace, _ASYNC_SECONDS)
    else:
        content = answer.get("Body", b"")
    text = content.decode("utf-8", "replace").strip()
    run.talk.say(f"  answered {text if len(text) <= 200 else text[:200] + '...'}")


def _after_failure(run: Run, error: EndpointFailed) -> None:
    """Add the log to the message, then remove what this run made and nothing uses."""
    error.message += paragraph(tail(run.cloud, error.endpoint))
    created = run.handed_over is not None and run.handed_over.operation == "create_endpoint"
    seen = error.endpoint
    rolled_back = seen.status == "InService"
    if (created and seen.status == "Failed") or rolled_back:
        error.message += "\n" + _undo(run)
    else:
        error.message += f"\nNothing was removed: {_state_of(seen)}"


def _state_of(seen: Endpoint) -> str:
    return f"{seen.name} is {seen.status}; {_FOLLOW.get(seen.status, _RESUME)}"


_RESUME = "look with `python deploy.py status`, resume with `python deploy.py`"
_BILLS = "it bills until `python deploy.py delete`"
_FOLLOW = {
    "InService": f"it serves, and {_BILLS}; go back with `python deploy.py rollback`",
    "Failed": "the next `python deploy.py` replaces it, or `python deploy.py delete` removes it",
    "UpdateRollbackFailed": f"it serves, and {_BILLS}; the next `python deploy.py` repairs it",
}


def _left(run: Run, error: DeployError | None) -> str:
    """Say what is left behind after anything but an endpoint's own failure, and tidy up."""
    if run.handed_over is None:
        removing = not any(isinstance(step, Call) and step.undo for step in run.plan.steps)
        return "run the same command again: it takes up what is left" if removing else _undo(run)
    try:
        seen = survey.find_endpoint(run.cloud, run.plan.endpoint)
    except DeployError:
        # Not knowing is the worst case: the endpoint must be named all the same.
        return (
            f"{run.plan.endpoint} may be in the making ({run.handed_over.why}) and goes on without "
            f"this command; {_RESUME}; {_BILLS}"
        )
    if seen is None:
        if isinstance(error, Unreachable):
            return f"{run.plan.endpoint} was not seen, but may appear; {_RESUME}"
        return _undo(run)
    alone = "" if seen.status in _FOLLOW else f". It goes on without this command; {_BILLS}"
    return f"{_state_of(seen)}{alone}{_unscaled(run)}"


def _unscaled(run: Run) -> str:
    """Say what scaling the run has taken away and not put back, with its requests."""
    if not run.plan.restore:
        return ""
    calls = "; ".join(f"{call.operation} {json.dumps(call.arguments)}" for call in run.plan.restore)
    return f". Its scaling was taken away for the update; [scaling] puts it back, or: {calls}"


def _undo(run: Run) -> str:
    """Remove what this run made, newest first, and put back what it took away."""
    removed, failed = [], []
    for call in [*(made.undo for made in reversed(run.made)), *_restorable(run)]:
        if call is None:
            continue
        try:
            run.cloud.apply(call)
            if call.operation == "delete_endpoint":
                gone = Wait(run.plan.endpoint, "gone", _GONE_SECONDS)
                watch.endpoint(run.cloud, gone, run.talk, run.pace)
            removed.append(call)
        except DeployError as error:
            if not (isinstance(error, ApiError) and absent(error)):
                failed.append(f"{call.why}: {error.message}")
    undone = [call.why for call in removed if call.operation.startswith("delete_")]
    parts = [f"removed again: {', '.join(undone)}"] if undone else []
    if failed:
        parts.append("NOT removed, look after it yourself: " + "; ".join(failed))
    return ". ".join(parts) or "nothing was left behind"


def _restorable(run: Run) -> tuple[Call, ...]:
    return run.plan.restore if run.answers else ()
