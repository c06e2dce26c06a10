"""Installing the requirements.txt of a script, with pip, at the start.

The image's own scikit-learn, numpy, scipy and joblib are held where they are. Nothing is written
but below the temporary directory. All errors are `StartError`.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from skserve.errors import StartError
from skserve.inference.versions import installed

log = logging.getLogger("skserve")


# A model must meet the versions it was saved by, whatever a script's requirements ask for.
HELD = ("scikit-learn", "numpy", "scipy", "joblib")


# The lines of a requirements.txt that say where pip may look.
_INDEX_OPTION = re.compile(
    r"^\s*((?:-i|-f|--(?:index-url|extra-index-url|find-links|trusted-host|no-index))\b.*)", re.M
)


def install(folder: Path) -> Path | None:
    """Install `requirements.txt` of `folder` into a folder of its own below the temporary one.

    Returns that folder, or None where there is nothing to install.
    """
    wanted = folder / "requirements.txt"
    if not wanted.is_file():
        return None
    began = time.monotonic()
    target = Path(tempfile.mkdtemp(prefix="skserve-site-"))
    held = target / "held.txt"
    held.write_text("".join(f"{name}=={installed(name)}\n" for name in HELD))
    wheels = folder / "wheels"
    offline = ["--no-index", "--find-links", str(wheels)]
    # First what is bundled, without a network; then, unless it is complete, the index.
    attempts = [offline, ["--find-links", str(wheels)]] if wheels.is_dir() else [[]]
    for attempt in attempts:
        failure = _pip(wanted, held, target, attempt)
        if failure is None:
            break
    else:
        assert failure  # the last attempt's
        raise StartError(f"requirements.txt cannot be installed: {failure} {_way_out(failure)}")
    _check_executable(target)
    log.info("requirements.txt installed in %.1f s", time.monotonic() - began)
    return target


def _pip(wanted: Path, held: Path, target: Path, where: list[str]) -> str | None:
    """Resolve, then install what the image lacks. Returns the line that failed, or None.

    In two steps, because `pip install --target` alone would bring a second numpy. The second step
    takes the very files that the first one chose, by URL and hash: no name is looked up again. It
    keeps the options for the indexes' passwords and for what builds a source distribution.
    """
    quiet = ["--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    brief = ["--retries", "0", "--timeout", "4"]  # fail while the start is still watched
    options = [*quiet, *brief, *where]
    report = target / "report.json"
    # Where it may not write the image, pip would take the user site and refuse to replace anything.
    place = ["--prefix", str(target)]
    resolve = ["install", "--dry-run", "--report", str(report), *place, "-c", str(held), *options]
    done = _run_pip([*resolve, "-r", str(wanted)], wanted.parent)
    if done.returncode:
        return _reason(done.stdout + done.stderr)
    found = json.loads(report.read_text())["install"]
    if not found:
        return None
    chosen = target / "chosen.txt"
    lines = [*_INDEX_OPTION.findall(wanted.read_text("utf-8", "replace")), *map(_pinned, found)]
    chosen.write_text("\n".join(lines))
    install = ["install", "--no-deps", "--target", str(target), *options, "-r", str(chosen)]
    done = _run_pip(install, wanted.parent)
    return _reason(done.stdout + done.stderr) if done.returncode else None


def _pinned(entry: dict[str, Any]) -> str:
    """Write one distribution of pip's report as a requirement for that very file.

    The hash is part of the URL: with `--hash`, pip would ask for one of folders and clones too.
    """
    origin = entry["download_info"]
    url, parts = origin["url"], []
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    if digest := origin.get("archive_info", {}).get("hashes", {}).get("sha256"):
        parts.append(f"sha256={digest}")
    if folder := origin.get("subdirectory"):
        parts.append(f"subdirectory={folder}")
    return f"{entry['metadata']['name']} @ {url}" + ("#" + "&".join(parts) if parts else "")


def _run_pip(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, cwd=folder
    )


def _reason(output: str) -> str:
    """Return pip's first line that says ERROR, and what it says of conflicting versions."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or ["pip said nothing."]
    conflict = [line for line in lines if "depends on" in line or "user requested" in line]
    return " ".join([errors[0], *(f"{line.rstrip('.')}." for line in conflict)])


def _way_out(failure: str) -> str:
    """Say what helps against a failure of pip."""
    if "(constraint)" in failure:
        return (
            f"{', '.join(HELD)} stay at the image's versions, as models need them; ask for "
            "versions that go with these, or serve from an image that has others."
        )
    if "No matching distribution" in failure or "Could not find a version" in failure:
        return "Without a network, put the wheels into code/wheels/ or build them into the image."
    return "Mend the line that it names, or build the packages into the image."


def _check_executable(target: Path) -> None:
    """Refuse compiled code where it cannot be loaded, in words instead of a failed import."""
    compiled = next(target.rglob("*.so"), None)
    if compiled is not None and os.statvfs(target).f_flag & os.ST_NOEXEC:
        shutil.rmtree(target)
        raise StartError(
            f"requirements.txt brings compiled code ({compiled.name}), but {target.parent} is "
            "mounted noexec; mount it with exec (docker run --tmpfs /tmp:exec, or "
            "serve_local.sh --exec), or build the package into the image."
        )


def imported_before(library: Path) -> list[str]:
    """Name the packages in `library` of which this process has another version in its memory."""
    found = []
    for package in importlib.metadata.distributions(path=[str(library)]):
        tops = {file.parts[0].removesuffix(".py") for file in package.files or ()}
        loaded = [sys.modules[top] for top in tops if top in sys.modules]
        files = [file for module in loaded if (file := getattr(module, "__file__", None))]
        if any(not Path(file).is_relative_to(library) for file in files):
            found.append(f"{package.name} {package.version}")
    return sorted(found)
