"""Batch transform: a job whose settings fit each other, watched, and its lines counted.

The facts are in the contract, sections 5.3 and 5.4. A content type decides how objects are cut and
put together again (`_LINES`); what does not fit is refused before the job exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from deployment import batch_inputs, logs, supplies, survey, watch
from deployment.aws import Cloud
from deployment.batch_inputs import Job as Job
from deployment.combinations import NVME, TRANSFORM, family
from deployment.documents import LONGEST_CALL, name_stem
from deployment.errors import Failed, Refused
from deployment.payload import CONTENT_TYPES
from deployment.session import Words, carried_out, connect
from deployment.state import Target
from deployment.step import Call, Plan

_JOIN = ("text/csv", "application/json", "application/jsonlines")
# Content types of one record a line: cut at lines, and put together with a newline after each.
_LINES = ("text/csv", "application/jsonlines", "text/plain")
_PLATFORM_PAYLOAD_MB = 100
_LOGS = "/aws/sagemaker/TransformJobs"


def transform(words: Words, job: Job) -> None:
    """Run a batch job over `job.source`, wait for it, and compare the numbers of lines."""
    settings = words.settings()
    if settings.models is not None:
        raise Refused("a batch job has one model, and endpoint.toml has [models]", "name a --model")
    with TemporaryDirectory() as workspace:
        cloud = connect(settings)
        target, state = survey.look(cloud, settings, Path(workspace))
        job = batch_inputs.typed(cloud, job)
        document, source = request(target, job, datetime.now(UTC))
        batch_inputs.warn_of_role(cloud, target, source, words.talk)
        steps = [*supplies.uploads(target, state)]
        steps += batch_inputs.uploads(job, source, settings, target.account)
        model, make = supplies.model_call(target)
        steps += [] if model in state.models else [make]
        asked = document | {"ModelName": model, "Tags": supplies.tags(settings)}
        why = f"the job {_name(document)}"
        steps.append(Call("sagemaker", "create_transform_job", asked, why))
        planned = Plan(settings.name, tuple(steps))
        if not carried_out(words, cloud, planned):
            return
    _finish(words, cloud, document, source)


def _name(document: dict[str, Any]) -> str:
    return str(document["TransformJobName"])


def request(target: Target, job: Job, now: datetime) -> tuple[dict[str, Any], str]:
    """Return CreateTransformJob without its model, and the S3 URI of the input."""
    settings = target.settings
    name = job.name or f"{name_stem(settings.name)}-{now:%m%d-%H%M%S}"
    home = f"s3://{target.bucket}/{settings.home}/transform/{name}"
    source = _place(job, home)
    content_type = job.content_type or CONTENT_TYPES.get(PurePosixPath(source).suffix.lower(), "")
    accept = job.accept or (content_type if content_type in _JOIN else "text/csv")
    instance = job.instance_type or settings.instance_type or "ml.m5.large"
    check(job, target, content_type, accept, instance)
    split = "Line" if (lines := content_type in _LINES) else "None"
    document: dict[str, Any] = {
        "TransformJobName": name,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": content_type,
            "SplitType": split,
        },
        "TransformOutput": {
            "S3OutputPath": job.output or f"{home}/output",
            "Accept": accept,
            "AssembleWith": split,
        },
        "TransformResources": {"InstanceType": instance, "InstanceCount": job.count},
        # The container stops a call itself; SageMaker's own limit would be ten minutes.
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": LONGEST_CALL,
                              "InvocationsMaxRetries": 3},
    }  # fmt: skip
    if settings.kms.output:
        document["TransformOutput"]["KmsKeyId"] = settings.kms.output
    if settings.kms.volume:
        document["TransformResources"]["VolumeKmsKeyId"] = settings.kms.volume
    optional = {
        "BatchStrategy": "MultiRecord" if lines else None,
        "DataProcessing": filters(job) or None,
        "MaxPayloadInMB": job.payload_mb,
        "MaxConcurrentTransforms": job.concurrent,
    }
    return document | {key: value for key, value in optional.items() if value is not None}, source


def _place(job: Job, home: str) -> str:
    """Return where the input lies in S3, or will once it is uploaded."""
    if job.source.startswith("s3://"):
        return job.source
    path = Path(job.source)
    return f"{home}/input/" if path.is_dir() else f"{home}/input/{path.name}"


def filters(job: Job) -> dict[str, Any]:
    """Return DataProcessing: which part of a record is sent, and which of the joined one stays."""
    asked = {
        "InputFilter": job.input_filter,
        "OutputFilter": job.output_filter,
        "JoinSource": "Input" if job.join else "",
    }
    return {key: value for key, value in asked.items() if value}


def check(job: Job, target: Target, content_type: str, accept: str, instance: str) -> None:
    """Raise `Refused` with every reason why the job could not run or would mislead."""
    payload = (job.payload_mb or 6) * (job.concurrent or 1)
    rules = (
        (not content_type, "the type of the input is not known; give --content-type"),
        (target.source.kind not in ("archive", "package"),
         "batch transform takes models as .tar.gz only"),
        (
            family(instance) not in TRANSFORM,
            f"batch transform has no {instance}; no t2 and no Graviton; take ml.m5.large, or "
            "another with --instance-type",
        ),
        (
            job.join and (content_type not in _JOIN or accept not in _JOIN),
            f"joining needs {', '.join(_JOIN)} on both sides, not {content_type} and {accept}",
        ),
        (job.join and content_type != accept,
         f"joining puts input and output on one line, so {content_type} does not go with {accept}"),
        (
            content_type in _LINES and accept not in _LINES,
            f"cut at lines, the output must be lines too: {accept} answers of several requests "
            "do not make one document; take --accept text/csv or application/jsonlines",
        ),
        (bool(filters(job)) and content_type not in _JOIN,
         f"filters read {', '.join(_JOIN)} only, not {content_type}"),
        (
            bool(target.settings.kms.volume) and family(instance) in NVME,
            f"{instance} has local disks that their hardware encrypts, and AWS refuses a volume "
            "key for it; take another --transform-instance, or --set kms.volume=''",
        ),
        (
            payload > _PLATFORM_PAYLOAD_MB,
            f"payload times concurrency is {payload} MB, and {_PLATFORM_PAYLOAD_MB} are allowed",
        ),
    )  # fmt: skip
    if faults := [reason for applies, reason in rules if applies]:
        raise Refused("\n".join(f"transform: {reason}" for reason in faults))


def _finish(words: Words, cloud: Cloud, document: dict[str, Any], source: str) -> None:
    """Wait for the job, count lines, and print where the output lies."""
    name, output = _name(document), document["TransformOutput"]["S3OutputPath"]
    try:
        ended = watch.job(cloud, "transform", name, words.talk, words.pace)
    except KeyboardInterrupt:
        raise Failed(f"interrupted; the job {name} goes on by itself and ends by itself. "
                     f"Its output will be below {output}") from None  # fmt: skip
    if ended["TransformJobStatus"] != "Completed":
        reason = ended.get("FailureReason") or "AWS gives no reason"
        told = logs.paragraph(logs.of_job(cloud, _LOGS, name))
        raise Failed(
            f"the job {name} is {ended['TransformJobStatus']}: {reason}{told}",
            f"its log is in {_LOGS}",
        )
    counted = list(lines(cloud, source, output)) if _cut(document) else []
    for key, before, after in counted:
        if before != after:
            raise Failed(
                f"{key} has {before} lines and its output {after}: answers do not line up with "
                f"records (was there a header line?); see {output}"
            )
    total = sum(before for _, before, _ in counted)
    words.talk.say(f"{len(counted)} objects, {total} lines in, {total} out" if counted else "done")
    words.talk.result({"job": name, "output": output, "lines": total}, output)


def _cut(document: dict[str, Any]) -> bool:
    return bool(document["TransformInput"]["SplitType"] == "Line")


def lines(cloud: Cloud, source: str, output: str) -> Iterator[tuple[str, int, int]]:
    """Yield each input key with its number of lines and that of its output; -1 if there is none."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    out_bucket, _, out_prefix = output.removeprefix("s3://").partition("/")
    base = prefix[: prefix.rfind("/") + 1]
    for found in cloud.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix):
        key = found["Key"]
        if key.endswith("/"):
            continue  # what the console makes for a folder
        tail = f"{out_prefix.rstrip('/')}/{key.removeprefix(base)}.out".lstrip("/")
        head = cloud.find("s3", "head_object", Bucket=out_bucket, Key=tail)
        after = _count(cloud, out_bucket, tail) if head is not None else -1
        yield key, _count(cloud, bucket, key), after


def _count(cloud: Cloud, bucket: str, key: str) -> int:
    return sum(1 for line in cloud.lines(bucket, key) if line.strip())
