"""`model.tar.gz`: made from a joblib file or a folder, and verified by opening it again.

The same input gives the same bytes: members are sorted, owners and times are zero, and the gzip
header holds neither a name nor a time. The digest is that of the tar stream inside the gzip, so
another zlib cannot change a name. The digest of the unpacked tree beside it is what the container
can be told to check. Nothing is unpickled here; `skserve.archive` reads versions.
Every fault of the input is a `Refused` with the way out.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from deployment.errors import Refused
from deployment.example import schema_of
from skserve import archive
from skserve import digest as tree
from skserve.archive import MANIFEST, RECORD, sha256

_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", "__pycache__", ".git", ".venv")
_CHUNK = 1 << 20
# Level 6 is gzip's own default: level 9 takes three times as long for about one percent.
_LEVEL = 6


@dataclass(frozen=True)
class Package:
    """A verified archive on this disk. `digest` is the SHA-256 of the tar stream, in hex.

    `tree` is the digest of the unpacked files, SKSERVE_MODEL_SHA256.
    """

    path: Path
    digest: str
    tree: str
    size_bytes: int
    members: tuple[str, ...]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    needs_network: str = ""  # why the container needs the network at start-up, or nothing

    @property
    def sklearn(self) -> str | None:
        """The scikit-learn version that pickled the model, where the file says it."""
        version = self.manifest.get("scikit_learn")
        return str(version) if version else None


def pack(
    source: Path,
    target: Path,
    code: Path | None = None,
    choice: str = "",
    example: Path | None = None,
) -> Package:
    """Write `source` (a model file or a folder) and `code` to the archive `target`; verify it.

    `example` is a file of rows, of which a `schema.json` is made.
    """
    if source.name.endswith((".tar.gz", ".tgz")) and source.is_file():
        for added, what in ((code, "the code folder"), (example, "the example")):
            if added is not None:
                raise Refused(
                    f"{source} is packed already, so {what} {added} cannot be added to it",
                    "give the model file or its folder instead",
                )
        return verify(source, choice)
    files = _collect(source, code)
    chosen = _model_of(sorted(files), lambda name: files[name].read_bytes(), choice, str(source))
    texts = {archive.SCHEMA: _schema(files, chosen, example)} if example else {}
    try:
        manifest = archive.manifest(files, chosen)
    except ValueError as error:
        raise Refused(f"{files[RECORD]} is not JSON: {error}", "save the model again") from None
    write(target, files, texts | {MANIFEST: archive.manifest_text(manifest)})
    return verify(target, choice)


def _schema(files: Mapping[str, Path], chosen: str | None, example: Path) -> bytes:
    if archive.SCHEMA in files:
        raise Refused(
            f"{files[archive.SCHEMA]} declares the columns already",
            "remove it, or leave --example out",
        )
    return archive.schema_text(schema_of(files, chosen, example))


def _collect(source: Path, code: Path | None) -> dict[str, Path]:
    """Map each member's name to its file: flat, links followed, litter left out."""
    if source.is_dir():
        files = {name: path for name, path in walk(source) if name != MANIFEST}
    elif source.is_file():
        if source.suffix.lower() not in archive.MODEL_SUFFIXES:
            known = ", ".join(archive.MODEL_SUFFIXES)
            raise Refused(f"{source} is not a model file", f"known endings: {known}, .tar.gz")
        files = {source.name: source}
        record = source.with_name(RECORD)
        if record.is_file():
            files[RECORD] = record
    else:
        raise Refused(f"there is no {source}", f"beside it lies {_beside(source)}")
    if code is not None:
        files |= {f"{archive.CODE_FOLDER}/{name}": path for name, path in _code(code)}
    return files


def _beside(source: Path) -> str:
    return archive.listing(source.parent) if source.parent.is_dir() else "no such folder either"


def _code(code: Path) -> list[tuple[str, Path]]:
    if code.is_file():
        if code.suffix != ".py":
            raise Refused(
                f"{code} is no Python file", "name inference.py, or the folder that has it"
            )
        return [("inference.py", code)]
    if not code.is_dir():
        raise Refused(f"there is no code folder {code}", f"beside it lies {_beside(code)}")
    return list(walk(code))


def walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name in an archive of every file below `folder`, and the file; no litter."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _litter(name))
        for name in folders:
            if (Path(root) / name).is_symlink():
                raise Refused(
                    f"{Path(root) / name} is a link to a folder, and SageMaker unpacks no links",
                    "copy the folder in its place",
                )
        for name in sorted(names):
            path = Path(root) / name
            if not _litter(name):
                if not path.is_file():
                    raise Refused(f"{path} is a broken link or not a file", "remove it")
                yield path.relative_to(folder).as_posix(), path


def _litter(name: str) -> bool:
    return name in _LITTER or name.startswith("._") or name.endswith((".pyc", ".ipynb_checkpoints"))


