"""How endpoints come, change and go: each operation is a thread that ends in a status.

An update starts the new fleet, gives it the traffic in steps, and bakes after each. Where an
instance does not start, or an alarm fires, the old fleet takes the traffic back.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .endpoint import Endpoint
from .errors import StartError
from .fleet import Fleet, Variant, stop
from .instance import Instance
from .services import Services
from .speed import Speed

_log = logging.getLogger(__name__)
_LOOK = 0.1  # seconds between two looks at alarms


@dataclass(frozen=True)
class Policy:
    """An update's steps: the parts of the traffic that the new fleet has, one after the other."""

    shares: tuple[float, ...] = (1.0,)
    wait: float = 0.0  # AWS's seconds after each step
    termination: float = 0.0  # and before the old fleet is stopped
    rolling: bool = False  # instances are started and stopped step by step, too
    alarms: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any] | None, instances: int) -> Policy:
        """Read a DeploymentConfig for an endpoint of so many instances."""
        config = config or {}
        watched = config.get("AutoRollbackConfiguration", {}).get("Alarms", ())
        alarms = tuple(alarm["AlarmName"] for alarm in watched)
        if rolling := config.get("RollingUpdatePolicy"):
            batch = _part(rolling["MaximumBatchSize"], instances)
            wait = rolling["WaitIntervalInSeconds"]
            return cls(_steps(batch), wait, rolling=True, alarms=alarms)
        policy = config.get("BlueGreenUpdatePolicy", {})
        routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE"})
        steps: dict[str, Callable[[], tuple[float, ...]]] = {
            "ALL_AT_ONCE": lambda: (1.0,),
            "CANARY": lambda: (_part(routing["CanarySize"], instances), 1.0),
            "LINEAR": lambda: _steps(_part(routing["LinearStepSize"], instances)),
        }
        return cls(
            steps[routing["Type"]](), routing.get("WaitIntervalInSeconds", 0),
            policy.get("TerminationWaitInSeconds", 0), alarms=alarms,
        )  # fmt: skip


def _part(size: Mapping[str, Any], instances: int) -> float:
    if size["Type"] == "CAPACITY_PERCENT":
        return float(size["Value"]) / 100
    return min(1.0, float(size["Value"]) / max(1, instances))


def _steps(part: float) -> tuple[float, ...]:
    return tuple(min(1.0, part * step) for step in range(1, math.ceil(1 / part - 1e-9) + 1))


class _AlarmError(Exception):
    """An alarm that guards the update is in ALARM."""


