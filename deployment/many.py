"""The models of an endpoint of many: archives below one prefix, which SageMaker looks into.

Adding one is an upload and removing one a deletion: the endpoint itself is not touched, and loads a
model at its first call. A loaded one is kept, so an archive is never replaced under its name.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deployment import apply_plan, console, package, resolve, supplies, survey
from deployment.aws import Cloud
from deployment.errors import Refused, Usage
from deployment.session import Words, carried_out, confirm, connect
from deployment.settings import Settings
from deployment.step import Call, Plan

_DIGEST = "skserve-digest"  # of the tar stream, among the object's metadata
_ENDING = ".tar.gz"


def add(words: Words, source: str, name: str, code: str | None, choose: str) -> None:
    """Pack a model and put it below the prefix, unless it is there already."""
    settings, talk = words.settings(), words.talk
    cloud = connect(settings)
    name = _named(name or Path(source).stem.removesuffix(".tar"))
    with TemporaryDirectory() as workspace:
        packed = package.pack(
            Path(source), Path(workspace) / "model.tar.gz", Path(code) if code else None, choose
        )
        where = _where(cloud, settings, name)
        there = cloud.find("s3", "head_object", **where)
        same = there is not None and there["Metadata"].get(_DIGEST) == packed.digest
        if there is not None and not same and not words.force:
            raise Refused(
                f"there is another model {name} already, and instances that have loaded it keep it",
                "give this one a name of its own with --as NAME; --force replaces it for those "
                "that have not loaded it yet",
            )
        bucket = () if same else _bucket(cloud, settings, where["Bucket"])
        steps = () if same else (*bucket, _upload(settings, where, packed))
        planned = Plan(settings.name, steps)
        if not carried_out(words, cloud, planned):
            return
    told = "is there already" if same else f"added, {packed.size_bytes:,} bytes"
    talk.result({"model": name, "changed": not same}, f"{name}: {told}")


def remove(words: Words, name: str) -> None:
    """Delete a model's archive."""
    settings, talk = words.settings(), words.talk
    cloud = connect(settings)
    name = _named(name)
    where = _where(cloud, settings, name)
    there = cloud.find("s3", "head_object", **where)
    uri = f"s3://{where['Bucket']}/{where['Key']}"
    steps = (Call("s3", "delete_object", where, f"the archive {uri}"),) if there else ()
    planned = Plan(settings.name, steps)
    if words.dry_run:
        talk.result(console.as_data(planned), console.told(planned))
        return
    if there:
        confirm(words, planned)
        apply_plan.apply(cloud, planned, talk, words.pace)
        talk.say("instances that have loaded it answer for it until they need the memory")
    talk.result({"model": name, "changed": bool(there)},
                f"{name}: {'removed' if there else 'there is no such model'}")  # fmt: skip


def listed(words: Words) -> None:
    """Print the models below the prefix."""
    settings = words.settings()
    cloud = connect(settings)
    bucket, prefix = _prefix(cloud, settings)
    found = cloud.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix)
    rows = [
        {
            "model": one["Key"].removeprefix(prefix),
            "bytes": one["Size"],
            "added": f"{one['LastModified']:%Y-%m-%d %H:%M}",
        }
        for one in found
        if one["Key"].endswith(_ENDING)
    ]
    if not rows:
        words.talk.say(f"no models below s3://{bucket}/{prefix}")
    words.talk.table(rows, ("model", "bytes", "added"))


def _named(name: str) -> str:
    """Return the name as callers say it: the key below the prefix."""
    name = name.removesuffix(_ENDING) + _ENDING
    if name.startswith("/") or ".." in name.split("/") or len(name) > 1024:
        raise Usage(f"{name} is no name of a model", "letters, digits and slashes within")
    return name


def _prefix(cloud: Cloud, settings: Settings) -> tuple[str, str]:
    if settings.models is None:
        raise Usage(
            f"{settings.name} is an endpoint of one model", "for many, put [models] into the file"
        )
    uri = resolve.models_prefix(settings, settings.bucket_in(cloud.region, cloud.account))
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return bucket, prefix


def _where(cloud: Cloud, settings: Settings, name: str) -> dict[str, Any]:
    bucket, prefix = _prefix(cloud, settings)
    ours = settings.models is not None and settings.models.prefix is None
    owner = supplies.guarded(settings, cloud.account) if ours else {}
    return {"Bucket": bucket, "Key": prefix + name, **owner}


def _bucket(cloud: Cloud, settings: Settings, bucket: str) -> tuple[Call, ...]:
    """Make the bucket if this is the first thing in it."""
    exists = survey.bucket_exists(cloud, settings, bucket)
    return () if exists else (supplies.make_bucket(bucket, cloud.region),)


def _upload(settings: Settings, where: dict[str, Any], packed: package.Package) -> Call:
    arguments = {**where, "Metadata": {_DIGEST: packed.digest}, **supplies.sealed(settings)}
    told = f"the archive, {packed.size_bytes:,} bytes"
    return Call("s3", "put_object", arguments, told, file=packed.path)
