"""The requests that make an endpoint, as pure functions from a `Target`.

Each returns the arguments of one API call without the names and tags that `plan` adds. Fields and
ranges are in the contract, sections 7.2 to 7.4 and 7.7; tests check each against botocore's model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from deployment import metrics
from deployment.image_uri import ecr_parts
from deployment.settings import Settings
from deployment.state import SHADOW, VARIANT, Source, Target

Document = dict[str, Any]
_NAME_LIMIT = 63
_DIGEST_LENGTH = 12  # 48 bits: two of the few configs of one endpoint never meet


def digest_name(name: str, document: Mapping[str, Any]) -> str:
    """Return `<name>-<digest of document>`, cut to what SageMaker allows: wine-3f2a..."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{name_stem(name)}-{digest}"


# Seconds that SageMaker lets an asynchronous call, or one of batch transform, take at most.
LONGEST_CALL = 3600


def name_stem(name: str) -> str:
    """Return the part of `name` that every model and config of it begins with."""
    return name[: _NAME_LIMIT - _DIGEST_LENGTH - 1].rstrip("-")


def named_by_us(name: str, found: str) -> bool:
    """Say whether `found` is what `digest_name` makes of `name`: wine-at-sea-... is not of wine."""
    stem, _, digest = found.rpartition("-")
    return stem == name_stem(name) and len(digest) == _DIGEST_LENGTH and digest.isalnum()


def model(target: Target, image: str, source: Source, choose: str) -> Document:
    """Return CreateModel. `identity` is part of the name only, see `plan`."""
    settings = target.settings
    environment = dict(settings.environment)
    if choose:
        environment.setdefault("SKSERVE_MODEL_FILE", choose)
    if settings.verify and source.package is not None:
        environment.setdefault("SKSERVE_MODEL_SHA256", source.package.tree)
    if not target.isolated:
        # The platform does not reliably say where it runs, and S3 clients need to know.
        environment.setdefault("SAGEMAKER_REGION", target.region)
    if settings.mode == "async":  # the container's own limits are those of calls that wait
        environment.setdefault("SAGEMAKER_MODEL_SERVER_TIMEOUT", str(LONGEST_CALL))
        environment.setdefault("SAGEMAKER_MAX_PAYLOAD_IN_MB", "1024")
    container: Document = {"Image": image, **_SOURCES[source.kind](source.uri)}
    if source.kind == "package":
        del container["Image"]  # the package names it
    elif ecr_parts(image) is None and settings.vpc is not None:
        # Without this, SageMaker takes any image to be in ECR (contract 7.1).
        container["ImageConfig"] = given(
            RepositoryAccessMode="Vpc",
            RepositoryAuthConfig=given(RepositoryCredentialsProviderArn=settings.image_credentials)
            or None,
        )
    if settings.models is not None:
        caching = "Enabled" if settings.models.cache else "Disabled"
        container |= {"Mode": "MultiModel", "MultiModelConfig": {"ModelCacheSetting": caching}}
    if environment:
        container["Environment"] = environment
    container |= metrics.container(settings)
    vpc = settings.vpc
    return {
        "ExecutionRoleArn": target.role,
        "PrimaryContainer": container,
        "EnableNetworkIsolation": target.isolated,
    } | given(
        VpcConfig=vpc
        and {"SecurityGroupIds": list(vpc.security_groups), "Subnets": list(vpc.subnets)}
    )


def _plain(kind: str) -> Callable[[str], Document]:
    return lambda uri: {
        "ModelDataSource": {
            "S3DataSource": {"S3Uri": uri, "S3DataType": kind, "CompressionType": "None"}
        }
    }


_SOURCES: Mapping[str, Callable[[str], Document]] = {
    "archive": lambda uri: {"ModelDataUrl": uri},
    "many": lambda uri: {"ModelDataUrl": uri},
    "package": lambda arn: {"ModelPackageName": arn},
    "object": _plain("S3Object"),
    "prefix": _plain("S3Prefix"),
}


