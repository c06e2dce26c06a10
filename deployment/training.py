"""Training: the job that makes a model, watched with its log, and its hand-over to an endpoint.

The facts are in the contract, section 6. Local channels and the script's folder are uploaded below
the job's own folder in the bucket. The script travels as a channel of its own, so that the
container needs no network to fetch it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deployment import apply_plan, commands, model_packages, resolve, supplies, survey, watch
from deployment.aws import Answer, Cloud
from deployment.errors import Failed, Refused
from deployment.logs import Followed
from deployment.session import Words, carried_out, connect
from deployment.settings import Settings
from deployment.settings_file import keep_model
from deployment.step import Call, Plan
from deployment.tables import Train
from deployment.training_inputs import check, puts, uploads
from deployment.training_request import Place, request

GROUP = "/aws/sagemaker/TrainingJobs"


@dataclass(frozen=True)
class Asked:
    """What `train` was told beside the settings file."""

    channels: Mapping[str, str] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    follow: str = ""  # a job that was made before, to be watched
    stop: str = ""  # a job to be stopped
    then_deploy: bool = False
    save: bool = False  # write the model into the settings file afterwards


def train(words: Words, asked: Asked) -> None:
    """Make the job, or take up one that runs; watch it; hand its model over if told to."""
    settings, talk = words.settings(), words.talk
    name = asked.follow or asked.stop
    if not name:
        name = _made(words, settings, asked)
        if not name:
            return
    cloud = connect(settings)
    if asked.stop:
        cloud.call("sagemaker", "stop_training_job", TrainingJobName=name)
        talk.say(f"stop_training_job: {name} has two minutes to save its model")
    ended = _watched(cloud, words, name)
    model = str(ended["ModelArtifacts"]["S3ModelArtifacts"])
    package = _registered(cloud, words, settings, ended)
    if asked.then_deploy:
        # The archive holds its code already, so the settings' folder must not be packed again.
        overrides = {**words.overrides, "model": model, "code": None}
        commands.deploy(dataclasses.replace(words, overrides=overrides))
        _keep(words, asked, model)
        return
    talk.say(f"deploy it: python deploy.py --model {model}")
    value = {"job": name, "model": model}
    talk.result(value | ({"model_package": package} if package else {}), model)


def _registered(cloud: Cloud, words: Words, settings: Settings, ended: Answer) -> str:
    """Register the job's model where [train] register asks for it; return the version's ARN."""
    train, talk = settings.train, words.talk
    if train is None or train.register_ is None:
        return ""
    if known := model_packages.made_of(cloud, train.register_, ended["TrainingJobName"]):
        return known  # a job that was watched before
    trained = ended["AlgorithmSpecification"]["TrainingImage"]
    image = resolve.by_digest(cloud, settings.image or trained)
    calls = tuple(model_packages.register(settings, cloud, ended, image))
    run = apply_plan.apply(cloud, Plan(settings.name, calls), talk, words.pace)
    arn = str(run.answers[-1]["ModelPackageArn"])
    if not train.approved:
        talk.say(model_packages.approval(arn))
    talk.say(f'registered {arn}; once approved, model_package = "{train.register_}" deploys it')
    return arn


def _keep(words: Words, asked: Asked, model: str) -> None:
    """Write the model into the file, or say what to write: the file has the old one."""
    path = words.path
    if path is not None and asked.save and keep_model(path, model):
        words.talk.say(f'{path} has it now: model = "{model}"')
        return
    words.talk.warn(
        f'write  model = "{model}"  into {path or "endpoint.toml"} and take out `code`, or the '
        "next `python deploy.py` puts the model of the file back (--save does it)"
    )


def _made(words: Words, settings: Settings, asked: Asked) -> str:
    """Make the job and return its name; nothing if that was only to be printed."""
    now = datetime.now(UTC)
    name = asked.name or f"{settings.name[:46].rstrip('-')}-{now:%Y%m%d-%H%M%S}"
    job = _merged(settings, asked)
    check(job, settings)
    with TemporaryDirectory() as workspace:
        cloud = connect(settings)
        # Before anything is uploaded: what we would take back again is that job's own input.
        named = {"TrainingJobName": name}
        if asked.name and cloud.find("sagemaker", "describe_training_job", **named) is not None:
            raise Refused(
                f"there is a job {name} already, and its name stays taken",
                f"give another --job-name, or none; watch it with --follow {name}",
            )
        place = _place(cloud, settings, job)
        files = dict(uploads(settings, job, f"{place.home}/{name}/input", Path(workspace)))
        document = request(settings, job, place, name)
        make = Call("sagemaker", "create_training_job", document, f"the job {name}")
        bucket = [] if place.bucket_exists else [supplies.make_bucket(place.bucket, place.region)]
        steps = (*bucket, *puts(settings, place.account, files), make)
        planned = Plan(settings.name, steps)
        if job.spot and not job.checkpoints and not words.dry_run:
            words.talk.say(f"checkpoints of /opt/ml/checkpoints are in {place.home}/{name}")
        return name if carried_out(words, cloud, planned) else ""


def _merged(settings: Settings, asked: Asked) -> Train:
    """Lay the command line over the [train] table."""
    job = settings.train or Train()
    here = {
        name: where if where.startswith("s3://") else str(Path(where).absolute())
        for name, where in asked.channels.items()
    }
    return job.model_copy(
        update={
            "channels": {**job.channels, **here},
            "hyperparameters": {**job.hyperparameters, **asked.hyperparameters},
        }
    )


def _place(cloud: Cloud, settings: Settings, job: Train) -> Place:
    image = job.image or settings.image
    for key, value in (("image", image), ("role", settings.role)):
        if not value:
            raise Refused(f"no {key} is given", f"set {key} in endpoint.toml, or --{key}")
    bucket = settings.bucket_in(cloud.region, cloud.account)
    return Place(
        region=cloud.region,
        account=cloud.account,
        role=resolve.role_arn(cloud, settings.role),
        image=resolve.by_digest(cloud, image),
        bucket=bucket,
        bucket_exists=survey.bucket_exists(cloud, settings, bucket),
        home=f"s3://{bucket}/{settings.home}/train",
    )


def _watched(cloud: Cloud, words: Words, name: str) -> Answer:
    """Wait for the job, showing its log, and return how it is described once it has a model."""
    talk = words.talk
    follow = Followed(cloud, GROUP, f"{name}/")

    def show() -> None:
        for line in follow.lines():
            talk.say(f"  | {line}")

    try:
        ended = watch.job(cloud, "training", name, talk, words.pace, show)
    except KeyboardInterrupt:
        raise Failed(
            f"interrupted; the job {name} goes on by itself, and bills until it ends",
            f"watch it again with `python deploy.py train --follow {name}`, or end it with "
            f"`python deploy.py train --stop {name}`",
        ) from None
    for metric in ended.get("FinalMetricDataList", ()):
        talk.say(f"{metric['MetricName']} = {metric['Value']:g}")
    model = str(ended.get("ModelArtifacts", {}).get("S3ModelArtifacts", ""))
    status = ended["TrainingJobStatus"]
    if status == "Failed" or not model:
        reason = ended.get("FailureReason") or ended.get("SecondaryStatus") or "AWS gives no reason"
        reason = reason.strip()  # a script's own file ends with a newline
        raise Failed(f"the job {name} is {status}: {reason}", f"its log is in {GROUP}")
    if status == "Stopped":
        talk.warn(
            f"{name} was stopped ({ended.get('SecondaryStatus', '')}); its model may be early"
        )
    return ended
