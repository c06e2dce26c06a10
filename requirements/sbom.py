"""Say what an image holds, as a software bill of materials in CycloneDX 1.6, the JSON form.

usage: sbom.py WHEELS > sbom.json

It runs in the stage of the build that has the wheels, on the base that the image keeps: Debian's
packages, Python itself, and each wheel with its hash and licence. The same build gives the same
bytes, so there is no time and no random number in it. Libraries inside of wheels, such as OpenBLAS
in numpy's, are not named by themselves.
"""

import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from urllib.parse import quote

_DEBIAN = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"


def main(wheels: Path) -> int:
    components = [*_python_packages(wheels), _interpreter(), *_debian_packages()]
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "skserve", "bom-ref": "skserve"}},
        "components": sorted(components, key=lambda one: str(one["bom-ref"])),
    }
    print(json.dumps(bom, indent=1))
    return 0


def _component(purl: str, name: str, version: str, **more: object) -> dict[str, object]:
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        **more,
    }


def _python_packages(wheels: Path) -> list[dict[str, object]]:
    files = {normal(path.name.split("-")[0]): path for path in wheels.glob("*.whl")}
    found = []
    for one in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
        name = normal(one.metadata["Name"])
        digest = hashlib.sha256(files[name].read_bytes()).hexdigest()
        found.append(
            _component(
                f"pkg:pypi/{name}@{quote(one.version)}",
                name,
                one.version,
                hashes=[{"alg": "SHA-256", "content": digest}],
                licenses=[{"license": {"name": licence_of(one)}}],
            )
        )
    return found


def _interpreter() -> dict[str, object]:
    version = platform.python_version()
    return _component(f"pkg:generic/python@{version}", "python", version)


def _debian_packages() -> list[dict[str, object]]:
    """List what dpkg has installed: nothing, with a warning, on a base that has none."""
    try:
        told = subprocess.run(
            ["dpkg-query", "--show", f"--showformat={_DEBIAN}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except FileNotFoundError:
        print("no dpkg here: the SBOM has no packages of the base", file=sys.stderr)
        return []
    found = []
    for line in told.splitlines():
        status, name, version, machine = line.split("\t")
        if status.startswith("ii"):
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={machine}"
            found.append(_component(purl, name, version))
    return found


def normal(name: str) -> str:
    """Return the name of a package as indexes and purls spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(package: importlib.metadata.Distribution) -> str:
    """Return what a package says: an expression, classifiers, or the first line of a text."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classified = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier", [])
        if text.startswith("License :: ") and not text.endswith("OSI Approved")
    ]
    files = [package.read_text(f"licenses/{name}") for name in metadata.get_all("License-File", [])]
    text = str(metadata.get("License") or "".join(filter(None, files))).strip()
    return " AND ".join(classified) or (text.splitlines()[0].strip() if text else "not said")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
