"""What an endpoint is made from: the bucket, its archives, and the models. Pure, like `plan`."""

from __future__ import annotations

from collections.abc import Iterator

from deployment import documents
from deployment.documents import Document, digest_name
from deployment.settings import Settings
from deployment.state import OWNER_TAG, State, Target
from deployment.step import Call


def tags(settings: Settings) -> list[Document]:
    """Return the tags of everything we make, the user's and ours, in a fixed order."""
    merged = {**settings.tags, OWNER_TAG: settings.name}
    return [{"Key": key, "Value": merged[key]} for key in sorted(merged)]


def models(target: Target) -> tuple[tuple[str, ...], list[Call]]:
    """Return the names of the models and the calls that make them, production first."""
    settings = target.settings
    wanted = [(target.image, target.source, settings.choose)]
    if settings.shadow is not None and target.shadow_source is not None:
        wanted.append((target.shadow_image, target.shadow_source, settings.shadow.choose))
    variants = zip(target.others, settings.variants.values(), strict=True)
    wanted += [(image, source, one.choose) for (image, source), one in variants]
    names: list[str] = []
    calls = []
    for image, source, choose in wanted:
        document = documents.model(target, image, source, choose)
        name = digest_name(settings.name, {**document, "identity": source.identity})
        names.append(name)
        if name in names[:-1]:
            continue  # variants of one model
        calls.append(
            Call(
                "sagemaker",
                "create_model",
                {"ModelName": name, **document, "Tags": tags(settings)},
                f"the model {name}",
                Call("sagemaker", "delete_model", {"ModelName": name}, f"the model {name}"),
            )
        )
    return tuple(names), calls


def model_call(target: Target) -> tuple[str, Call]:
    """Return the production model's name and the call that makes it: batch transform needs both."""
    names, calls = models(target)
    return names[0], calls[0]


def uploads(target: Target, state: State) -> Iterator[Call]:
    """Return the calls that put the archives into the bucket, which is made if it is missing."""
    settings = target.settings
    sources = {source.uri: source for source in target.sources}
    packed = [source for source in sources.values() if source.package is not None]
    ours = settings.models is not None and settings.models.prefix is None
    if (packed or ours) and not state.bucket_exists:
        yield make_bucket(target.bucket, target.region)
    for source in packed:
        if source.uri in state.uploaded or source.package is None:
            continue
        key = source.uri.removeprefix(f"s3://{target.bucket}/")
        named = {"Bucket": target.bucket, "Key": key, **guarded(settings, target.account)}
        size = f"{source.package.size_bytes:,} bytes"
        undo = Call("s3", "delete_object", named, f"the archive {source.uri}")
        yield Call("s3", "put_object", named | sealed(settings), f"the archive, {size}", undo,
                   file=source.package.path)  # fmt: skip


def make_bucket(bucket: str, region: str) -> Call:
    """Return the call that makes a bucket."""
    where: Document = {"Bucket": bucket}
    if region != "us-east-1":  # the one region that must not be named here
        where["CreateBucketConfiguration"] = {"LocationConstraint": region}
    undo = Call("s3", "delete_bucket", {"Bucket": bucket}, f"bucket {bucket}")
    return Call("s3", "create_bucket", where, f"the bucket {bucket}", undo)


def guarded(settings: Settings, account: str) -> Document:
    """Return the argument that refuses a bucket of another account.

    Our default name can be guessed, so another account may have taken it. A bucket that the
    settings name may be another account's on purpose.
    """
    return {"ExpectedBucketOwner": account} if account and settings.bucket is None else {}


def sealed(settings: Settings) -> Document:
    """Return the arguments that encrypt an upload with the settings' own key."""
    if not settings.kms.bucket:
        return {}
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.kms.bucket}
