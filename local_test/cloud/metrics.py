"""The metrics that SageMaker counts, and the alarms on them.

Values are added up for a second before they go to CloudWatch, so a busy endpoint does not fill it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import (
    MetricAggregatedDatum,
    MetricDatum,
    MetricDatumBase,
    cloudwatch_backends,
)

from .services import ACCOUNT, Services
from .speed import Speed

NAMESPACE = "AWS/SageMaker"
_LOOK = 0.25  # seconds
_SHORTEST = 2.0  # seconds: a period that is sped up still holds some data
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": lambda value, limit: value > limit,
    "GreaterThanOrEqualToThreshold": lambda value, limit: value >= limit,
    "LessThanThreshold": lambda value, limit: value < limit,
    "LessThanOrEqualToThreshold": lambda value, limit: value <= limit,
}


@dataclass
class Sums:
    """Count, sum, least and largest of some values."""

    count: float = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, count: float, total: float, low: float, high: float) -> None:
        self.count += count
        self.total += total
        self.low, self.high = min(self.low, low), max(self.high, high)


_STATISTICS: Mapping[str, Callable[[Sums], float]] = {
    "Average": lambda sums: sums.total / sums.count,
    "Sum": lambda sums: sums.total,
    "Minimum": lambda sums: sums.low,
    "Maximum": lambda sums: sums.high,
    "SampleCount": lambda sums: sums.count,
}
_matches = MetricDatumBase.filter


def exact_dimensions() -> None:
    """Let moto's GetMetricStatistics read the series of exactly the dimensions asked for, as AWS.

    moto also takes in series with further dimensions, so a call would be counted twice: for its
    variant, and for its variant and config.
    """

    def matches(
        self: MetricDatumBase, namespace: str | None, name: str | None,
        dimensions: list[dict[str, str]],
        already_present_metrics: list[MetricDatumBase] | None = None,
    ) -> bool:  # fmt: skip
        if namespace is None and name is None and already_present_metrics is None:
            asked = {(one["Name"], one.get("Value")) for one in dimensions}
            return asked == {(one.name, one.value) for one in self.dimensions}
        return _matches(self, namespace, name, dimensions, already_present_metrics)  # ListMetrics

    MetricDatumBase.filter = matches  # type: ignore[method-assign]


Series = tuple[str, str, tuple[tuple[str, str], ...]]  # metric, unit, dimensions


class Metrics:
    """Counts calls, and lets alarms follow."""

    def __init__(self, services: Services, speed: Speed) -> None:
        self._services, self._speed = services, speed
        self._sums: dict[Series, Sums] = {}
        self._lock = threading.Lock()

    def call(
        self, dimensions: Mapping[str, str], status: int, model_seconds: float, seconds: float
    ) -> None:
        """Count one call; `status` is the container's, 0 where it gave none."""
        values = {
            "Invocations": (1.0, "None"),
            "Invocation4XXErrors": (float(400 <= status < 500), "None"),
            "Invocation5XXErrors": (float(status >= 500 or status == 0), "None"),
            "InvocationModelErrors": (float(not 200 <= status < 300), "None"),
            "ModelLatency": (model_seconds * 1e6, "Microseconds"),
            "OverheadLatency": (max(0.0, seconds - model_seconds) * 1e6, "Microseconds"),
        }
        whole = {key: dimensions[key] for key in ("EndpointName", "VariantName")}
        self.count(values, whole)
        self.count(values, dimensions)

    def count(self, values: Mapping[str, tuple[float, str]], dimensions: Mapping[str, str]) -> None:
        """Count values by metric name, each with its unit."""
        named = tuple(sorted(dimensions.items()))
        with self._lock:
            for name, (value, unit) in values.items():
                self._sums.setdefault((name, unit, named), Sums()).add(1, value, value, value)

    def flush(self) -> None:
        """Hand what was counted to CloudWatch."""
        with self._lock:
            held, self._sums = self._sums, {}
        data = [
            {
                "MetricName": name,
                "Unit": unit,
                "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions],
                "StatisticValues": {"SampleCount": sums.count, "Sum": sums.total,
                                    "Minimum": sums.low, "Maximum": sums.high},
                "Timestamp": datetime.now(UTC).replace(tzinfo=None),  # moto compares naive times
            }
            for (name, unit, dimensions), sums in held.items()
        ]  # fmt: skip
        if data:
            cloudwatch_backends[ACCOUNT][self._services.region].put_metric_data(NAMESPACE, data)

    def sums(
        self, namespace: str, name: str, dimensions: Mapping[str, str], start: float, end: float
    ) -> Sums:
        """Return what a metric held from `start` to `end`, in seconds since 1970."""
        found = Sums()
        wanted = set(dimensions.items())
        data = cloudwatch_backends[ACCOUNT][self._services.region].metric_data
        for datum in reversed(data[:]):
            at = datum.timestamp.replace(tzinfo=UTC).timestamp()
            if at < start - 60:
                break  # data come in the order of their time, but for what callers date themselves
            if not start <= at < end or (datum.namespace, datum.name) != (namespace, name):
                continue
            if {(one.name, one.value) for one in datum.dimensions} != wanted:
                continue
            if isinstance(datum, MetricAggregatedDatum):
                found.add(datum.sample_count, datum.sum, datum.min, datum.max)
            elif isinstance(datum, MetricDatum):
                found.add(1, datum.value, datum.value, datum.value)
        return found

    def evaluate(self, alarms: Iterable[Any]) -> None:
        """Bring each alarm into its state."""
        for alarm in alarms:
            if alarm.metric_name and alarm.statistic in _STATISTICS:
                state, reason = self._state(alarm)
                if state != alarm.state_value:
                    alarm.update_state(reason, "{}", state)

    def _state(self, alarm: Any) -> tuple[str, str]:
        """Return an alarm's state by its last periods, and why."""
        length = max(_SHORTEST, self._speed.seconds(alarm.period))
        now = time.time()
        dimensions = {one.name: one.value for one in alarm.dimensions}
        values = []
        for period in range(int(alarm.evaluation_periods)):
            end = now - period * length
            sums = self.sums(alarm.namespace, alarm.metric_name, dimensions, end - length, end)
            values.append(_STATISTICS[alarm.statistic](sums) if sums.count else None)
        breaches = _COMPARISONS[alarm.comparison_operator]
        missing = alarm.treat_missing_data or "missing"
        known = [value for value in values if value is not None]
        if not known and missing in ("missing", "ignore"):
            state = alarm.state_value if missing == "ignore" else "INSUFFICIENT_DATA"
            return state, "no data"
        bad = sum(breaches(value, alarm.threshold) for value in known)
        bad += (len(values) - len(known)) * (missing == "breaching")
        needed = int(alarm.datapoints_to_alarm or alarm.evaluation_periods)
        shown = ", ".join(f"{value:g}" for value in known)
        reason = (
            f"Threshold Crossed: {bad} datapoints of [{shown}] against {alarm.threshold:g} "
            f"({alarm.comparison_operator}), {needed} needed"
        )
        return ("ALARM" if bad >= needed else "OK"), reason

    def run(self, ended: threading.Event) -> None:
        """Flush and evaluate until `ended`."""
        while not ended.wait(_LOOK):
            self.flush()
            with suppress(RuntimeError):  # an alarm that is deleted meanwhile
                self.evaluate(self._services.alarms())
