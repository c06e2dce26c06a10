"""What an image is, as a registry tells it, and whether SageMaker would take it.

Pure but for `in_ecr` and `newest_in_ecr`, which ask ECR. The facts are in the contract, 7.1.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployment.answers import absent
from deployment.aws import Cloud
from deployment.errors import ApiError, Refused
from deployment.image_uri import ecr_parts

DOCKER_V2 = "application/vnd.docker.distribution.manifest.v2+json"
# All that a registry may hold, so that it says what is there instead of translating it.
MEDIA_TYPES = (
    DOCKER_V2,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
LABEL = "skserve.scikit-learn"  # the version of scikit-learn in the image
REBUILD = (
    "build it again with ./build_and_push.sh; by hand: docker buildx build --platform "
    "linux/{architecture} --provenance=false --sbom=false --output "
    "type=registry,oci-mediatypes=false; an existing one: skopeo copy --format v2s2"
)


@dataclass(frozen=True)
class Image:
    """An image in a registry. `architecture` is empty where it could not be read."""

    digest: str
    media_type: str
    architecture: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def parse(manifest: bytes, media_type: str, config: Mapping[str, Any] | None) -> Image:
    """Make an `Image` of a manifest's bytes and, where it has one, its config object."""
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    media_type = media_type or json.loads(manifest).get("mediaType", "")
    config = config or {}
    labels = (config.get("config") or {}).get("Labels") or {}
    return Image(digest, media_type, config.get("architecture", ""), labels)


def config_digest(manifest: bytes) -> str | None:
    """Return the digest of the image's config object; an index has none."""
    config = json.loads(manifest).get("config") or {}
    found = config.get("digest")
    return str(found) if found else None


def faults(image: Image, architecture: str) -> Iterator[tuple[str, str]]:
    """Yield a sentence and the way out for each reason that SageMaker has to refuse the image."""
    way_out = REBUILD.format(architecture=architecture)
    if image.media_type != DOCKER_V2:
        yield (
            f"its manifest is {image.media_type or 'of no known type'}, and SageMaker takes "
            f"{DOCKER_V2} only (CreateModel: 'Unsupported manifest media type')",
            way_out,
        )
    if image.architecture and image.architecture != architecture:
        yield (
            f"it is built for linux/{image.architecture}, and linux/{architecture} is needed "
            "(the container would end with 'exec format error')",
            f"build with --platform linux/{architecture}, or choose instances of the other kind",
        )


def in_ecr(cloud: Cloud, uri: str) -> Image:
    """Look the image up in ECR. Raises `Refused` where it does not exist."""
    parts = ecr_parts(uri)
    if parts is None:
        raise Refused(f"{uri} is not an image in ECR", "push it with ./build_and_push.sh")
    where = {"registryId": parts["account"], "repositoryName": parts["repository"]}
    wanted = (
        {"imageDigest": parts["digest"]}
        if parts["digest"]
        else {"imageTag": parts["tag"] or "latest"}
    )
    answer = cloud.find(
        "ecr", "batch_get_image", **where, imageIds=[wanted], acceptedMediaTypes=list(MEDIA_TYPES)
    )
    found = (answer or {}).get("images") or []
    if not found:
        raise Refused(f"the image {uri} does not exist", "push it with ./build_and_push.sh")
    manifest = str(found[0]["imageManifest"]).encode()
    image = parse(
        manifest, found[0].get("imageManifestMediaType", ""), _config(cloud, where, manifest)
    )
    # ECR's own digest is the one that counts, should it have normalised the manifest's text.
    digest = found[0].get("imageId", {}).get("imageDigest") or image.digest
    return Image(digest, image.media_type, image.architecture, image.labels)


def newest_in_ecr(cloud: Cloud, uri: str) -> str:
    """Return the digest of what was pushed last to a repository. Raises `Refused` without any."""
    parts = ecr_parts(uri)
    assert parts is not None
    where = {"registryId": parts["account"], "repositoryName": parts["repository"]}
    try:
        listed = list(cloud.pages("ecr", "describe_images", "imageDetails", **where))
    except ApiError as error:
        if not absent(error):
            raise
        listed = []
    # What lost its tag to another image is not what its reader means.
    tagged = sorted(
        (one for one in listed if one.get("imageTags")), key=lambda one: one["imagePushedAt"]
    )
    if not tagged:
        raise Refused(f"nothing is pushed to {uri} yet", "push it with ./build_and_push.sh")
    return str(tagged[-1]["imageDigest"])


def _config(cloud: Cloud, where: Mapping[str, str], manifest: bytes) -> Mapping[str, Any] | None:
    digest = config_digest(manifest)
    if digest is None:
        return None
    link = cloud.find("ecr", "get_download_url_for_layer", **where, layerDigest=digest)
    if link is None:
        return None
    with urllib.request.urlopen(link["downloadUrl"], timeout=30) as response:
        config: Mapping[str, Any] = json.load(response)
    return config