def endpoint_config(target: Target, model_name: str, *others: str) -> Document:
    """Return CreateEndpointConfig; `others` are the shadow's model or those of other variants."""
    settings = target.settings
    document: Document = {"ProductionVariants": [variant(settings, model_name)]}
    if settings.shadow is not None:
        # With a weight of 1 in production, the shadow's weight is the share of copied traffic.
        document["ShadowProductionVariants"] = [
            {
                "VariantName": SHADOW,
                "ModelName": others[0],
                "InstanceType": settings.shadow.type or settings.machines.type,
                "InitialInstanceCount": settings.shadow.count,
                "InitialVariantWeight": settings.shadow.percent / 100,
            }
        ]
    for model, (name, other) in zip(others, settings.variants.items(), strict=False):
        machines = settings.machines
        machine = machines.model_copy(
            update={"type": other.type or machines.type, "count": other.count}
        )
        alike = settings.model_copy(update={"instance": machine, "weight": other.weight})
        document["ProductionVariants"].append(variant(alike, model) | {"VariantName": name})
    if settings.async_ is not None:
        document["AsyncInferenceConfig"] = _async(settings)
    if settings.capture is not None:
        document["DataCaptureConfig"] = _capture(settings, target.captured)
    if settings.kms.volume and settings.serverless is None:
        document["KmsKeyId"] = settings.kms.volume
    return document | metrics.config(settings)


_ROUTING: Mapping[str, Document] = {
    "least-outstanding": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    "random": {"RoutingStrategy": "RANDOM"},
}


def variant(settings: Settings, model_name: str) -> Document:
    document: Document = {
        "VariantName": VARIANT,
        "ModelName": model_name,
        "InitialVariantWeight": settings.weight,
    }
    if settings.serverless is not None:
        wanted = settings.serverless
        document["ServerlessConfig"] = given(
            MemorySizeInMB=wanted.memory_mb,
            MaxConcurrency=wanted.concurrency,
            ProvisionedConcurrency=wanted.provisioned,
        )
        return document
    machines = settings.machines
    pools = [{"InstanceType": kind, "Priority": priority}
             for priority, kind in enumerate((machines.type, *machines.fallbacks), 1)]  # fmt: skip
    return document | given(
        InstanceType=None if machines.fallbacks else machines.type,
        InstancePools=pools if machines.fallbacks else None,
        VariantInstanceProvisionTimeoutInSeconds=machines.provision_seconds,
        InitialInstanceCount=machines.count,
        VolumeSizeInGB=machines.volume_gb,
        RoutingConfig=_ROUTING.get(machines.routing or ""),
        ModelDataDownloadTimeoutInSeconds=settings.startup.download_seconds,
        ContainerStartupHealthCheckTimeoutInSeconds=settings.startup.health_seconds,
    )


def kind(variant: Mapping[str, Any]) -> str:
    """Return what a variant runs on: its instance type, or all of its pools', or serverless."""
    pools = ", ".join(pool["InstanceType"] for pool in variant.get("InstancePools") or ())
    return str(variant.get("InstanceType") or pools or "serverless")


def _async(settings: Settings) -> Document:
    wanted = settings.async_
    assert wanted is not None
    topics = given(SuccessTopic=wanted.success_topic, ErrorTopic=wanted.error_topic)
    document: Document = {
        "OutputConfig": given(
            S3OutputPath=wanted.output,
            S3FailurePath=wanted.failure,
            KmsKeyId=settings.kms.output,
            NotificationConfig=topics or None,
        )
    }
    if wanted.concurrency is not None:
        document["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": wanted.concurrency}
    return document


def _capture(settings: Settings, types: tuple[str, ...]) -> Document:
    wanted = settings.capture
    assert wanted is not None
    return given(
        EnableCapture=True,
        InitialSamplingPercentage=wanted.percent,
        DestinationS3Uri=wanted.destination,
        KmsKeyId=settings.kms.output,
        CaptureOptions=[{"CaptureMode": mode.capitalize()} for mode in wanted.what],
        # Types not listed here are captured as base64. AWS compares without parameters.
        CaptureContentTypeHeader={
            "CsvContentTypes": list(types),
            "JsonContentTypes": ["application/json", "application/jsonlines"],
        },
    )


def alarms(settings: Settings) -> dict[str, Document]:
    """Return PutMetricAlarm by alarm name: the guide's recipe for guarded updates."""
    wanted = {
        # ModelLatency is in microseconds (contract 1.13).
        f"{settings.name}-errors": ("Invocation5XXErrors", settings.update.error_rate, 1.0),
        f"{settings.name}-latency": ("ModelLatency", settings.update.latency_ms, 1000.0),
    }
    return {
        name: {
            "AlarmName": name,
            "AlarmDescription": f"made by skserve to guard updates of {settings.name}",
            "Namespace": "AWS/SageMaker",
            "MetricName": metric,
            "Statistic": "Average",
            "Dimensions": [
                {"Name": "EndpointName", "Value": settings.name},
                {"Name": "VariantName", "Value": VARIANT},
            ],
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": threshold * scale,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
        }
        for name, (metric, threshold, scale) in wanted.items()
        if threshold is not None
    }


def given(**arguments: Any) -> Document:
    """Leave out what was not given: the API takes a missing field, not a null one."""
    return {key: value for key, value in arguments.items() if value is not None}
