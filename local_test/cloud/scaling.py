"""Application Auto Scaling for variants: target tracking and steps, on the metrics counted here.

Periods and cooldowns are divided by the cloud's speed. Rates a minute are measured over the sped up
minute and told as if a whole one had passed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .asynchronous import Queues
from .endpoint import Endpoint
from .fleet import Variant
from .metrics import NAMESPACE, Metrics
from .rollout import Deployer
from .schedules import Schedules
from .services import Services
from .speed import Speed

_LOOK = 0.5
_MINUTE = 60.0
_SHORTEST = 2.0  # seconds of a sped up minute
_COOLDOWN = 300.0
_IDLE = 900.0  # seconds after which a serverless variant sleeps; AWS does not say
_COUNT = "sagemaker:variant:DesiredInstanceCount"


class Scaler:
    """Looks at every scalable target again and again."""

    def __init__(
        self, services: Services, metrics: Metrics, queues: Queues, deployer: Deployer, speed: Speed
    ) -> None:
        self._services, self._metrics, self._queues = services, metrics, queues
        self._deployer, self._speed = deployer, speed
        self._schedules = Schedules(services, speed)
        self._changed: dict[tuple[str, bool], float] = {}  # when a resource was scaled out, or in
        self._measured: Mapping[str, Callable[[Endpoint, Variant], float]] = {
            "SageMakerVariantInvocationsPerInstance": self._per_minute,
            "SageMakerVariantConcurrentRequestsPerModelHighResolution": _concurrency,
            "ApproximateBacklogSizePerInstance": self._backlog,
        }

    def run(self, ended: threading.Event, find: Callable[[str], Endpoint | None],
            endpoints: Callable[[], list[Endpoint]]) -> None:  # fmt: skip
        """Scale until `ended`."""
        while not ended.wait(_LOOK):
            for endpoint in endpoints():
                self._count_backlog(endpoint)
                self._let_sleep(endpoint)
            self._schedules.look()
            for target in self._services.targets():
                _, name, _, variant_name = target.resource_id.split("/")
                scaled = find(name)
                if scaled is not None and scaled.status == "InService":
                    self._look(scaled, variant_name, target)

    def _let_sleep(self, endpoint: Endpoint) -> None:
        """Stop the container of a serverless variant that nothing has called for a while."""
        for variant in endpoint.variants if endpoint.status == "InService" else ():
            provisioned = (variant.serverless or {}).get("ProvisionedConcurrency")
            if variant.serverless is None or provisioned or not variant.desired:
                continue
            idle = max(_SHORTEST, self._speed.seconds(_IDLE))
            awake = [one for one in variant.instances
                     if one.outstanding or time.monotonic() - one.called <= idle]  # fmt: skip
            if variant.instances and not awake:
                self._deployer.sleep(variant)

    def _count_backlog(self, endpoint: Endpoint) -> None:
        """Publish the backlog of an asynchronous endpoint, which alarms and policies read."""
        if not self._queues.serves(endpoint):
            return
        backlog = self._queues.backlog(endpoint.name)
        instances = sum(len(variant.serving) for variant in endpoint.variants)
        self._metrics.count(
            {
                "ApproximateBacklogSize": (backlog, "None"),
                "ApproximateBacklogSizePerInstance": (backlog / max(1, instances), "None"),
                "HasBacklogWithoutCapacity": (float(backlog > 0 and not instances), "None"),
            },
            {"EndpointName": endpoint.name},
        )

    def _look(self, endpoint: Endpoint, variant_name: str, target: Any) -> None:
        variant = next((one for one in endpoint.variants if one.name == variant_name), None)
        if variant is None or target.scalable_dimension != _COUNT:
            return
        policies = self._services.policies(target.resource_id, target.scalable_dimension)
        asked = [self._wanted(endpoint, variant, one, target.resource_id) for one in policies]
        low, high = int(target.min_capacity or 0), int(target.max_capacity or 0)
        # Several policies: the one that wants most decides.
        chosen = max((one for one in asked if one is not None), default=variant.desired)
        count = min(max(chosen, low), high)
        if count != variant.desired:
            self._changed[target.resource_id, count > variant.desired] = time.monotonic()
            self._deployer.rescale(endpoint, {variant_name: {"DesiredInstanceCount": count}})

    def _wanted(
        self, endpoint: Endpoint, variant: Variant, policy: Any, resource: str
    ) -> int | None:
        steps = policy.step_scaling_policy_configuration
        if steps is not None:
            return self._by_steps(variant, policy, steps, resource)
        given = policy.target_tracking_scaling_policy_configuration
        custom = given.get("CustomizedMetricSpecification", {})
        name = given.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
        measured = self._measured.get(name or custom.get("MetricName", ""))
        value = measured(endpoint, variant) if measured is not None else self._custom(custom)
        wanted = math.ceil(variant.desired * value / float(given["TargetValue"]) - 1e-9)
        if not variant.desired:
            return 0  # nothing times anything: a step policy brings it back from zero
        out = wanted > variant.desired
        if not out and given.get("DisableScaleIn"):
            return variant.desired
        pause = float(given.get("ScaleOutCooldown" if out else "ScaleInCooldown", _COOLDOWN))
        return wanted if self._may(resource, pause) else variant.desired

    def _by_steps(self, variant: Variant, policy: Any, steps: Any, resource: str) -> int | None:
        """Apply a step policy where an alarm that names it is in ALARM."""
        alarms = [
            alarm
            for alarm in self._services.alarms()
            if policy.policy_arn in alarm.alarm_actions and alarm.state_value == "ALARM"
        ]
        if not alarms or not self._may(resource, float(steps.get("Cooldown", _COOLDOWN))):
            return None
        step = steps["StepAdjustments"][0]["ScalingAdjustment"]
        exact = steps["AdjustmentType"] == "ExactCapacity"
        return int(step if exact else variant.desired + step)

    def _may(self, resource: str, cooldown: float) -> bool:
        last = max(self._changed.get((resource, out), 0.0) for out in (True, False))
        return time.monotonic() - last >= self._speed.seconds(cooldown)

    def _minute(self) -> float:
        return max(_SHORTEST, self._speed.seconds(_MINUTE))

    def _per_minute(self, endpoint: Endpoint, variant: Variant) -> float:
        """Return the calls for each instance in the last (sped up) minute, as of a whole one."""
        length, now = self._minute(), time.time()
        where = {"EndpointName": endpoint.name, "VariantName": variant.name}
        sums = self._metrics.sums(NAMESPACE, "Invocations", where, now - length, now)
        return sums.total * _MINUTE / length / max(1, len(variant.serving))

    def _backlog(self, endpoint: Endpoint, variant: Variant) -> float:
        return self._queues.backlog(endpoint.name) / max(1, len(variant.serving))

    def _custom(self, wanted: Mapping[str, Any]) -> float:
        length, now = self._minute(), time.time()
        where = {one["Name"]: one["Value"] for one in wanted.get("Dimensions", ())}
        found = self._metrics.sums(
            wanted["Namespace"], wanted["MetricName"], where, now - length, now
        )
        return found.total / found.count if found.count else 0.0


def _concurrency(endpoint: Endpoint, variant: Variant) -> float:
    serving = variant.serving
    return sum(instance.outstanding for instance in serving) / max(1, len(serving))
