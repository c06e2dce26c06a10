"""How many instances of a type an account may run for endpoints, and how many it needs at once."""

from __future__ import annotations

import math
from collections import Counter

from deployment.aws import Cloud
from deployment.errors import DeployError
from deployment.settings import Settings
from deployment.state import State
from deployment.step import Call, Plan


def name(kind: str) -> str:
    """Return the quota's name."""
    return f"{kind} for endpoint usage"


def allowed(cloud: Cloud, kind: str) -> float | None:
    """Return the account's quota, None where it cannot be read."""
    quotas = cloud.pages("service-quotas", "list_service_quotas", "Quotas", ServiceCode="sagemaker")
    try:
        return next((one["Value"] for one in quotas if one["QuotaName"] == name(kind)), None)
    except DeployError:
        return None


def fleet(settings: Settings, state: State) -> dict[str, int]:
    """Return how many instances of each type the endpoint has once it is as the settings say."""
    if settings.instance_type is None:
        return {}
    count = settings.machines.count
    if state.scaling and state.endpoint:  # an update keeps the count that scaling has reached
        count = max(count, state.endpoint.instances)
    kinds = Counter({settings.instance_type: count})
    if settings.shadow is not None:
        kinds[settings.shadow.type or settings.machines.type] += settings.shadow.count
    for variant in settings.variants.values():
        kinds[variant.type or settings.machines.type] += variant.count
    return dict(kinds)


def at_once(settings: Settings, planned: Plan, wanted: int) -> int:
    """Return how many instances the plan starts before any of the old ones ends."""
    operations = {step.operation for step in planned.steps if isinstance(step, Call)}
    if "create_endpoint" in operations:
        return wanted
    if "update_endpoint" not in operations:
        return 0
    if settings.update.policy == "rolling":
        return math.ceil(wanted * settings.update.percent / 100)
    return wanted


def in_use(cloud: Cloud, kind: str) -> int:
    """Return how many instances of this type all endpoints of the region run now."""
    used = 0
    for summary in cloud.pages("sagemaker", "list_endpoints", "Endpoints"):
        named = {"EndpointName": summary["EndpointName"]}
        endpoint = cloud.find("sagemaker", "describe_endpoint", **named)
        if endpoint is None or endpoint["EndpointStatus"] == "Failed":
            continue
        config = cloud.find("sagemaker", "describe_endpoint_config",
                            EndpointConfigName=endpoint.get("EndpointConfigName", ""))  # fmt: skip
        kinds = {variant["VariantName"]: variant.get("InstanceType")
                 for key in ("ProductionVariants", "ShadowProductionVariants")
                 for variant in (config or {}).get(key) or ()}  # fmt: skip
        for variant in (one for key in ("ProductionVariants", "ShadowProductionVariants")
                        for one in endpoint.get(key) or ()):  # fmt: skip
            whole = {"InstanceType": kinds.get(variant["VariantName"]), **variant}
            used += sum(pool.get("CurrentInstanceCount") or 0
                        for pool in variant.get("InstancePools") or [whole]
                        if pool["InstanceType"] == kind)  # fmt: skip
    return used
