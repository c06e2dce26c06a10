"""CreateTrainingJob's request, of settings and of a place whose names are resolved. Pure.

The facts are in the contract, section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployment import supplies
from deployment.combinations import NVME, family
from deployment.settings import Settings
from deployment.tables import Train
from deployment.training_inputs import CODE, SOURCES, channel_of, isolated, text

# What no-code training prints as `name=value;`, and so what SageMaker can show without being told.
METRICS = (
    *("validation_accuracy", "validation_balanced_accuracy", "validation_f1"),
    *("validation_roc_auc", "validation_log_loss"),
    *("validation_rmse", "validation_mae", "validation_r2"),
    *("train_nearest_distance", "train_nearest_distance_median"),
    *("train_clusters", "train_silhouette", "train_outliers", "train_explained_variance"),
)
_NUMBER = "([0-9.eE+-]+)"


@dataclass(frozen=True)
class Place:
    """Where the job runs and writes: every name resolved."""

    region: str
    account: str
    role: str
    image: str
    bucket: str
    bucket_exists: bool
    home: str  # s3:// prefix of everything that is ours


def request(settings: Settings, job: Train, place: Place, name: str) -> dict[str, Any]:
    """Return CreateTrainingJob."""
    home = f"{place.home}/{name}"
    channels = {channel: where if where.startswith("s3://") else f"{home}/input/{channel}/"
                for channel, where in job.channels.items()}  # fmt: skip
    given = dict(job.hyperparameters)
    if job.program:
        channels[CODE] = f"{home}/input/{CODE}/"
        given["sagemaker_program"] = job.program
        given["sagemaker_submit_directory"] = f"/opt/ml/input/data/{CODE}/{SOURCES}"
    metrics = job.metrics or ({} if job.program else {one: f"{one}={_NUMBER};" for one in METRICS})
    document: dict[str, Any] = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": place.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": n, "Regex": r} for n, r in sorted(metrics.items())],
        },
        "HyperParameters": {key: text(value) for key, value in sorted(given.items())},
        "RoleArn": place.role,
        "InputDataConfig": [channel_of(job, *one) for one in sorted(channels.items())],
        "OutputDataConfig": {"S3OutputPath": job.output or f"{place.home}/"},
        "ResourceConfig": {
            "InstanceType": job.type,
            "InstanceCount": job.count,
            "VolumeSizeInGB": job.volume_gb,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": job.max_seconds},
        "EnableNetworkIsolation": isolated(settings, job),
        "EnableInterContainerTrafficEncryption": job.encrypt_traffic,
        "EnableManagedSpotTraining": job.spot,
        "Tags": supplies.tags(settings),
    }
    _add_optional(document, settings, job, f"{home}/checkpoints")
    return document


def _add_optional(
    document: dict[str, Any], settings: Settings, job: Train, checkpoints: str
) -> None:
    """Add what only some settings ask for."""
    if job.environment:
        document["Environment"] = dict(job.environment)
    if job.spot:
        wait = job.wait_seconds or job.max_seconds + 3600
        document["StoppingCondition"]["MaxWaitTimeInSeconds"] = wait
    if job.spot or job.checkpoints:
        document["CheckpointConfig"] = {"S3Uri": job.checkpoints or checkpoints}
    if settings.vpc is not None:
        document["VpcConfig"] = {"SecurityGroupIds": list(settings.vpc.security_groups),
                                 "Subnets": list(settings.vpc.subnets)}  # fmt: skip
    if settings.kms.output:
        document["OutputDataConfig"]["KmsKeyId"] = settings.kms.output
    if settings.kms.volume and family(job.type) not in NVME:
        document["ResourceConfig"]["VolumeKmsKeyId"] = settings.kms.volume
