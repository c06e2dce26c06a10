"""What a training job is given: its settings checked, its files and script uploaded.

The facts are in the contract, section 6.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from deployment import package, supplies
from deployment.combinations import GRAVITON, family
from deployment.errors import Refused, Usage
from deployment.payload import CONTENT_TYPES
from deployment.settings import Settings
from deployment.step import Call
from deployment.tables import Train

CODE = "code"  # the channel that brings the script
SOURCES = "sourcedir.tar.gz"

# Limits of CreateTrainingJob (contract 6.7 and 6.4).
_HYPERPARAMETERS, _KEY, _VALUE = 100, 256, 2500


def check(job: Train, settings: Settings) -> None:
    """Raise `Refused` with every reason why the job could not be made or would fail at once."""
    named = "estimator" in job.hyperparameters
    long = [key for key, value in job.hyperparameters.items()
            if len(key) > _KEY or len(text(value)) > _VALUE]  # fmt: skip
    rules = (
        (not job.program and not named,
         "nothing says what to train; set train.program and train.code, or name an estimator: "
         "--hyperparameter estimator=sklearn.ensemble.RandomForestClassifier"),
        (job.program and not job.code, "train.code must name the folder of train.program"),
        (job.code and not job.program, "train.program must name the script in train.code"),
        (job.code and job.program
         and not (settings.folder / job.code / job.program).is_file(),
         f"there is no {job.program} in {job.code}"),
        (not job.program and "train" not in job.channels,
         "training without code reads the channel train: --channel train=PATH or s3://..."),
        (job.program and CODE in job.channels, f"the channel {CODE} is the script's own"),
        (family(job.type) in GRAVITON or family(job.type) == "t2",
         f"training has no {job.type}: no Graviton and no t2; take ml.m5.large, or another with "
         "--train-instance"),
        (len(job.hyperparameters) > _HYPERPARAMETERS,
         f"a job has {_HYPERPARAMETERS} hyperparameters at most"),
        (long, f"{', '.join(long)}: a name has {_KEY} and a value {_VALUE} characters at most"),
        (job.wait_seconds is not None and not job.spot,
         "train.wait_seconds is for spot instances; set train.spot"),
        (job.wait_seconds is not None and job.wait_seconds < job.max_seconds,
         "train.wait_seconds includes the run, so it is train.max_seconds or more"),
    )  # fmt: skip
    if faults := [str(reason) for applies, reason in rules if applies]:
        raise Refused("\n".join(f"train: {reason}" for reason in faults))


def uploads(
    settings: Settings, job: Train, home: str, workspace: Path
) -> Iterator[tuple[str, Path]]:
    """Yield the s3:// URI of each local file that the job needs, with the file."""
    for channel, where in job.channels.items():
        if where.startswith("s3://"):
            continue
        path = settings.folder / where
        if path.is_file():
            yield f"{home}/{channel}/{path.name}", path
        elif found := sorted(one for one in path.rglob("*") if one.is_file()):
            for one in found:
                yield f"{home}/{channel}/{one.relative_to(path).as_posix()}", one
        else:
            what = "nothing in" if path.is_dir() else "no"
            raise Usage(f"channel {channel}: there is {what} {path}", "give data or an s3:// URI")
    if job.program and job.code:
        target = workspace / SOURCES
        package.write(target, dict(package.walk(settings.folder / job.code)), {})
        yield f"{home}/{CODE}/{SOURCES}", target


def puts(settings: Settings, account: str, files: Mapping[str, Path]) -> Iterator[Call]:
    """Upload each file; what a refused job leaves is removed again."""
    for uri, path in files.items():
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        named = {"Bucket": bucket, "Key": key, **supplies.guarded(settings, account)}
        undo = Call("s3", "delete_object", named, f"the upload {uri}")
        size = f"{path.stat().st_size:,} bytes"
        sealed = supplies.sealed(settings)
        yield Call("s3", "put_object", named | sealed, f"{path.name}, {size}", undo, file=path)


def text(value: Any) -> str:
    """Spell a hyperparameter: text as it is, anything else as JSON, as the container decodes it."""
    return value if isinstance(value, str) else json.dumps(value)


def isolated(settings: Settings, job: Train) -> bool:
    """On where nothing needs the network: a script's requirements.txt without wheels does."""
    if settings.network_isolation is not None:
        return settings.network_isolation
    if job.code is None:
        return True
    folder = settings.folder / job.code
    return not (folder / "requirements.txt").is_file() or (folder / "wheels").is_dir()


def channel_of(job: Train, name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    channel: dict[str, Any] = {"ChannelName": name, "DataSource": {"S3DataSource": source}}
    kind = job.content_types.get(name) or CONTENT_TYPES.get(PurePosixPath(uri).suffix.lower())
    return channel | ({"ContentType": kind} if kind else {})
