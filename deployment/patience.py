"""Calls whose refusal only means "not yet": AWS is eventually consistent."""

from __future__ import annotations

from deployment.aws import Answer, Cloud
from deployment.console import Talk
from deployment.errors import ApiError
from deployment.role_errors import late_role
from deployment.step import Call
from deployment.watch import Pace

# (operations, words in the message, seconds of patience, what it means)
_LATE = (
    (
        ("create_endpoint", "update_endpoint", "create_endpoint_config"),
        ("could not find",),
        60.0,
        "AWS does not see yet what was just made",
    ),
)


def patiently(cloud: Cloud, call: Call, talk: Talk, pace: Pace) -> Answer:
    """Make the call, again and again while its refusal only means "not yet"."""
    start, pause = pace.clock(), min(1.0, pace.poll)
    while True:
        try:
            return cloud.apply(call)
        except ApiError as error:
            passed = pace.clock() - start
            meaning = _late(call, error, passed) or late_role(cloud, call, error, passed)
            if not meaning:
                raise
            talk.say(f"  {meaning}; trying again")
            pace.sleep(pause)
            pause = min(pause * 2, 15.0)


def _late(call: Call, error: ApiError, passed: float) -> str:
    for operations, words, patience, meaning in _LATE:
        text = error.message.lower()
        if call.operation in operations and all(word in text for word in words):
            return meaning if passed < patience else ""
    return ""
