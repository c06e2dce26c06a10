"""Model data on this machine: objects of S3 unpacked into folders that containers mount.

What cannot be fetched or unpacked raises `StartError` in the words that SageMaker has for it.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import StartError
from .services import Services

_DOWNLOAD = (
    'Failed to download model data for container "container_1" from URL: "{uri}". Please ensure '
    "that there is an object located at the URL and that the role passed to CreateModel has "
    "permissions to download the object."
)
_EXTRACT = (
    'Failed to extract model data archive for container "container_1" from URL "{uri}". Please '
    "ensure that the object located at the URL is a valid tar.gz archive."
)


class Artifacts:
    """Unpacked model data, each content once, below one folder."""

    def __init__(self, folder: Path, services: Services) -> None:
        self._folder, self._services = folder, services
        self._lock = threading.Lock()

    def of_container(self, container: Mapping[str, Any]) -> Path | None:
        """Return the folder of a ContainerDefinition's model data, None if it has none."""
        source = container.get("ModelDataSource", {}).get("S3DataSource")
        if source is not None:
            kind = (source["S3DataType"], source["CompressionType"])
            return _SOURCES[kind](self, source["S3Uri"])
        uri = container.get("ModelDataUrl")
        return None if uri is None else self.archive(uri)

    def archive(self, uri: str, where: str = "") -> Path:
        """Return the folder that a tar.gz in S3 is unpacked to; `where` is a name of its own."""
        return self._once([uri], lambda target: self._unpack(uri, target), where)

    def object(self, uri: str) -> Path:
        """Return a folder that holds one object, under the last part of its key."""

        def copy(target: Path) -> None:
            (target / uri.rsplit("/", 1)[1]).write_bytes(self._read(uri))

        return self._once([uri], copy)

    def prefix(self, uri: str) -> Path:
        """Return a folder that holds every object below a prefix."""
        uris = self._services.keys(uri)
        if not uris:
            raise StartError(_DOWNLOAD.format(uri=uri))

        def copy(target: Path) -> None:
            for one in uris:
                path = target / one.removeprefix(uri)
                if not path.resolve().is_relative_to(target.resolve()):
                    raise StartError(_DOWNLOAD.format(uri=one))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._read(one))

        return self._once(uris, copy)

    def _once(self, uris: list[str], make: Callable[[Path], None], where: str = "") -> Path:
        """Make a folder of that content unless it is there; it appears only when it is whole."""
        seen = "\n".join(f"{uri} {self._services.etag(uri)}" for uri in uris)
        target = self._folder / (where or hashlib.sha256(seen.encode()).hexdigest()[:32])
        with self._lock:
            if not target.exists():
                partial = target.with_name(target.name + ".part")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                try:
                    make(partial)
                    readable(partial)
                    partial.rename(target)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        return target

    def _read(self, uri: str) -> bytes:
        content = self._services.read(uri)
        if content is None:
            raise StartError(_DOWNLOAD.format(uri=uri))
        return content

    def _unpack(self, uri: str, target: Path) -> None:
        content = self._read(uri)
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
                members = archive.getmembers()
                if any(member.issym() or member.islnk() for member in members):
                    raise StartError(_EXTRACT.format(uri=uri))
                archive.extractall(target, members, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise StartError(_EXTRACT.format(uri=uri)) from error


def readable(folder: Path) -> None:
    """Let any user of a container read a folder, as SageMaker's are."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


_SOURCES: Mapping[tuple[str, str], Callable[[Artifacts, str], Path]] = {
    ("S3Object", "Gzip"): Artifacts.archive,
    ("S3Object", "None"): Artifacts.object,
    ("S3Prefix", "None"): Artifacts.prefix,
}
