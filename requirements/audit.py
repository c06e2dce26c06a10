"""Look at every package that a lock pins: its licence, and what is known of its version.

usage: audit.py [ADVISORIES]

ADVISORIES is a folder, or a .zip, of advisories in the OSV format, such as the all.zip that OSV
publishes for PyPI. Nothing is asked of a network: the package index has no current database as a
package (that of safety-db ends in July 2021), so without ADVISORIES only licences are looked at.
Exit codes: 0 nothing found, 1 a licence that is not allowed or a known vulnerability.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version
from sbom import licence_of, normal

# Of packages that no environment here has, or that do not say it.
LICENCES = {
    "colorama": "BSD-3-Clause",  # on Windows alone
    "contourpy": "BSD-3-Clause",  # this and the next seven: make bench-peers
    "cycler": "BSD-3-Clause",
    "fonttools": "MIT",
    "kiwisolver": "BSD-3-Clause",
    "matplotlib": "PSF-2.0",
    "pillow": "MIT-CMU",
    "pyparsing": "MIT",
    "pytz": "MIT",  # this and the next: pandas before 3
    "tzdata": "Apache-2.0",
    "atheris": "Apache-2.0",  # this and the next six: make soak
    "attrs": "MIT",
    "funcy": "BSD-3-Clause",
    "psutil": "BSD-3-Clause",
    "pydot": "MIT",
    "pyserial": "BSD-3-Clause",
    "tornado": "Apache-2.0",
}
# A licence that is not on the list below, of what a soak runs and nothing distributes.
EXCEPTIONS = {"boofuzz": "GPL-2.0-only"}
# As packages spell them: in none of these must what links to the package be published.
ALLOWED = re.compile(
    r"0BSD|Apache-2\.0|Apache Software License|BSD-[23]-Clause|BSD License|CC0-1\.0|MIT|MIT-0|"
    r"MIT-CMU|MIT License|MIT License \(MIT\)|MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)|"
    r"PSF-2\.0|Zlib"
)


def main(advisories: Path | None) -> int:
    pinned = pins(Path(__file__).parent)
    licences = {name: licence(name) for name, _ in pinned}
    faults = [
        f"{name}: the licence {text} is not allowed"
        for name, text in sorted(licences.items())
        if not allowed(text) and name not in EXCEPTIONS
    ]
    for name, text in sorted(licences.items()):
        print(f"{name:24}{text}")
    if advisories is None:
        print(
            "Known vulnerabilities were not looked up: the package index has no current database; "
            "give OSV's all.zip for PyPI, make audit ADVISORIES=all.zip.",
            file=sys.stderr,
        )
    else:
        faults += vulnerable(pinned, records(advisories))
    print("\n".join([*faults, f"{len(pinned)} pins, {len(faults)} faults"]))
    return int(bool(faults))


def pins(folder: Path) -> dict[tuple[str, str], list[str]]:
    """Return which locks of `folder` pin each (name, version)."""
    found: dict[tuple[str, str], list[str]] = {}
    for lock in sorted(folder.glob("*.txt")):
        for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE):
            found.setdefault((normal(name), version), []).append(lock.name)
    return found


def licence(name: str) -> str:
    """Return the licence of a package: as it is known, or as what is installed here says it."""
    known = LICENCES | EXCEPTIONS
    if name in known:
        return known[name]
    try:
        return licence_of(importlib.metadata.distribution(name))
    except importlib.metadata.PackageNotFoundError:
        return "not said"


def allowed(text: str) -> bool:
    """Whether every licence in an expression is allowed."""
    parts = re.split(r" AND | OR ", text)
    return all(ALLOWED.fullmatch(one) or ALLOWED.fullmatch(one.strip("()")) for one in parts)


def records(where: Path) -> Iterator[dict[str, Any]]:
    """Yield the advisories in a folder or an archive."""
    if where.is_dir():
        for path in where.rglob("*.json"):
            yield json.loads(path.read_bytes())
        return
    with zipfile.ZipFile(where) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def vulnerable(
    pinned: dict[tuple[str, str], list[str]], known: Iterator[dict[str, Any]]
) -> list[str]:
    """Say which of the pins an advisory names."""
    versions: dict[str, list[str]] = {}
    for name, version in pinned:
        versions.setdefault(name, []).append(version)
    found = set()
    for record in known:
        for affected in () if record.get("withdrawn") else record.get("affected", ()):
            package = affected.get("package", {})
            name = normal(package.get("name", ""))
            if package.get("ecosystem") != "PyPI":
                continue
            for version in versions.get(name, ()):
                if affects(affected, version):
                    locks = ", ".join(pinned[name, version])
                    text = record.get("summary") or record.get("details", "").partition("\n")[0]
                    found.add(f"{name} {version}: {record['id']} {text} ({locks})")
    return sorted(found)


def affects(affected: dict[str, Any], version: str) -> bool:
    """Whether one entry of an advisory names the version: in its list, or by its ranges."""
    if version in affected.get("versions", ()):
        return True
    return any(
        one.get("type") == "ECOSYSTEM" and _within(one.get("events", []), Version(version))
        for one in affected.get("ranges", ())
    )


def _within(events: list[dict[str, str]], version: Version) -> bool:
    """Follow the events of a range in the order of their versions: the last one counts."""
    inside = False
    ordered = sorted((_version(text), kind) for one in events for kind, text in one.items())
    for at, kind in ordered:
        if kind == "introduced" and at <= version:
            inside = True
        elif (kind == "fixed" and at <= version) or (kind == "last_affected" and at < version):
            inside = False
    return inside


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:  # as some old advisories have it: nothing is before it
        return Version("0")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else None))
