"""Looking: what exists, into a `State`. Only reads; with no cloud nothing is taken to exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from deployment import metrics, resolve, scaling, schedules
from deployment.aws import Cloud
from deployment.combinations import made_alarms
from deployment.documents import alarms, kind, name_stem, named_by_us
from deployment.errors import Unauthorised
from deployment.settings import Settings
from deployment.state import (
    DEFAULTS_TAG,
    OWNER_TAG,
    VARIANT,
    Config,
    Endpoint,
    Scaling,
    State,
    Target,
)
from deployment.supplies import guarded
from deployment.tables import Metrics

Thing = TypeVar("Thing")
_DEFAULTS = "1"  # scraped metrics, and routing by outstanding requests


def look(cloud: Cloud | None, settings: Settings, workspace: Path) -> tuple[Target, State]:
    """Resolve the settings and look at what exists; a new endpoint gets today's defaults.

    An endpoint that was made with older ones keeps them: a new version plans nothing by itself.
    """
    wanted = resolve.target(cloud, settings, workspace)
    found = state(cloud, settings, wanted)
    return with_defaults(wanted, found), found


def with_defaults(wanted: Target, found: State) -> Target:
    """Fill what the settings leave open, for an endpoint that is new or was made with defaults."""
    settings, endpoint = wanted.settings, found.endpoint
    before = found.current.document.get("DataCaptureConfig") or {} if found.current else {}
    if types := (before.get("CaptureContentTypeHeader") or {}).get("CsvContentTypes"):
        wanted = replace(wanted, captured=tuple(types))
    new = endpoint is None or endpoint.status == "Failed"
    kept = found.current.tags.get(DEFAULTS_TAG) if found.current else None
    if settings.serverless is not None or not (new or kept):
        return wanted
    update: dict[str, Any] = {"metrics": settings.metrics or Metrics()}
    if settings.mode == "instance" and settings.models is None and not settings.machines.routing:
        update["instance"] = settings.machines.model_copy(update={"routing": "least-outstanding"})
    return replace(wanted, settings=settings.model_copy(update=update), defaults=_DEFAULTS)


def state(cloud: Cloud | None, settings: Settings, target: Target | None = None) -> State:
    """Look at everything that carries our tag, and at the endpoint, ours or not."""
    if cloud is None:
        return State(assumed=True)
    name = settings.name
    configs = tuple(_configs(cloud, name))
    endpoint = find_endpoint(cloud, name)
    uris = {source.uri for source in target.sources if source.package} if target else set()
    current = next((one for one in configs if endpoint and one.name == endpoint.config), None)
    if current is None and endpoint and endpoint.config:
        current = _config(cloud, endpoint.config)
    scheduled = bool(settings.scaling and settings.scaling.schedules)
    needs_alarms = made_alarms(settings) > 0 or bool(metrics.alarms(settings))
    return State(
        bucket_exists=target is None or bucket_exists(cloud, settings, target.bucket),
        uploaded=frozenset(uri for uri in uris if _exists(cloud, uri)),
        endpoint=endpoint,
        current=current,
        model=_model(cloud, current) if target else {},
        configs=tuple(sorted(configs, key=lambda config: config.created, reverse=True)),
        models=tuple(_models(cloud, name)),
        scaling=tuple(_readable(_scalings(cloud, name, scheduled), settings.scaling is not None)),
        alarms=dict(_readable(_alarms(cloud, settings), needs_alarms)),
    )


def bucket_exists(cloud: Cloud, settings: Settings, bucket: str) -> bool:
    """Say whether the bucket exists, and refuse one of our default name that is another's."""
    owner = guarded(settings, cloud.account)
    return cloud.find("s3", "head_bucket", Bucket=bucket, **owner) is not None


def _model(cloud: Cloud, current: Config | None) -> Mapping[str, Any]:
    """Describe the model that serves, or return nothing where it is gone."""
    if current is None or not current.models:
        return {}
    return cloud.find("sagemaker", "describe_model", ModelName=current.models[0]) or {}


def _readable(found: Iterator[Thing], needed: bool) -> list[Thing]:
    """Read all, or nothing where that is not permitted and the settings do not ask for any."""
    try:
        return list(found)
    except Unauthorised as error:
        if needed or not error.code.startswith("AccessDenied"):
            raise
        return []


def _exists(cloud: Cloud, uri: str) -> bool:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return cloud.find("s3", "head_object", Bucket=bucket, Key=key) is not None


def tags(cloud: Cloud, arn: str) -> dict[str, str]:
    """Return the tags of a SageMaker resource."""
    found = cloud.find("sagemaker", "list_tags", ResourceArn=arn) or {}
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())}