def _model_of(
    names: list[str], read: Callable[[str], bytes], choice: str, where: str
) -> str | None:
    """Return the member that is the model, or None where the user's `model_fn` decides."""
    models = [
        name
        for name in names
        if "/" not in name and PurePosixPath(name).suffix.lower() in archive.MODEL_SUFFIXES
    ]
    if choice:
        if choice in names:
            return choice
        raise Refused(f"{where} holds no {choice!r}", f"it holds {', '.join(names[:10])}")
    if len(models) == 1:
        return models[0]
    if any(archive.binds(read(name), "model_fn") for name in names if _is_code(name)):
        return None
    found = ", ".join(models) if models else f"none; it holds {', '.join(names[:10]) or 'nothing'}"
    raise Refused(
        f"{where} must hold exactly one model at its top, and it holds {len(models)}: {found}",
        'name one with `choose = "FILE"` (--choose FILE), or give an inference.py with a model_fn',
    )


def _is_code(name: str) -> bool:
    return name.endswith(".py") and str(PurePosixPath(name).parent) in (".", archive.CODE_FOLDER)


def write(target: Path, files: Mapping[str, Path], texts: Mapping[str, bytes]) -> None:
    """Write an archive of files, and of texts that are in none, by their names in it."""
    with (
        target.open("wb") as out,
        gzip.GzipFile("", "wb", _LEVEL, out, mtime=0) as zipped,
        tarfile.open(fileobj=cast(BinaryIO, zipped), mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted([*files, *texts]):
            member = tarfile.TarInfo(name)  # mode 0644, owner and time zero: nothing of this disk
            with io.BytesIO(texts[name]) if name in texts else files[name].open("rb") as content:
                member.size = content.seek(0, os.SEEK_END)
                content.seek(0)
                tar.addfile(member, content)


def verify(path: Path, choice: str = "") -> Package:
    """Open the archive as SageMaker would and return what it holds."""
    content: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            files = _unpack(path, Path(scratch), content)
            digest = _stream_digest(path)
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise Refused(
                f"{path} is not a readable .tar.gz: {error}",
                "make it with: python deploy.py pack MODEL",
            ) from error
        names = sorted(files)
        _flat(path, names)
        chosen = _model_of(names, lambda name: content[name], choice, str(path))
        manifest = json.loads(content.get(MANIFEST, b"{}"))
        if chosen is not None:
            _check_model(path, Path(scratch) / chosen, chosen, files[chosen], manifest)
    return Package(
        path,
        digest,
        tree.of_files(files),
        path.stat().st_size,
        tuple(names),
        manifest,
        _network(names, content),
    )


def _unpack(path: Path, scratch: Path, content: dict[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each member; copy out what may be the model, and small text."""
    files = {}
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            name = str(PurePosixPath(member.name))
            if not (member.isfile() or member.isdir()) or name.startswith(("/", "..")):
                raise Refused(
                    f"{path} holds {member.name!r}, which is a link, a device or outside the "
                    "archive; SageMaker answers such archives with 'Failed to extract model data'",
                    "give the folder instead, and it is packed without links",
                )
            stream = tar.extractfile(member)
            if stream is None:
                continue
            if name in (MANIFEST, RECORD) or _is_code(name):
                content[name] = stream.read()
                files[name] = hashlib.sha256(content[name]).hexdigest()
            elif PurePosixPath(name).suffix.lower() in archive.MODEL_SUFFIXES:
                inside = scratch / name
                inside.parent.mkdir(parents=True, exist_ok=True)
                with inside.open("wb") as out:
                    shutil.copyfileobj(stream, out, _CHUNK)
                files[name] = sha256(inside.open("rb"))
            else:
                files[name] = sha256(cast(BinaryIO, stream))
    return files


def _stream_digest(path: Path) -> str:
    return sha256(cast(BinaryIO, gzip.open(path, "rb")))


def _flat(path: Path, names: list[str]) -> None:
    litter = [name for name in names if any(_litter(part) for part in name.split("/"))]
    if any(name.split("/")[-1].startswith("._") for name in litter):
        raise Refused(
            f"{path} holds {litter[0]!r}, which macOS adds and a model scan may take for a model",
            "give the folder instead, or pack with COPYFILE_DISABLE=1",
        )
    tops = {name.split("/")[0] for name in names}
    if len(tops) == 1 and names and all("/" in name for name in names):
        raise Refused(
            f"everything in {path} lies in one folder, {tops.pop()!r}; "
            "SageMaker unpacks to /opt/ml/model and the model would lie one level too deep",
            "pack from inside the folder: tar -C FOLDER -czf model.tar.gz .",
        )


def _check_model(
    path: Path, model: Path, chosen: str, digest: str, manifest: dict[str, Any]
) -> None:
    """Compare the model with the manifest, or make one for an archive that has none."""
    if not model.is_file():
        return  # a choice that has another ending: the loader's matter
    if manifest.get("sha256", digest) != digest:
        raise Refused(
            f"{chosen} in {path} is not the file that its manifest describes",
            "pack the model again",
        )
    if not manifest:
        manifest |= {"model": chosen, "sha256": digest}
        manifest["scikit_learn"] = archive.pickled_with(model)


def _network(names: list[str], content: Mapping[str, bytes]) -> str:
    """Say why start-up needs the network: a requirements.txt without wheels beside it."""
    folder = archive.CODE_FOLDER
    wheels = any(name.startswith(f"{folder}/wheels/") for name in names)
    if f"{folder}/requirements.txt" in names and not wheels:
        return f"{folder}/requirements.txt is installed at start-up and there is no {folder}/wheels"
    return ""
