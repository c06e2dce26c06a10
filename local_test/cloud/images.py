"""ECR's images, which are the engine's own: what a push does, and what a model may name.

A push takes the image's manifest out of the engine and puts it into moto's ECR; the layers stay
where they are. So an image that was pushed runs at once, under the digest that ECR tells.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from moto.core.exceptions import ServiceException
from moto.ecr.models import Image, ecr_backends

from .engine import Engine, EngineError
from .errors import StartError, invalid
from .services import ACCOUNT, Services
from .store import Store

DOCKER_V2 = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_URI = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/"
    r"(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_BLOB_LIMIT = 4 << 20  # bytes; manifests and configs are smaller, layers are left unread


class PushError(Exception):
    """ECR does not take a push; the sentence is a registry's."""


def real_digests() -> None:
    """Let moto's ECR name an image by its manifest's digest, as ECR does."""

    def digest(self: Image) -> str:
        return _sha256(self.image_manifest.encode())

    Image.get_image_digest = digest  # type: ignore[method-assign]


class Images:
    """What ECR holds, and where the engine has it."""

    def __init__(self, engine: Engine | None, services: Services, store: Store) -> None:
        self._engine, self._services, self._store = engine, services, store

    def parts(self, uri: str) -> dict[str, str] | None:
        """Split a URI of this account's ECR, None for any other."""
        match = _URI.fullmatch(uri)
        if match is None or (match["account"], match["region"]) != (ACCOUNT, self._services.region):
            return None
        return {key: value or "" for key, value in match.groupdict().items()}

    def find(self, uri: str) -> Any:
        """Return moto's image of that URI, or None."""
        parts = self.parts(uri)
        if parts is None:
            return None
        repository = self._services.repository(parts["repository"])
        for image in repository.images if repository else ():
            if parts["digest"] == image.get_image_digest() or (
                not parts["digest"] and (parts["tag"] or "latest") in image.image_tags
            ):
                return image
        return None

    def check(self, container: Mapping[str, Any]) -> None:
        """Refuse a model's image as CreateModel does."""
        uri = container["Image"]
        if self.parts(uri) is None:
            raise invalid(
                f'Using non-ECR image "{uri}" without Vpc repository access mode is not supported.'
            )
        image = self.find(uri)
        if image is None:
            raise invalid(f"Requested image {uri} not found.")
        manifest = json.loads(image.image_manifest)
        kind = image.image_manifest_media_type or manifest.get("mediaType", "")
        if kind != DOCKER_V2:
            raise invalid(f"Unsupported manifest media type {kind} for image {uri}.")

    def resolved(self, uri: str) -> str:
        """Return the URI by digest, as DescribeEndpoint tells it."""
        image, parts = self.find(uri), self.parts(uri)
        if image is None or parts is None:
            return uri
        return f"{uri.split('/', 1)[0]}/{parts['repository']}@{image.get_image_digest()}"

    def on_engine(self, uri: str) -> str:
        """Return the engine's name of an image of ECR. Raises `StartError` where it has it not."""
        assert self._engine is not None
        image = self.find(uri)
        if image is not None:
            config = json.loads(image.image_manifest).get("config", {}).get("digest", "")
            for name in (config, image.get_image_digest()):
                if name and self._engine.image(name) is not None:
                    return str(name)
        raise StartError(
            f"The image {uri} is not on this machine's Docker engine; push it to this cloud "
            "with ./build_and_push.sh."
        )

    def blob(self, digest: str) -> bytes | None:
        """Return an image's config object."""
        found = self._store.images.get(digest)
        return found["config"].encode() if found else None

    def push(self, name: str, tag: str) -> tuple[str, int]:
        """Take an image of the engine into ECR; returns its digest and its manifest's size."""
        assert self._engine is not None
        parts = self.parts(f"{name}:{tag}")
        repository = parts and self._services.repository(parts["repository"])
        if parts is None or repository is None:
            raise PushError(f"name unknown: The repository with name '{name.partition('/')[2]}' "
                            f"does not exist in the registry with id '{ACCOUNT}'")  # fmt: skip
        if self._engine.image(f"{name}:{tag}") is None:
            raise PushError(f"An image does not exist locally with the tag: {name}")
        manifest, kind, config = _manifest(self._engine, f"{name}:{tag}")
        self.put(parts["repository"], tag, manifest, kind, config)
        return _sha256(manifest.encode()), len(manifest)

    def put(self, repository: str, tag: str, manifest: str, kind: str, config: str) -> None:
        """Put an image's manifest and config object into ECR. Raises `PushError`."""
        try:
            ecr_backends[ACCOUNT][self._services.region].put_image(
                repository, manifest, tag, kind, _sha256(manifest.encode())
            )
        except ServiceException as error:
            if error.code != "ImageAlreadyExistsException":
                raise PushError(f"tag invalid: {error.message}") from error
        held = {"config": config, "manifest": manifest, "kind": kind}
        digest = json.loads(manifest).get("config", {}).get("digest") or _sha256(manifest.encode())
        self._store.images[digest] = held | {"repository": repository, "tag": tag}
        self._store.changed()

    def restore(self) -> None:
        """Put back what an earlier process held."""
        backend = ecr_backends[ACCOUNT][self._services.region]
        for held in list(self._store.images.values()):
            if held["repository"] not in backend.repositories:
                backend.create_repository(
                    repository_name=held["repository"], registry_id=None, encryption_config={},
                    image_scan_config={"scanOnPush": True}, image_tag_mutability="IMMUTABLE",
                    image_tag_mutability_exclusion_filters=None, tags=[],
                )  # fmt: skip
            self.put(held["repository"], held["tag"], held["manifest"], held["kind"],
                     held["config"])  # fmt: skip

    def pull(self, name: str, version: str) -> str:
        """Tag an image of ECR in the engine; returns its digest. Raises `PushError`."""
        assert self._engine is not None
        image = self.find(f"{name}@{version}" if ":" in version else f"{name}:{version}")
        if image is None:
            raise PushError(f"manifest for {name}:{version} not found: Requested image not found")
        try:
            held = self.on_engine(f"{name}@{image.get_image_digest()}")
        except StartError as error:
            raise PushError(str(error)) from error
        tag = "by-digest" if ":" in version else version
        self._engine.open("POST", f"/images/{quote(held)}/tag", repo=name, tag=tag).read()
        return str(image.get_image_digest())


