"""Scheduled scaling: bounds of the scaling that change at times. Pure, like `plan`.

Application Auto Scaling writes a schedule's bounds into the scalable target itself, so a target
with the bounds of one of its schedules is what the settings say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deployment.state import Scaling
from deployment.step import Call
from deployment.tables import Scaling as Wanted

Document = dict[str, Any]
_SERVICE = "application-autoscaling"
FIELDS = ("ScheduledActionName", "Schedule", "Timezone", "StartTime", "EndTime",
          "ScalableTargetAction")  # fmt: skip


def actions(name: str, resource: Mapping[str, Any], scaling: Wanted) -> list[Document]:
    """Return PutScheduledAction for each schedule of the settings."""
    made = []
    for key, one in scaling.schedules.items():
        bounds = {"MinCapacity": one.min, "MaxCapacity": one.max}
        made.append({
            **resource,
            "ScheduledActionName": _prefix(name) + key,
            "Schedule": one.when,
            "Timezone": one.timezone,
            "ScalableTargetAction": {k: v for k, v in bounds.items() if v is not None},
        })  # fmt: skip
    return made


def _prefix(name: str) -> str:
    return f"{name}-schedule-"


def changes(name: str, wanted: list[Document], found: tuple[Scaling, ...]) -> Iterator[Call]:
    """Return the calls that make our schedules those of the settings; others are left alone."""
    there = {action["ScheduledActionName"]: action for one in found for action in one.schedules}
    for action in wanted:
        before = there.get(action["ScheduledActionName"])
        if before is None or any(before.get(key) != action[key] for key in FIELDS if key in action):
            yield put(action, "set", before is not None)
    names = {action["ScheduledActionName"] for action in wanted}
    for known, old in there.items():
        if known.startswith(_prefix(name)) and known not in names:
            yield remove(old)


def put(action: Mapping[str, Any], what: str, exists: bool = False) -> Call:
    """Return the call that sets a schedule."""
    why = f"the schedule {action['Schedule']}, {what}"
    effect: Any = "change" if exists else "add"
    return Call(_SERVICE, "put_scheduled_action", action, why, effect=effect)


def remove(action: Mapping[str, Any]) -> Call:
    """Return the call that takes a schedule away."""
    named = ("ServiceNamespace", "ResourceId", "ScalableDimension", "ScheduledActionName")
    gone = {key: action[key] for key in named}
    return Call(_SERVICE, "delete_scheduled_action", gone, f"the schedule {action['Schedule']}")


def reached(scaling: Wanted, target: Mapping[str, Any]) -> bool:
    """Say whether a target's bounds are those of the settings, or of one of their schedules."""
    lows = {scaling.min, *(one.min for one in scaling.schedules.values())}
    highs = {scaling.max, *(one.max for one in scaling.schedules.values())}
    return target["MinCapacity"] in lows and target["MaxCapacity"] in highs
