"""Model packages: a version of a registered model as an endpoint's model, and a version registered.

`model_package` names a version by its ARN or as GROUP/VERSION, or a group: then its newest approved
version is taken. A version never changes, so its ARN says what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deployment import supplies
from deployment.aws import Answer, Cloud
from deployment.errors import Refused
from deployment.settings import Settings
from deployment.step import Call

APPROVED = "Approved"
_PENDING = "PendingManualApproval"
_TYPES = ("text/csv", "application/json", "application/jsonlines", "application/x-npy")
_MADE = "made by the training job {job}"
_VALUE_LIMIT = 256  # characters of a value of CustomerMetadataProperties


def describe(cloud: Cloud, named: str) -> Answer:
    """Return DescribeModelPackage of a version, or of a group's newest approved version.

    Raises `Refused` where there is none.
    """
    if not _is_version(named):
        named = _newest(cloud, named)
    elif not named.startswith("arn:"):
        where = f"arn:{cloud.partition}:sagemaker:{cloud.region}:{cloud.account}"
        named = f"{where}:model-package/{named.lower()}"
    found = cloud.find("sagemaker", "describe_model_package", ModelPackageName=named)
    if found is None:
        raise Refused(f"there is no model package {named}", "name a group, or GROUP/VERSION")
    return found


def _is_version(named: str) -> bool:
    """Say whether a version is named, and not a group: `wine/3`, or an ARN that ends so."""
    return named.rsplit("/", 1)[-1].isdigit() if "/" in named else False


def _versions(cloud: Cloud, group: str) -> Iterator[Answer]:
    """Yield the versions of a group, the newest first."""
    yield from cloud.pages(
        "sagemaker", "list_model_packages", "ModelPackageSummaryList",
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending",
    )  # fmt: skip


def _exists(cloud: Cloud, group: str) -> bool:
    named = {"ModelPackageGroupName": group}
    return cloud.find("sagemaker", "describe_model_package_group", **named) is not None


def _newest(cloud: Cloud, group: str) -> str:
    group = group.rsplit("/", 1)[-1]
    if not _exists(cloud, group):
        raise Refused(f"there is no model package group {group}", "name a group, or GROUP/VERSION")
    versions = list(_versions(cloud, group))
    for one in versions:
        if one.get("ModelApprovalStatus") == APPROVED:
            return str(one["ModelPackageArn"])
    raise Refused(
        f"no version of the model package group {group} is approved; it has {len(versions)}",
        f"{approval('ARN')}; or name one as GROUP/VERSION",
    )


def approval(arn: str) -> str:
    """Say how a version is approved."""
    return (
        "approve it: aws sagemaker update-model-package --model-approval-status Approved "
        f"--model-package-arn {arn}"
    )


def containers(package: Answer) -> list[Mapping[str, Any]]:
    """Return the containers of a package."""
    return list((package.get("InferenceSpecification") or {}).get("Containers") or ())


def image(package: Answer) -> str:
    """Return the image of a package's container. Raises `Refused` where it has not one container.

    A package of several containers is a pipeline.
    """
    found = containers(package)
    if len(found) != 1 or not found[0].get("Image"):
        raise Refused(
            f"the model package {package['ModelPackageArn']} has {len(found)} containers, and an "
            "endpoint here has one"
        )
    return str(found[0]["Image"])


def made_of(cloud: Cloud, group: str, job: str) -> str:
    """Return the ARN of the version that a training job has made; nothing where there is none."""
    if not _exists(cloud, group):
        return ""
    told = _MADE.format(job=job)
    return next((str(one["ModelPackageArn"]) for one in _versions(cloud, group)
                 if one.get("ModelPackageDescription") == told), "")  # fmt: skip


def register(
    settings: Settings, cloud: Cloud, job: Mapping[str, Any], picture: str
) -> Iterator[Call]:
    """Return the calls that register a training job's model as a version of [train] register."""
    train = settings.train
    assert train is not None
    group = {"ModelPackageGroupName": train.register_}
    if not _exists(cloud, train.register_ or ""):
        undo = Call(
            "sagemaker", "delete_model_package_group", group, f"the group {train.register_}"
        )
        yield Call("sagemaker", "create_model_package_group",
                   {**group, "Tags": supplies.tags(settings)},
                   f"the model package group {train.register_}", undo)  # fmt: skip
    data = job["ModelArtifacts"]["S3ModelArtifacts"]
    metrics = {one["MetricName"]: f"{one['Value']:g}" for one in job.get("FinalMetricDataList", ())}
    document = {
        **group,
        "ModelPackageDescription": _MADE.format(job=job["TrainingJobName"]),
        "InferenceSpecification": {
            "Containers": [{"Image": picture, "ModelDataUrl": data}],
            "SupportedContentTypes": list(_TYPES),
            "SupportedResponseMIMETypes": list(_TYPES),
        },
        "ModelApprovalStatus": APPROVED if train.approved else _PENDING,
        "CustomerMetadataProperties": {
            key: value[:_VALUE_LIMIT]
            for key, value in {"TrainingJob": job["TrainingJobName"], **metrics}.items()
        },
    }
    yield Call("sagemaker", "create_model_package", document, f"a version of {train.register_}")
