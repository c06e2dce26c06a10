"""Application Auto Scaling: its requests, and the calls that put scaling on and take it off.

Pure, like `plan`. The facts are in the contract, section 7.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from deployment import schedules
from deployment.documents import Document
from deployment.settings import Settings
from deployment.state import VARIANT, Scaling, State
from deployment.step import Call
from deployment.tables import Scaling as Wanted

# What describes a target and a policy; the rest of what AWS answers is its own bookkeeping.
NAMED = ("ServiceNamespace", "ResourceId", "ScalableDimension")
TARGET_FIELDS = (*NAMED, "MinCapacity", "MaxCapacity")
POLICY_FIELDS = (
    *NAMED,
    "PolicyName",
    "PolicyType",
    "TargetTrackingScalingPolicyConfiguration",
    "StepScalingPolicyConfiguration",
)

# Per mode: the scaled dimension, the metric that is the default, and every metric's specification.
_DIMENSIONS = {
    "instance": "sagemaker:variant:DesiredInstanceCount",
    "async": "sagemaker:variant:DesiredInstanceCount",
    "serverless": "sagemaker:variant:DesiredProvisionedConcurrency",
}
_DEFAULT_METRIC = {"instance": "invocations", "async": "backlog", "serverless": "provisioned"}
_PREDEFINED = {
    "invocations": "SageMakerVariantInvocationsPerInstance",
    "concurrency": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
    "provisioned": "SageMakerVariantProvisionedConcurrencyUtilization",
}


def scalable_target(name: str, mode: str, scaling: Wanted) -> Document:
    """Return RegisterScalableTarget for the production variant."""
    return scaled_resource(name, _DIMENSIONS[mode]) | {
        "MinCapacity": scaling.min,
        "MaxCapacity": scaling.max,
    }


def scaled_resource(name: str, dimension: str) -> Document:
    """Return the three arguments that name a scalable target in each scaling call."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/{VARIANT}",
        "ScalableDimension": dimension,
    }


def scaling_policy(name: str, mode: str, scaling: Wanted) -> Document:
    """Return PutScalingPolicy: target tracking on one metric."""
    metric = scaling.metric or _DEFAULT_METRIC[mode]
    configuration: Document = {
        "TargetValue": scaling.target,
        "ScaleInCooldown": scaling.scale_in_seconds,
        "ScaleOutCooldown": scaling.scale_out_seconds,
    }
    if scaling.disable_scale_in:
        configuration["DisableScaleIn"] = True
    if metric == "backlog":
        configuration["CustomizedMetricSpecification"] = {
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Namespace": "AWS/SageMaker",
            "Dimensions": [{"Name": "EndpointName", "Value": name}],
            "Statistic": "Average",
        }
    else:
        configuration["PredefinedMetricSpecification"] = {
            "PredefinedMetricType": _PREDEFINED[metric]
        }
    return scaled_resource(name, _DIMENSIONS[mode]) | {
        "PolicyName": f"{name}-target-tracking",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": configuration,
    }


def unscale(scalings: tuple[Scaling, ...]) -> Iterator[Call]:
    """Return the calls that remove scaling: first the policies, then the target."""
    for scaling in scalings:
        target = dict(scaling.target)
        named = {key: target[key] for key in NAMED}
        yield from map(schedules.remove, scaling.schedules)
        for policy in scaling.policies:
            gone = {**named, "PolicyName": policy["PolicyName"]}
            yield Call("application-autoscaling", "delete_scaling_policy", gone,
                       f"the scaling policy {policy['PolicyName']}")  # fmt: skip
        yield Call("application-autoscaling", "deregister_scalable_target", named, "scaling")


def scale(
    target: Mapping[str, Any],
    policies: tuple[Mapping[str, Any], ...],
    what: str,
    exists: bool = False,
) -> list[Call]:
    service = "application-autoscaling"
    effect: Literal["add", "change"] = "change" if exists else "add"
    between = f"{target['MinCapacity']} to {target['MaxCapacity']}"
    calls = [Call(service, "register_scalable_target", target, f"scaling {between}, {what}",
                  effect=effect)]  # fmt: skip
    for policy in policies:
        calls.append(Call(service, "put_scaling_policy", policy, f"its policy, {what}",
                          effect=effect))  # fmt: skip
    return calls


def changes(settings: Settings, state: State, removed: bool = False) -> Iterator[Call]:
    """Return the calls that make scaling what the settings say; `removed` if an update took it.

    Settings without scaling leave alone what is there: it may have been made elsewhere.
    """
    existing = () if removed else state.scaling
    if settings.scaling is None:
        if removed:
            yield from put_back(state.scaling)
        return
    name, mode, wanted = settings.name, settings.mode, settings.scaling
    target, policy = scalable_target(name, mode, wanted), scaling_policy(name, mode, wanted)
    if not any(_as_wanted(wanted, target, policy, found) for found in existing):
        yield from scale(target, (policy,), "set", bool(existing))
    resource = scaled_resource(name, _DIMENSIONS[mode])
    yield from schedules.changes(name, schedules.actions(name, resource, wanted), existing)


def _as_wanted(
    wanted: Wanted, target: Mapping[str, Any], policy: Mapping[str, Any], found: Scaling
) -> bool:
    """Say whether what is registered is what the settings say, at any time of day."""
    same = (one for one in found.policies
            if holds(policy, one) and _grows_only(policy) == _grows_only(one))  # fmt: skip
    dimension = target["ScalableDimension"] == found.target["ScalableDimension"]
    return dimension and schedules.reached(wanted, found.target) and any(same)


def _grows_only(policy: Mapping[str, Any]) -> bool:
    """Say whether a policy never takes instances away; AWS answers False where nothing was said."""
    configuration = policy.get("TargetTrackingScalingPolicyConfiguration") or {}
    return bool(configuration.get("DisableScaleIn"))


def kept(state: State) -> Iterator[str]:
    """Say what scales the endpoint although the settings do not name it."""
    for one in state.scaling:
        between = f"{one.target['MinCapacity']} to {one.target['MaxCapacity']}"
        named = [*(policy["PolicyName"] for policy in one.policies),
                 *(action["ScheduledActionName"] for action in one.schedules)]  # fmt: skip
        by = ", ".join(named) or "no policy"
        yield (f"scaling {between} ({by}) is not in endpoint.toml and stays as it is; write it as "
               "[scaling], or take it off with `python deploy.py autoscale --off`")  # fmt: skip


def holds(wanted: Any, found: Any) -> bool:
    """Say whether `found` is as wanted. AWS also answers defaults."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return all(key in found and holds(value, found[key]) for key, value in wanted.items())
    return bool(wanted == found)


def put_back(scalings: tuple[Scaling, ...]) -> tuple[Call, ...]:
    """Return the calls that register what was there before."""
    return tuple(
        call
        for scaling in scalings
        for call in (
            *scale(scaling.target, scaling.policies, "put back"),
            *(schedules.put(action, "put back") for action in scaling.schedules),
        )
    )
