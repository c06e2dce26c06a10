"""Waiting: for an endpoint to settle, and for a batch job to end.

An update that was rolled back ends `InService` like one that worked, so the config's name is what
decides. Short losses of the API are survived; what ends a wait early is a class of
`deployment.errors`, and the endpoint goes on by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from deployment import survey
from deployment.answers import THROTTLED, absent
from deployment.aws import Answer, Cloud
from deployment.console import Progress, Talk
from deployment.errors import ApiError, Failed, Unreachable
from deployment.state import TRANSITIONAL, Endpoint
from deployment.step import Wait

# Right after UpdateEndpoint the status may still read InService with the old config (contract 7.5).
_GRACE_POLLS = 15  # two minutes
_LOST_SECONDS = 300.0  # how long the API may be away before a wait gives up


class EndpointFailed(Failed):
    """The endpoint ended somewhere else. `endpoint` is how it was last seen."""

    def __init__(self, message: str, endpoint: Endpoint, hint: str = "") -> None:
        super().__init__(message, hint)
        self.endpoint = endpoint


class Unfinished(Failed):
    """The wait ended, the endpoint has not; `endpoint` as last seen, None if never."""

    def __init__(self, message: str, endpoint: Endpoint | None, hint: str = "") -> None:
        super().__init__(message, hint)
        self.endpoint = endpoint


@dataclass(frozen=True)
class Pace:
    """How often to look, in seconds, and the clock: tests bring their own."""

    poll: float = 15.0  # half of what botocore's waiter takes, and far below any rate limit
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def pause(self, turn: int) -> None:
        """Wait after look number `turn`, from 0: one second, two, three and so on up to `poll`."""
        self.sleep(min(self.poll, turn + 1.0))


def endpoint(cloud: Cloud, wait: Wait, talk: Talk, pace: Pace) -> Endpoint | None:
    """Wait as told and return the endpoint, None once it is gone.

    Raises `EndpointFailed` where it ended otherwise, `Unfinished` when time is up.
    """
    start, lost_at, polls, moved, turns = pace.clock(), 0.0, 0, False, count()
    seen: Endpoint | None = None
    with talk.progress() as progress:
        while True:
            passed = pace.clock() - start
            try:
                seen = survey.find_endpoint(cloud, wait.endpoint)
                lost_at = 0.0
            except (Unreachable, ApiError) as error:
                lost_at = _lost(error, lost_at or passed or 0.001, passed, progress)
            else:
                moved = moved or (seen is not None and seen.status in TRANSITIONAL)
                progress.show(_line(wait, seen), passed)
                if _ended(wait, seen, moved or polls >= _GRACE_POLLS):
                    return seen
                polls += 1
            if passed > wait.limit_seconds:
                raise Unfinished(f"{wait.endpoint} is not {wait.until} after {int(passed)} s", seen)
            pace.pause(next(turns))


def _lost(error: Unreachable | ApiError, since: float, passed: float, progress: Progress) -> float:
    if isinstance(error, ApiError) and error.code not in THROTTLED:
        raise error
    if passed - since > _LOST_SECONDS:
        raise error
    progress.show(f"no answer for a moment: {error.message}", passed)
    return since


def _line(wait: Wait, seen: Endpoint | None) -> str:
    if seen is None:
        return f"{wait.endpoint}: no such endpoint"
    stage = f", {seen.stage}" if seen.stage else ""
    return f"{wait.endpoint}: {seen.status}{stage}"


def _ended(wait: Wait, seen: Endpoint | None, certain: bool) -> bool:
    """Say whether the wait is over. Raises `EndpointFailed` where it ended otherwise."""
    if seen is None:
        if wait.until == "in service" and certain:
            raise Unfinished(f"{wait.endpoint} does not exist any more", None)
        return wait.until != "in service"
    if seen.status in TRANSITIONAL:
        return False
    if wait.until == "settled":
        return True
    if wait.until == "gone":
        return _gone(wait, seen, certain)
    if seen.status == "InService":
        return _serves(wait, seen, certain)
    if seen.config == wait.config or seen.pending == wait.config or certain:
        raise EndpointFailed(_reason(seen), seen)
    return False


def _gone(wait: Wait, seen: Endpoint, certain: bool) -> bool:
    if seen.status == "Failed" and certain:
        raise EndpointFailed(f"{wait.endpoint} could not be deleted: {seen.reason}", seen)
    return False


def _serves(wait: Wait, seen: Endpoint, certain: bool) -> bool:
    if seen.config == wait.config or not wait.config:
        return True
    if certain:
        raise EndpointFailed(
            f"the update was rolled back: {wait.endpoint} serves {seen.config} as before, "
            f"not {wait.config}. {seen.reason or 'AWS gives no reason; an alarm may have fired.'}",
            seen,
        )
    return False


_SENTENCES = {
    "Failed": "{name} failed: {reason}",
    "UpdateRollbackFailed": "the update of {name} failed, and so did its rollback: old and new "
    "instances serve side by side until the next update. {reason}",
    "OutOfService": "{name} is out of service. {reason}",
}


def _reason(seen: Endpoint) -> str:
    sentence = _SENTENCES.get(seen.status, "{name} is {status}: {reason}")
    reason = seen.reason or "AWS gives no reason"
    return sentence.format(name=seen.name, status=seen.status, reason=reason)


def job(
    cloud: Cloud,
    kind: str,
    name: str,
    talk: Talk,
    pace: Pace,
    look: Callable[[], None] = lambda: None,
) -> Answer:
    """Wait for a job, call `look` at each turn, and return what AWS said when it had ended.

    `kind` is "transform" or "training". Raises what the API raises; the job goes on by itself.
    """
    call, noun = f"describe_{kind}_job", f"{kind.title()}Job"
    start, lost_at, turns = pace.clock(), 0.0, count()
    with talk.progress() as progress:
        while True:
            passed = pace.clock() - start
            try:
                found = cloud.call("sagemaker", call, **{f"{noun}Name": name})
            except (Unreachable, ApiError) as error:
                if isinstance(error, ApiError) and absent(error):
                    raise Failed(f"there is no {kind} job {name} in {cloud.region}") from error
                lost_at = _lost(error, lost_at or passed or 0.001, passed, progress)
            else:
                lost_at = 0.0
                look()
                status = found[f"{noun}Status"]
                progress.show(f"{name}: {found.get('SecondaryStatus', status)}", passed)
                if status in ("Completed", "Failed", "Stopped"):
                    return found
            pace.pause(next(turns))


def outcome(cloud: Cloud, answer: Answer, pace: Pace, wait: float) -> bytes:
    """Wait for the object that an asynchronous call leaves. Raises `Failed` if it is a failure."""
    start, turns = pace.clock(), count()
    while True:
        for key in ("OutputLocation", "FailureLocation"):
            if uri := answer.get(key):
                bucket, _, name = uri.removeprefix("s3://").partition("/")
                found = cloud.find("s3", "get_object", Bucket=bucket, Key=name)
                if found is not None and key == "FailureLocation":
                    raise Failed(f"the call failed: {found['Body'].decode('utf-8', 'replace')}")
                if found is not None:
                    content: bytes = found["Body"]
                    return content
        if pace.clock() - start > wait:
            raise Failed(f"no answer after {wait:g} s; it will be {answer['OutputLocation']}")
        pace.pause(next(turns))