class Deployer:
    """Carries out what happens to an endpoint after its call was answered."""

    def __init__(
        self, launch: Callable[[Variant], Instance], services: Services, speed: Speed
    ) -> None:
        self._launch, self._services, self._speed = launch, services, speed

    def create(self, endpoint: Endpoint, fleet: Fleet) -> None:
        """Start the first fleet: InService, or Failed with the reason."""
        endpoint.fleets = [fleet]
        _thread(endpoint, lambda: self._create(endpoint, fleet))

    def _create(self, endpoint: Endpoint, fleet: Fleet) -> None:
        try:
            fleet.fill(self._launch)
        except StartError as error:
            self._discard(endpoint, fleet)
            endpoint.set("Failed", str(error))
            return
        fleet.share = 1.0
        endpoint.keep()
        endpoint.set("InService")

    def update(self, endpoint: Endpoint, new: Fleet, policy: Policy) -> None:
        """Go over to a new fleet, or back."""
        endpoint.record["Update"] = {"StartTime": time.time()}
        endpoint.set("Updating")
        old = _Old(endpoint.fleets)
        endpoint.fleets = [*endpoint.fleets, new]
        _thread(endpoint, lambda: self._update(endpoint, old, new, policy))

    def _update(self, endpoint: Endpoint, old: _Old, new: Fleet, policy: Policy) -> None:
        try:
            for share in policy.shares:
                new.fill(self._launch, share if policy.rolling else 1.0)
                _shift(endpoint, old, new, share)
                if policy.rolling:
                    for fleet in old.fleets:
                        fleet.shrink(1.0 - share)
                self._bake(endpoint, policy, policy.wait)
            self._bake(endpoint, policy, policy.termination)
        except (StartError, _AlarmError) as error:
            self._roll_back(endpoint, old, new, str(error))
            return
        endpoint.fleets = [new]
        endpoint.record.pop("Update", None)
        endpoint.keep()
        endpoint.set("InService", EndpointConfigName=new.config)
        for fleet in old.fleets:
            self._discard(endpoint, fleet)

    def _roll_back(self, endpoint: Endpoint, old: _Old, new: Fleet, reason: str) -> None:
        endpoint.set("RollingBack", reason)
        try:
            for fleet in old.fleets:
                fleet.fill(self._launch)  # a rolling update has stopped some of them
        except StartError as error:
            failed = f"{reason} The rollback failed, too: {error}"
            endpoint.set("UpdateRollbackFailed", failed)
            return
        _shift(endpoint, old, new, 0.0)
        endpoint.fleets = old.fleets
        self._discard(endpoint, new)
        endpoint.record.pop("Update", None)
        endpoint.keep()
        endpoint.set("InService", reason)

    def _bake(self, endpoint: Endpoint, policy: Policy, seconds: float) -> None:
        """Wait, and look at the alarms meanwhile. Raises `_AlarmError`."""
        deadline = time.monotonic() + self._speed.seconds(seconds)
        while True:
            if fired := self._services.alarming(policy.alarms):
                names = ", ".join(fired)
                raise _AlarmError(f"The update was rolled back: in state ALARM: {names}.")
            if endpoint.ended or time.monotonic() >= deadline:
                return
            time.sleep(_LOOK)

    def rescale(self, endpoint: Endpoint, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Give variants other counts and weights: Updating, then InService."""
        endpoint.set("Updating")
        fleet = endpoint.fleets[-1]
        before = {one.name: one.desired for one in fleet.variants}
        for variant in fleet.variants:
            values = wanted.get(variant.name, {})
            variant.desired = values.get("DesiredInstanceCount", variant.desired)
            variant.weight = values.get("DesiredWeight", variant.weight)
        _thread(endpoint, lambda: self._rescale(endpoint, fleet, before))

    def _rescale(self, endpoint: Endpoint, fleet: Fleet, before: Mapping[str, int]) -> None:
        reason = None
        try:
            fleet.fill(self._launch)
        except StartError as error:
            reason = str(error)
            for variant in fleet.variants:
                variant.desired = before[variant.name]
        fleet.shrink(1.0)
        endpoint.keep()
        endpoint.set("InService", reason)

    def sleep(self, variant: Variant) -> None:
        """Stop a serverless variant's containers until the next call."""
        variant.desired = 0
        gone, variant.instances = variant.instances, []
        threading.Thread(target=stop, args=(gone,), daemon=True).start()

    def delete(self, endpoint: Endpoint, gone: Callable[[], None]) -> None:
        """Take an endpoint away with all that it runs."""
        endpoint.ended = True
        endpoint.set("Deleting")

        def remove() -> None:
            for fleet in endpoint.fleets:
                self._discard(endpoint, fleet)
            gone()

        _thread(endpoint, remove)

    def replace_missing(self, endpoint: Endpoint) -> None:
        """Start what has died, and take its remains away; called again and again."""
        for variant in _settled(endpoint):
            dead = [instance for instance in variant.instances if not instance.alive]
            variant.instances[:] = [one for one in variant.instances if one.alive]
            for instance in dead:
                threading.Thread(target=instance.stop, daemon=True).start()
            while len(variant.instances) + variant.starting < variant.desired:
                variant.starting += 1
                threading.Thread(
                    target=self._replace, args=(endpoint, variant), daemon=True
                ).start()

    def _replace(self, endpoint: Endpoint, variant: Variant) -> None:
        try:
            instance = self._launch(variant)
        except StartError:
            time.sleep(1)  # its log says why; it is tried again
        else:
            variant.instances.append(instance)
            if endpoint.ended or len(variant.instances) > variant.desired:
                variant.instances.remove(instance)
                stop([instance])
        finally:
            variant.starting -= 1
            with endpoint.condition:
                endpoint.condition.notify_all()

    def _discard(self, endpoint: Endpoint, fleet: Fleet) -> None:
        """Stop all instances of a fleet that takes no traffic any more."""
        with endpoint.condition:
            fleet.share = 0.0
        for variant in fleet.all:
            variant.desired = 0
            gone, variant.instances = variant.instances, []
            stop(gone)


def _settled(endpoint: Endpoint) -> Iterator[Variant]:
    if endpoint.status == "InService" and not endpoint.ended:
        yield from endpoint.fleets[-1].all


class _Old:
    """What served before an update: one fleet, or two after a rollback that failed."""

    def __init__(self, fleets: list[Fleet]) -> None:
        self.fleets = list(fleets)
        self.shares = [fleet.share for fleet in fleets]


def _shift(endpoint: Endpoint, old: _Old, new: Fleet, share: float) -> None:
    with endpoint.condition:
        new.share = share
        for fleet, before in zip(old.fleets, old.shares, strict=True):
            fleet.share = before * (1.0 - share)
        endpoint.condition.notify_all()


def _thread(endpoint: Endpoint, work: Callable[[], None]) -> None:
    def worked() -> None:
        try:
            work()
        except (
            Exception
        ) as error:  # a defect of this cloud must not leave it in progress without end
            _log.exception("the deployment of %s failed", endpoint.name)
            endpoint.set("Failed", f"InternalServerError: the local cloud failed: {error!r}")

    threading.Thread(target=worked, name=f"endpoint {endpoint.name}", daemon=True).start()
