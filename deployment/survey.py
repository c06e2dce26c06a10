"""Looking: the settings' names resolved into a `Target`, and what exists into a `State`.

Only reads. What is missing and needed is a `Refused`; with no cloud (no credentials) nothing is
taken to exist and placeholders stand for what only AWS knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from deployment import package, scaling
from deployment.aws import Cloud
from deployment.combinations import isolated, made_alarms
from deployment.documents import alarms, name_stem, named_by_us
from deployment.errors import Refused, Unauthorised
from deployment.image import in_ecr
from deployment.image_uri import ecr_parts
from deployment.settings import Settings
from deployment.state import (
    OWNER_TAG,
    VARIANT,
    Config,
    Endpoint,
    Scaling,
    Source,
    State,
    Target,
)
from deployment.supplies import guarded

Thing = TypeVar("Thing")
_NOBODY = "000000000000"  # the account of a plan made without credentials


def target(cloud: Cloud | None, settings: Settings, workspace: Path) -> Target:
    """Resolve names and pack the models, into files of `workspace`."""
    needed = ("image", "role") if settings.models is not None else ("model", "image", "role")
    for key in needed:
        if not getattr(settings, key):
            hint = {"role": "make one: python deploy.py role --create"}.get(key, "")
            raise Refused(f"no {key} is given", hint or f"set {key} in endpoint.toml, or --{key}")
    account = cloud.account if cloud else _NOBODY
    region = cloud.region if cloud else settings.region or "REGION"
    bucket = settings.bucket_in(region, account)
    if settings.models is not None:
        where = models_prefix(settings, bucket)
        source = Source(where, "many", where)
    else:
        source = _source(cloud, settings, bucket, settings.model, settings.code, settings.choose,
                         workspace / "model.tar.gz")  # fmt: skip
    shadow, shadow_image = None, ""
    if settings.shadow is not None:
        shadow = _source(cloud, settings, bucket, settings.shadow.model, settings.shadow.code,
                         settings.shadow.choose, workspace / "shadow.tar.gz")  # fmt: skip
        shadow_image = by_digest(cloud, settings.shadow.image or settings.image)
    needs = "; ".join(s.package.needs_network for s in (source, shadow)
                      if s and s.package and s.package.needs_network)  # fmt: skip
    return Target(
        settings=settings,
        account=account if cloud else "",
        region=region,
        role=role_arn(cloud, settings.role),
        bucket=bucket,
        image=by_digest(cloud, settings.image),
        source=source,
        isolated=isolated(settings, needs),
        shadow_image=shadow_image,
        shadow_source=shadow,
    )


def models_prefix(settings: Settings, bucket: str) -> str:
    """Return where the archives of many models lie."""
    assert settings.models is not None
    return settings.models.prefix or f"s3://{bucket}/{settings.home}/models/"


def _source(
    cloud: Cloud | None, settings: Settings, bucket: str, model: str, code: str | None,
    choose: str, archive: Path,
) -> Source:  # fmt: skip
    if model.startswith("s3://"):
        return _in_s3(cloud, model)
    folder = settings.folder
    packed = package.pack(folder / model, archive, folder / code if code else None, choose)
    uri = f"s3://{bucket}/{settings.home}/{packed.digest[:32]}/model.tar.gz"
    return Source(uri, "archive", packed.digest, packed)


def _in_s3(cloud: Cloud | None, uri: str) -> Source:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if uri.endswith("/"):
        below = {"Bucket": bucket, "Prefix": key}
        found = cloud.pages("s3", "list_objects_v2", "Contents", **below) if cloud else ()
        objects = sorted(f"{one['Key']} {one['ETag']}" for one in found)
        if cloud and not objects:
            raise Refused(f"there is nothing below {uri}")
        identity = hashlib.sha256("\n".join(objects).encode()).hexdigest()
        return Source(uri, "prefix", identity)
    head = cloud.find("s3", "head_object", Bucket=bucket, Key=key) if cloud else {}
    if head is None:
        raise Refused(f"there is no {uri}")
    return Source(uri, "archive" if uri.endswith(".tar.gz") else "object", head.get("ETag", ""))


def by_digest(cloud: Cloud | None, uri: str) -> str:
    """Pin an image in ECR to its digest, so that a tag pushed again changes nothing that serves."""
    parts = ecr_parts(uri)
    if cloud is None or parts is None or parts["digest"]:
        return uri
    host = uri.split("/", 1)[0]
    return f"{host}/{parts['repository']}@{in_ecr(cloud, uri).digest}"


def role_arn(cloud: Cloud | None, role: str) -> str:
    """Return the ARN of a role given by name or ARN."""
    if role.startswith("arn:"):
        return role
    if cloud is None:
        return f"arn:aws:iam::{_NOBODY}:role/{role}"
    try:
        found = cloud.find("iam", "get_role", RoleName=role.rsplit("/", 1)[-1])
    except Unauthorised as error:
        if "AccessDenied" not in error.code:
            raise
        # Without iam:GetRole the name is all there is; preflight says that it was not checked.
        return f"arn:{cloud.partition}:iam::{cloud.account}:role/{role}"
    if found is None:
        raise Refused(f"there is no role {role}", "make it: python deploy.py role --create")
    return str(found["Role"]["Arn"])


def state(cloud: Cloud | None, settings: Settings, target: Target | None = None) -> State:
    """Look at everything that carries our tag, and at the endpoint, whoever made it."""
    if cloud is None:
        return State(assumed=True)
    name = settings.name
    configs = tuple(_configs(cloud, name))
    endpoint = find_endpoint(cloud, name)
    uris = (
        [source.uri for source in (target.source, target.shadow_source) if source] if target else []
    )
    current = _config(cloud, endpoint.config) if endpoint and endpoint.config else None
    return State(
        bucket_exists=target is None or bucket_exists(cloud, settings, target.bucket),
        uploaded=frozenset(uri for uri in uris if _exists(cloud, uri)),
        endpoint=endpoint,
        current=current,
        model=_model(cloud, current) if target else {},
        configs=tuple(sorted(configs, key=lambda config: config.created, reverse=True)),
        models=tuple(_models(cloud, name)),
        scaling=tuple(_readable(_scalings(cloud, name), settings.scaling is not None)),
        alarms=dict(_readable(_alarms(cloud, settings), made_alarms(settings) > 0)),
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
    )


def _config(cloud: Cloud, name: str) -> Config | None:
    found = cloud.find("sagemaker", "describe_endpoint_config", EndpointConfigName=name)
    if found is None:
        return None
    variants = [*found["ProductionVariants"], *(found.get("ShadowProductionVariants") or ())]
    return Config(
        name=name,
        created=found["CreationTime"],
        models=tuple(variant["ModelName"] for variant in variants if variant.get("ModelName")),
        variants={
            variant["VariantName"]: variant.get("InstanceType") or "serverless"
            for variant in variants
        },
        document=found,
    )


def _configs(cloud: Cloud, name: str) -> Iterator[Config]:
    found = cloud.pages("sagemaker", "list_endpoint_configs", "EndpointConfigs",
                        NameContains=name_stem(name))  # fmt: skip
    for summary in found:
        if not named_by_us(name, summary["EndpointConfigName"]):
            continue
        if tags(cloud, summary["EndpointConfigArn"]).get(OWNER_TAG) == name:
            config = _config(cloud, summary["EndpointConfigName"])
            if config is not None:
                yield config


def _models(cloud: Cloud, name: str) -> Iterator[str]:
    for summary in cloud.pages("sagemaker", "list_models", "Models", NameContains=name_stem(name)):
        if not named_by_us(name, summary["ModelName"]):
            continue
        if tags(cloud, summary["ModelArn"]).get(OWNER_TAG) == name:
            yield summary["ModelName"]


def _scalings(cloud: Cloud, name: str) -> Iterator[Scaling]:
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
        yield Scaling(_only(found, scaling.TARGET_FIELDS), tuple(mine))


def _alarms(cloud: Cloud, settings: Settings) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for found in cloud.pages("cloudwatch", "describe_alarms", "MetricAlarms",
                             AlarmNamePrefix=f"{settings.name}-"):  # fmt: skip
        answer = cloud.find("cloudwatch", "list_tags_for_resource", ResourceARN=found["AlarmArn"])
        mine = {tag["Key"]: tag["Value"] for tag in (answer or {}).get("Tags", ())}
        if mine.get(OWNER_TAG) == settings.name:
            wanted = alarms(settings).get(found["AlarmName"], {})
            yield found["AlarmName"], _only(found, tuple(wanted))


def _only(found: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {key: found[key] for key in fields if key in found}