def find_endpoint(cloud: Cloud, name: str) -> Endpoint | None:
    """Describe the endpoint, or return None where there is none."""
    found = cloud.find("sagemaker", "describe_endpoint", EndpointName=name)
    if found is None:
        return None
    variants = found.get("ProductionVariants") or ()
    return Endpoint(
        name=name,
        arn=found["EndpointArn"],
        status=found["EndpointStatus"],
        config=found.get("EndpointConfigName", ""),
        reason=found.get("FailureReason", ""),
        tags=tags(cloud, found["EndpointArn"]),
        created=found.get("CreationTime"),
        instances=sum(variant.get("CurrentInstanceCount") or 0 for variant in variants),
        pending=(found.get("PendingDeploymentSummary") or {}).get("EndpointConfigName", ""),
        stage=_stage(found),
    )


def _stage(found: Mapping[str, Any]) -> str:
    """Say how far an update is: `Baking, 1 of 2 new instances`; nothing where none is under way."""
    pending = (found.get("PendingDeploymentSummary") or {}).get("ProductionVariants") or ()
    states = [status["Status"] for variant in pending
              for status in variant.get("VariantStatus") or ()]  # fmt: skip
    now = sum(variant.get("CurrentInstanceCount") or 0 for variant in pending)
    wanted = sum(variant.get("DesiredInstanceCount") or 0 for variant in pending)
    counted = [f"{now} of {wanted} new instances"] if wanted else []
    return ", ".join([*dict.fromkeys(states), *counted])


def _config(cloud: Cloud, name: str, tagged: Mapping[str, str] | None = None) -> Config | None:
    found = cloud.find("sagemaker", "describe_endpoint_config", EndpointConfigName=name)
    if found is None:
        return None
    variants = [*found["ProductionVariants"], *(found.get("ShadowProductionVariants") or ())]
    return Config(
        name=name,
        created=found["CreationTime"],
        models=tuple(variant["ModelName"] for variant in variants if variant.get("ModelName")),
        variants={variant["VariantName"]: kind(variant) for variant in variants},
        document=found,
        tags=tagged or {},
    )


def _configs(cloud: Cloud, name: str) -> Iterator[Config]:
    found = cloud.pages("sagemaker", "list_endpoint_configs", "EndpointConfigs",
                        NameContains=name_stem(name))  # fmt: skip
    for summary in found:
        if not named_by_us(name, summary["EndpointConfigName"]):
            continue
        tagged = tags(cloud, summary["EndpointConfigArn"])
        if tagged.get(OWNER_TAG) == name:
            config = _config(cloud, summary["EndpointConfigName"], tagged)
            if config is not None:
                yield config


def _models(cloud: Cloud, name: str) -> Iterator[str]:
    for summary in cloud.pages("sagemaker", "list_models", "Models", NameContains=name_stem(name)):
        if not named_by_us(name, summary["ModelName"]):
            continue
        if tags(cloud, summary["ModelArn"]).get(OWNER_TAG) == name:
            yield summary["ModelName"]


def _scalings(cloud: Cloud, name: str, needs_schedules: bool) -> Iterator[Scaling]:
    asked = {"ServiceNamespace": "sagemaker"}
    resource = f"endpoint/{name}/variant/{VARIANT}"
    policies = [
        _only(policy, scaling.POLICY_FIELDS)
        for policy in cloud.pages("application-autoscaling", "describe_scaling_policies",
                                  "ScalingPolicies", **asked, ResourceId=resource)
    ]  # fmt: skip
    for found in cloud.pages("application-autoscaling", "describe_scalable_targets",
                             "ScalableTargets", **asked, ResourceIds=[resource]):  # fmt: skip
        mine = [p for p in policies if p["ScalableDimension"] == found["ScalableDimension"]]
        scheduled = _readable(_schedules(cloud, found), needs_schedules)
        yield Scaling(_only(found, scaling.TARGET_FIELDS), tuple(mine), tuple(scheduled))


def _schedules(cloud: Cloud, target: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    named = {key: target[key] for key in scaling.NAMED}
    for found in cloud.pages("application-autoscaling", "describe_scheduled_actions",
                             "ScheduledActions", **named):  # fmt: skip
        yield _only(found, (*scaling.NAMED, *schedules.FIELDS))


def _alarms(cloud: Cloud, settings: Settings) -> Iterator[tuple[str, Mapping[str, Any]]]:
    made = {**alarms(settings), **metrics.alarms(settings)}
    for found in cloud.pages("cloudwatch", "describe_alarms", "MetricAlarms",
                             AlarmNamePrefix=f"{settings.name}-"):  # fmt: skip
        answer = cloud.find("cloudwatch", "list_tags_for_resource", ResourceARN=found["AlarmArn"])
        mine = {tag["Key"]: tag["Value"] for tag in (answer or {}).get("Tags", ())}
        if mine.get(OWNER_TAG) == settings.name:
            wanted = made.get(found["AlarmName"], {})
            yield found["AlarmName"], _only(found, tuple(wanted))


def _only(found: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {key: found[key] for key in fields if key in found}