def _manifest(engine: Engine, reference: str) -> tuple[str, str, str]:
    """Return the manifest that a push would send, its media type, and the config object."""
    found = engine.image(reference) or {}
    small, sizes = _exported(engine, reference)
    listed = json.loads(small["manifest.json"])[0]
    config = small[listed["Config"]]
    own = found.get("Descriptor")  # where containerd keeps the images, they have manifests
    if own is not None:
        manifest = small[f"blobs/{own['digest'].replace(':', '/')}"]
        return manifest.decode(), own["mediaType"], config.decode()
    layers = zip(listed["Layers"], json.loads(config)["rootfs"]["diff_ids"], strict=True)
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_V2,
        "config": {"mediaType": _CONFIG, "size": len(config), "digest": _sha256(config)},
        "layers": [
            {"mediaType": _LAYER, "size": sizes[path], "digest": digest} for path, digest in layers
        ],
    }
    return json.dumps(document, indent=3), DOCKER_V2, config.decode()


def _exported(engine: Engine, reference: str) -> tuple[dict[str, bytes], dict[str, int]]:
    """Return the small files of an exported image, and the size of every file."""
    small, sizes = {}, {}
    answer = engine.open("GET", f"/images/{quote(reference)}/get")
    try:
        with tarfile.open(fileobj=answer, mode="r|") as archive:
            for member in archive:
                sizes[member.name] = member.size
                if member.isfile() and member.size < _BLOB_LIMIT:
                    content = archive.extractfile(member)
                    small[member.name] = content.read() if content else b""
    except tarfile.TarError as error:
        raise EngineError(f"the engine's export of {reference} cannot be read: {error}") from error
    return small, sizes


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
