"""The settings' names resolved into a `Target`: models packed, images pinned, ARNs found.

Only reads. What is missing and needed is a `Refused`; with no cloud (no credentials) placeholders
stand for what only AWS knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from deployment import model_packages, package
from deployment.aws import Cloud
from deployment.combinations import isolated
from deployment.errors import Refused, Unauthorised
from deployment.image import in_ecr, newest_in_ecr
from deployment.image_uri import ecr_parts, in_account, of_account
from deployment.settings import Settings
from deployment.state import Source, Target

_NO_ACCOUNT = "000000000000"  # the account of a plan made without credentials


def target(cloud: Cloud | None, settings: Settings, workspace: Path) -> Target:
    """Resolve names and pack the models, into files of `workspace`."""
    _check(settings)
    account = cloud.account if cloud else _NO_ACCOUNT
    region = cloud.region if cloud else settings.region or "REGION"
    bucket = settings.bucket_in(region, account)
    image = settings.image
    if settings.models is not None:
        where = models_prefix(settings, bucket)
        source = Source(where, "many", where)
    elif settings.model_package:
        source, image = _package(cloud, settings.model_package)
    else:
        source = _source(cloud, settings, bucket, settings.model, settings.code, settings.choose,
                         workspace / "model.tar.gz")  # fmt: skip
    shadow, shadow_image = None, ""
    if settings.shadow is not None:
        shadow = _source(cloud, settings, bucket, settings.shadow.model, settings.shadow.code,
                         settings.shadow.choose, workspace / "shadow.tar.gz")  # fmt: skip
        shadow_image = by_digest(cloud, settings.shadow.image or settings.image, region)
    others = tuple(
        (by_digest(cloud, one.image or settings.image, region),
         _source(cloud, settings, bucket, one.model, one.code, one.choose,
                 workspace / f"variant-{name}.tar.gz"))
        for name, one in settings.variants.items()
    )  # fmt: skip
    needs = _network([source, shadow, *(one for _, one in others)])
    return Target(
        settings=settings,
        account=account if cloud else "",
        region=region,
        role=role_arn(cloud, settings.role),
        bucket=bucket,
        image=by_digest(cloud, image, region),
        source=source,
        isolated=isolated(settings, needs),
        shadow_image=shadow_image,
        shadow_source=shadow,
        others=others,
    )


def _network(sources: Iterable[Source | None]) -> str:
    """Say what of the packed models needs a network, or nothing."""
    packed = (source.package for source in sources if source and source.package)
    return "; ".join(package.needs_network for package in packed if package.needs_network)


def _check(settings: Settings) -> None:
    """Refuse settings of which no target can be made."""
    _needed(settings)
    _verifiable(settings)


def _needed(settings: Settings) -> None:
    needed = ["role"] if settings.model_package else ["image", "role"]
    if settings.models is None and not settings.model_package:
        needed.insert(0, "model")
    for key in needed:
        if not getattr(settings, key):
            hint = {"role": "make one: python deploy.py role --create"}.get(key, "")
            raise Refused(f"no {key} is given", hint or f"set {key} in endpoint.toml, or --{key}")


def _package(cloud: Cloud | None, named: str) -> tuple[Source, str]:
    """Return a version of a registered model as a source, and its image."""
    if cloud is None:
        return Source(named, "package", named), ""
    found = model_packages.describe(cloud, named)
    arn = str(found["ModelPackageArn"])
    return Source(arn, "package", arn), model_packages.image(found)


def _verifiable(settings: Settings) -> None:
    """Refuse `verify` for models that are not packed here, whose digest is not known."""
    models = [settings.model, *(one.model for one in settings.variants.values())]
    models += [settings.shadow.model] if settings.shadow else []
    unknown = [model for model in models if model.startswith("s3://")]
    unknown += [settings.model_package] if settings.model_package else []
    unknown += ["many models"] if settings.models is not None else []
    if settings.verify and unknown:
        raise Refused(
            f"verify is on, and the digest of {unknown[0]} is not known here",
            "give the archive itself, or say it as SKSERVE_MODEL_SHA256 in [environment]",
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


def by_digest(cloud: Cloud | None, image: str, region: str = "") -> str:
    """Pin an image in ECR to its digest, so that a tag pushed again changes nothing that serves.

    A repository alone, without a registry, is this account's, and means its newest image.
    """
    if cloud is None:
        return in_account(image, _NO_ACCOUNT, region)
    uri = in_account(image, cloud.account, cloud.region, cloud.dns_suffix)
    parts = ecr_parts(uri)
    if parts is None and ".dkr.ecr." in uri:
        raise Refused(
            f"{image!r} names no image",
            "a repository of this account in lower case, or the URI that ./build_and_push.sh "
            "printed; then nothing, :TAG or @sha256: with 64 hexadecimal digits",
        )
    if parts is None or parts["digest"]:
        return uri
    host = uri.split("/", 1)[0]
    newest = of_account(image) and not parts["tag"]
    digest = newest_in_ecr(cloud, uri) if newest else in_ecr(cloud, uri).digest
    return f"{host}/{parts['repository']}@{digest}"


def role_arn(cloud: Cloud | None, role: str) -> str:
    """Return the ARN of a role given by name or ARN."""
    if role.startswith("arn:"):
        return role
    if cloud is None:
        return f"arn:aws:iam::{_NO_ACCOUNT}:role/{role}"
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
