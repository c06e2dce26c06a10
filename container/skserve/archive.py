"""What lies in a model directory, read without running any of it.

Only the standard library is imported here, so the deployment scripts share this module with the
image. A pickle is never loaded: the scikit-learn version is found by looking for the string that
every fitted estimator carries in its state, because joblib writes raw array bytes between the
opcodes and a disassembler stops there.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import hashlib
import json
import lzma
import mmap
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

MODEL_SUFFIXES = (".joblib", ".pkl", ".pickle", ".skops")
CODE_FOLDER = "code"
# What the archive holds and by which versions it was saved: written last, read by deploy.py.
MANIFEST = "skserve-manifest.json"
# What a file beside the model says of its columns; docs/25-columns.md has its form.
SCHEMA = "schema.json"
# What our own save leaves beside the model, and which of its keys the manifest repeats.
RECORD = "skserve.json"
RECORDED = ("numpy", "joblib", "python", "feature_names", "n_features", "sample")

_KEY = b"_sklearn_version"
# After the key come the opcodes that memoize it, then those of a string: its length, or a newline.
_VALUE = re.compile(
    rb"_sklearn_version(?:\x94?\x8c(.)|(?:q.|r.{4})?X(.)\x00{3}|\n(?:p\d+\n)?V(?=(\d[^\n]*)))",
    re.DOTALL,
)
_VERSION = re.compile(rb"\d+\.\d+[\w.+]*")
_SKOPS_VERSION = re.compile(
    rb'"_sklearn_version":\s*\{[^{}]*?"content":\s*"\\"([^"\\]+)\\""', re.DOTALL
)
_CHUNK = 1 << 20
_TAIL = 64  # bytes that a key and its version can span, carried from one chunk to the next

# How joblib compresses, by the first bytes of the file.
_ZLIB, _LZ4 = b"\x78", b"\x04\x22\x4d\x18"
_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x5d\x00\x00": lzma.open,
}


def binds(source: bytes, name: str, imported: bool = True) -> bool:
    """Whether Python source binds `name` at its top: by def, class or `=`, or by an import.

    It is parsed, not run; what is no Python binds nothing. `imported` lets imports count.
    """
    try:
        top = _at_top(ast.parse(source).body)
    except (SyntaxError, ValueError):
        return False
    return any(name in _names(node, imported) for node in top)


def _at_top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those inside of `if`, `try` and `with` too."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            inner = [getattr(node, part, []) for part in ("body", "orelse", "finalbody")]
            inner += [handler.body for handler in getattr(node, "handlers", [])]
            for block in inner:
                yield from _at_top(block)


def _names(node: ast.stmt, imported: bool) -> set[str]:
    """Return the names that one statement binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {one.id for target in targets for one in ast.walk(target) if type(one) is ast.Name}
    if isinstance(node, ast.Import | ast.ImportFrom) and imported:
        return {alias.asname or alias.name for alias in node.names}
    return set()


def find_models(directory: Path) -> list[Path]:
    """Return the files directly in `directory` that may be a model, hidden ones left out."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix.lower() in MODEL_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def listing(directory: Path, most: int = 10) -> str:
    """Say in one line what `directory` holds, for an error message."""
    names = sorted(
        str(path.relative_to(directory)) + ("/" if path.is_dir() else "")
        for path in directory.glob("*")
    )
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "nothing"


def pickled_with(path: Path) -> str | None:
    """Return the scikit-learn version that saved the model in `path`, or None where it is not said.

    The outermost estimator's version is the last one in the file, so that is the one returned.
    Nothing in the file is executed.
    """
    head = _head(path)
    if head.startswith(b"PK"):
        return _skops_version(path)
    if head.startswith(_ZLIB):
        return _last_version(_inflate(path))
    for magic, opener in _OPENERS.items():
        if head.startswith(magic):
            with opener(path, "rb") as stream:
                return _last_version(iter(lambda: stream.read(_CHUNK), b""))
    return _mapped_version(path) if head else None


def is_compressed(path: Path) -> bool:
    """Whether joblib compressed the file, so that more comes out of it than its size."""
    return _head(path).startswith((_ZLIB, _LZ4, *_OPENERS))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def manifest(files: Mapping[str, Path], chosen: str | None) -> dict[str, Any]:
    """Return the manifest of `files`, by their names in the archive; `chosen` is the model.

    Raises ValueError where the record beside the model is not JSON.
    """
    made: dict[str, Any] = {"format": 1}
    if chosen is not None:
        made["model"] = chosen
        made["sha256"] = sha256(files[chosen].open("rb"))
        made["scikit_learn"] = pickled_with(files[chosen])
    if RECORD in files:
        record = json.loads(files[RECORD].read_bytes())
        made |= {key: record[key] for key in RECORDED if key in record}
    return made


def manifest_text(manifest: Mapping[str, Any]) -> bytes:
    """Return the content of a manifest file."""
    return json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"


def schema_text(schema: Mapping[str, Any]) -> bytes:
    """Return the content of a `schema.json`."""
    return json.dumps(schema, indent=1).encode() + b"\n"


def sha256(stream: BinaryIO) -> str:
    """Return the digest of what is left of `stream`, in hex, and close it."""
    digest = hashlib.sha256()
    with stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _mapped_version(path: Path) -> str | None:
    """Search an uncompressed file from its end: there lies the outermost estimator's state."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = len(data)
        while (at := data.rfind(_KEY, 0, at)) >= 0:
            if found := _versions(data[at : at + _TAIL]):
                return found[-1]
    return None


def _last_version(chunks: Iterator[bytes]) -> str | None:
    found: list[str] = []
    tail = b""
    try:
        for chunk in chunks:
            found = _versions(tail + chunk) or found
            tail = chunk[-_TAIL:]
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        pass  # a broken file is the loader's to report; what was seen so far still counts
    return found[-1] if found else None


def _versions(data: bytes) -> list[str]:
    """Return the versions that follow the key in `data`, in order."""
    found = []
    for match in _VALUE.finditer(data):
        length = match[1] or match[2]
        value = match[3] or data[match.end() : match.end() + length[0]]
        if _VERSION.fullmatch(value):
            found.append(value.decode())
    return found


def _inflate(path: Path) -> Iterator[bytes]:
    """Yield the content of a bare zlib stream, which the standard library has no file for."""
    inflate = zlib.decompressobj()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield inflate.decompress(chunk)


def _skops_version(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            found = _SKOPS_VERSION.findall(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, OSError):
        return None
    return found[-1].decode() if found else None


def extract(archive: Path, target: Path) -> None:
    """Unpack a tar archive below `target`.

    Raises ValueError, naming the member, for anything that would land outside `target`, and for
    links and devices, which SageMaker refuses in archives too.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise ValueError(f"{archive.name} holds {member.name!r}, which is not a file")
                tar.extract(member, target, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ValueError(f"{archive.name} cannot be unpacked: {error}") from error
