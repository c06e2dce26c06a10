"""What a batch job reads: a file, a folder or a prefix, with one content type for all of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deployment import grants, iam, supplies
from deployment.aws import Cloud
from deployment.console import Talk
from deployment.errors import DeployError, Refused, Usage
from deployment.payload import CONTENT_TYPES
from deployment.settings import Settings
from deployment.state import Target
from deployment.step import Call


@dataclass(frozen=True)
class Job:
    """What `transform` was asked for. Empty texts and None are for SageMaker's own defaults."""

    source: str
    output: str = ""
    content_type: str = ""
    accept: str = ""
    instance_type: str = ""
    count: int = 1
    join: bool = False
    payload_mb: int | None = None
    concurrent: int | None = None
    name: str = ""
    input_filter: str = ""
    output_filter: str = ""


def typed(cloud: Cloud, job: Job) -> Job:
    """Give the job the content type of its files' ending, and refuse a source without files."""
    if job.source.startswith("s3://"):
        names = list(_keys(cloud, job.source))
    else:
        names = [str(path) for path in files(Path(job.source))]
    if not names:
        raise Refused(f"transform: there is nothing below {job.source}", "give a file or a folder")
    endings = sorted({PurePosixPath(name).suffix.lower() or "(nothing)" for name in names})
    if job.content_type or len(endings) == 1:
        kind = job.content_type or CONTENT_TYPES.get(endings[0], "")
        return dataclasses.replace(job, content_type=kind)
    raise Refused(
        f"transform: the files below {job.source} end in {', '.join(endings)}, and a job has one "
        "content type",
        "give it with --content-type, or keep one kind below the prefix",
    )


def _keys(cloud: Cloud, uri: str) -> Iterator[str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for found in cloud.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix):
        if not found["Key"].endswith("/"):
            yield found["Key"]


def files(path: Path) -> list[Path]:
    """Return the file, or all visible files below the folder. Raises `Usage` without either."""
    if path.is_dir():
        below = sorted(one for one in path.rglob("*") if one.is_file())
        return [
            one
            for one in below
            if not any(part.startswith(".") for part in one.relative_to(path).parts)
        ]
    if not path.is_file():
        raise Usage(f"there is no file {path}", "give a file, a folder or an s3:// URI")
    return [path]


def warn_of_role(cloud: Cloud, target: Target, uri: str, talk: Talk) -> None:
    """Say so if the role may not read the input; where its policies are unreadable, say nothing."""
    try:
        role = iam.find(cloud, target.role.rsplit("/", 1)[-1])
    except DeployError:
        return
    read = f"arn:{cloud.partition}:s3:::{uri.removeprefix('s3://')}*"
    needed = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": read}]}
    if role is not None and (lacking := grants.missing(needed, role.documents)):
        talk.warn(
            f"the role {role.name} lacks {grants.told(lacking)}, unless another policy allows it; "
            "write the URI into [access] read, then: python deploy.py role --create"
        )


def uploads(job: Job, uri: str, settings: Settings, account: str) -> Iterator[Call]:
    """Yield the calls that put local input below `uri`; what a refused job leaves is removed."""
    if job.source == uri:
        return
    root = Path(job.source)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    for path in files(root):
        name = path.relative_to(root).as_posix() if root.is_dir() else ""
        named = {"Bucket": bucket, "Key": key + name, **supplies.guarded(settings, account)}
        undo = Call("s3", "delete_object", named, f"the input {path.name}")
        yield Call("s3", "put_object", named | supplies.sealed(settings), f"the input {path.name}",
                   undo, file=path)  # fmt: skip
