"""An endpoint: its record, the fleets behind it, and how DescribeEndpoint tells it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .fleet import Fleet, Variant, choose
from .instance import Instance

IN_PROGRESS = ("Creating", "Updating", "RollingBack", "SystemUpdating", "Deleting")


class Endpoint:
    """The record is what is kept on disk; fleets are the containers of this process."""

    def __init__(self, record: dict[str, Any], changed: Callable[[], None]) -> None:
        self.record = record
        self.fleets: list[Fleet] = []
        self.condition = threading.Condition()
        self._changed = changed
        self.ended = False  # deleted, or the cloud stops: nothing is started any more

    @property
    def name(self) -> str:
        return str(self.record["EndpointName"])

    @property
    def status(self) -> str:
        return str(self.record["EndpointStatus"])

    @property
    def variants(self) -> list[Variant]:
        """The production variants that serve: those of the newest fleet with traffic."""
        serving = [fleet for fleet in self.fleets if fleet.share > 0] or self.fleets
        return serving[-1].variants if serving else []

    def set(self, status: str, reason: str | None = None, **more: Any) -> None:
        """Note a new status, and why."""
        with self.condition:
            self.record |= {"EndpointStatus": status, "LastModifiedTime": time.time(), **more}
            self.record.pop("FailureReason", None)
            if reason:
                self.record["FailureReason"] = reason[:1024]
            self.condition.notify_all()
        self._changed()

    def keep(self) -> None:
        """Note the counts and weights that serve, so that the next process knows them."""
        self.record["Variants"] = {
            one.name: {"desired": one.desired, "weight": one.weight} for one in self.variants
        }
        with self.condition:
            self.condition.notify_all()
        self._changed()

    @contextmanager
    def taken(
        self, target: str, deadline: float, wanted: Callable[[Variant], Any] = lambda one: None
    ) -> Iterator[tuple[Variant, Instance]]:
        """Hold an instance for a call; waits for one until `deadline`. Raises `LookupError`."""
        with self.condition:
            while True:
                variant = choose(self.fleets, target)
                if variant is None:
                    raise LookupError(target)
                wanted(variant)
                instance = variant.next()
                if instance is not None:
                    break
                if self.ended or not self.condition.wait(deadline - time.monotonic()):
                    raise LookupError(variant.name)
            instance.outstanding += 1
            instance.called = time.monotonic()
        try:
            yield variant, instance
        finally:
            with self.condition:
                instance.outstanding -= 1
                self.condition.notify_all()

    def describe(self, config: Mapping[str, Any], resolve: Callable[[str], str]) -> dict[str, Any]:
        """Return DescribeEndpoint's answer."""
        ours = ("Variants", "Update")
        answer = {key: value for key, value in self.record.items() if key not in ours}
        if self.status != "Creating" and self.fleets:
            answer["ProductionVariants"] = [_told(one, resolve) for one in self.variants]
            if shadows := self.fleets[-1].shadows:
                answer["ShadowProductionVariants"] = [_told(one, resolve) for one in shadows]
        for key in ("DataCaptureConfig", "AsyncInferenceConfig"):
            if key in config:
                answer[key] = config[key]
        if answer.get("DataCaptureConfig", {}).get("EnableCapture"):
            capture = answer["DataCaptureConfig"]
            answer["DataCaptureConfig"] = {
                "EnableCapture": True, "CaptureStatus": "Started",
                "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
                "DestinationS3Uri": capture["DestinationS3Uri"],
                "KmsKeyId": capture.get("KmsKeyId", ""),
            }  # fmt: skip
        if self.status == "Updating" and len(self.fleets) > 1:
            new = self.fleets[-1]
            answer["PendingDeploymentSummary"] = {
                "EndpointConfigName": new.config,
                "StartTime": self.record.get("Update", {}).get("StartTime", time.time()),
                "ProductionVariants": [_told(one, resolve) for one in new.variants],
            }
        return answer


def _told(variant: Variant, resolve: Callable[[str], str]) -> dict[str, Any]:
    image = variant.container["Image"]
    told: dict[str, Any] = {
        "VariantName": variant.name,
        "DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": resolve(image),
                            "ResolutionTime": time.time()}],
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.weight,
    }  # fmt: skip
    if variant.serverless:
        told["CurrentServerlessConfig"] = told["DesiredServerlessConfig"] = variant.serverless
        told |= {"CurrentInstanceCount": 0, "DesiredInstanceCount": 0}
    else:
        told["CurrentInstanceCount"] = len(variant.serving)
        told["DesiredInstanceCount"] = variant.desired
    if pools := variant.spec.get("InstancePools"):
        counts = Counter(one.kind for one in variant.serving)
        told["InstancePools"] = [
            {"InstanceType": pool["InstanceType"],
             "CurrentInstanceCount": counts[pool["InstanceType"]]}
            for pool in pools
        ]  # fmt: skip
    return told
