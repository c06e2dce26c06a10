"""Calls that moto takes, and that this cloud would not carry out: refused before moto sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import schedules
from .errors import not_modelled

Given = Mapping[str, Any]


def _alarm(given: Given) -> None:
    """Refuse an alarm that would never change its state here."""
    for field, what in (
        ("Metrics", "an alarm on an expression"),
        ("ThresholdMetricId", "an alarm on an anomaly band"),
        ("EvaluationCriteria", "an alarm on a PromQL query"),
        ("ExtendedStatistic", "an alarm on a percentile"),
    ):
        if given.get(field):
            raise not_modelled(what)


def _never(what: str) -> Callable[[Given], None]:
    def refuse(given: Given) -> None:
        raise not_modelled(what)

    return refuse


CHECKS: Mapping[str, Callable[[Given], None]] = {
    "PutMetricAlarm": _alarm,
    "PutCompositeAlarm": _never("a composite alarm"),
    "PutAnomalyDetector": _never("an anomaly detector"),
    "PutScheduledAction": schedules.check,
}
