"""Every file of the image: whose it is, that it is as published, and what it lets its caller do."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import pytest

from tests.conftest import ROOT
from tests.test_image import BASE, docker
from tests.test_image import pytestmark as needs_docker

pytestmark = needs_docker

# Run by the Python of an image: what is on its disk, and what its packages say of it.
LOOK = """
import glob, hashlib, json, os, stat
found, text = {}, {}
for root, folders, names in os.walk("/"):
    folders[:] = [one for one in folders if not os.path.ismount(os.path.join(root, one))]
    for name in folders + names:
        path = os.path.join(root, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            found[path] = mode, "-> " + os.readlink(path)
        elif stat.S_ISREG(mode) and not os.path.ismount(path):
            with open(path, "rb") as file:
                found[path] = mode, hashlib.file_digest(file, "sha256").hexdigest()
        elif not stat.S_ISREG(mode):
            found[path] = mode, ""
for path in [*glob.glob("/var/lib/dpkg/info/*.list"), *glob.glob("/opt/venv/lib/*/*/*/RECORD")]:
    with open(path) as file:
        text[path] = file.read()
print(json.dumps([found, text]))
"""

# What the build itself makes beside packages and our program.
MADE = {
    "/opt/skserve/versions.json",
    "/opt/skserve/sbom.json",
    "/opt/venv/bin/pip",
    "/opt/venv/lib/python3.13/site-packages/skserve.pth",
    "/usr/lib/libgomp.so.1",
    # What `python -m venv` writes.
    "/opt/venv/.gitignore",
    "/opt/venv/pyvenv.cfg",
    "/opt/venv/lib64",
    *(f"/opt/venv/bin/{name}" for name in ("python", "python3", "python3.13")),
    *(f"/opt/venv/bin/{name}" for name in ("activate", "activate.csh", "activate.fish")),
    "/opt/venv/bin/Activate.ps1",
}

# Folders in which anybody may make files, and nobody may remove another's.
SHARED = {"/tmp", "/var/tmp", "/run/lock"}


class Disk(NamedTuple):
    """Modes and contents by path, and the texts of the packages' own lists."""

    modes: dict[str, int]
    contents: dict[str, str]
    texts: dict[str, str]


def look(image: str) -> Disk:
    command = ["run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", LOOK]
    found, texts = json.loads(docker(*command).stdout)
    return Disk(
        {path: mode for path, (mode, _) in found.items()},
        {path: content for path, (_, content) in found.items() if content},
        texts,
    )


@pytest.fixture(scope="module")
def disk(image: str) -> Disk:
    return look(image)


def of_debian(disk: Disk) -> set[str]:
    """Name what packages of Debian have brought: `/bin` of a list is `/usr/bin` on the disk."""
    links = {path: to[3:] for path, to in disk.contents.items() if to.startswith("-> ")}
    owned = set()
    for path, text in disk.texts.items():
        if path.endswith(".list"):
            for line in text.splitlines():
                top, _, rest = line[1:].partition("/")
                owned.add(f"/{links.get('/' + top, top).lstrip('/')}/{rest}" if rest else line)
    return owned


def of_wheels(disk: Disk) -> dict[str, str]:
    """Return what wheels have brought, and the SHA-256 in hex that their RECORDs give for each."""
    owned = {}
    for path, text in disk.texts.items():
        site = PurePosixPath(path).parent.parent
        for name, digest, _ in csv.reader(io.StringIO(text)) if path.endswith("RECORD") else ():
            parts: list[str] = []
            for part in (site / name).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            owned[str(PurePosixPath(*parts))] = digest
    return owned


def source_of(path: str) -> str:
    """Return the source of a file of bytecode; any other path as it is."""
    return re.sub(r"__pycache__/([^/]+?)\.cpython-\d+(\.opt-\d)?\.pyc$", r"\1.py", path)


def recorded(content: str) -> str:
    """Return a digest as a RECORD spells it."""
    return "sha256=" + base64.urlsafe_b64encode(bytes.fromhex(content)).decode().rstrip("=")


def ours() -> dict[str, str]:
    """Return the files of our program, and the SHA-256 of each."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "container"], capture_output=True, check=True
    ).stdout.decode()
    names = [name for name in listed.split("\0") if name]
    return {
        f"/opt/skserve/app/{name.removeprefix('container/')}": hashlib.sha256(
            (ROOT / name).read_bytes()
        ).hexdigest()
        for name in names
    }


def test_every_file_belongs_to_a_package(disk):
    base, debian, wheels, program = look(BASE), of_debian(disk), of_wheels(disk), ours()

    def belongs(path: str, content: str) -> bool:
        if path in program:
            return content == program[path]
        if path in wheels:
            return not wheels[path] or recorded(content) == wheels[path]
        return path in debian or path in MADE or base.contents.get(path) == content

    def is_known(path: str, content: str) -> bool:
        source = source_of(path)
        return belongs(path, content) or (source != path and source in disk.contents)

    strange = [path for path, content in disk.contents.items() if not is_known(path, content)]
    sources = {source_of(path) for path in disk.contents}
    assert strange == []
    assert sources & MADE == MADE
    assert set(program) <= set(disk.contents)


def test_no_file_of_the_image_gives_its_caller_rights(disk):
    assert set(of_rights(disk)) == SHARED


def of_rights(disk: Disk) -> Iterator[str]:
    """Name what is setuid or setgid, or what anybody may write."""
    for path, mode in disk.modes.items():
        if stat.S_ISLNK(mode):
            continue
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            yield path
        elif mode & stat.S_IWOTH:
            yield path
            assert mode & stat.S_ISVTX, f"{path}: others' files may be removed"


def test_the_sbom_names_what_is_installed(image):
    run = ["run", "--rm", "--network", "none", "--entrypoint"]
    bom = json.loads(docker(*run, "cat", image, "/opt/skserve/sbom.json").stdout)
    versions = json.loads(docker(*run, "cat", image, "/opt/skserve/versions.json").stdout)
    query = ["dpkg-query", image, "-W", "-f", "${Package} ${Version}\n"]
    debian = docker(*run, *query).stdout.split("\n")[:-1]

    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    by_kind: dict[str, set[str]] = {}
    for one in bom["components"]:
        kind = one["purl"].partition("/")[0]
        by_kind.setdefault(kind, set()).add(f"{one['name']} {one['version']}")
    installed = versions["packages"].items()
    assert by_kind == {
        "pkg:pypi": {f"{name.replace('_', '-')} {version}" for name, version in installed},
        "pkg:generic": {f"python {versions['python']}"},
        "pkg:deb": set(debian),
    }
    assert len({one["bom-ref"] for one in bom["components"]}) == len(bom["components"])
    lock = (ROOT / "requirements" / "serve-1.9.txt").read_text()
    hashes = {one["content"] for entry in bom["components"] for one in entry.get("hashes", ())}
    assert len(hashes) == len(by_kind["pkg:pypi"])
    assert all(f"sha256:{digest}" in lock for digest in hashes)
