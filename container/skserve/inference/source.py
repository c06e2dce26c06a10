"""Where the user's code is, and bringing it here.

The order of AWS's image: SAGEMAKER_SUBMIT_DIRECTORY (a folder, a tar.gz, `file://`, `s3://`), then
`code/` in the model directory, then a script beside the model. Nothing is written but below the
temporary directory. `requirements.txt` is installed there too, with the image's own scikit-learn,
numpy, scipy and joblib held where they are. All errors are `StartError`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from skserve import archive, privileges
from skserve.config import Config
from skserve.errors import StartError
from skserve.inference.artifact import installed, readable

log = logging.getLogger("skserve")

DEFAULT_PROGRAM = "inference.py"

# A model must meet the versions it was saved by, whatever a script's requirements ask for.
HELD = ("scikit-learn", "numpy", "scipy", "joblib")

# The lines of a requirements.txt that say where pip may look.
_INDEX_OPTION = re.compile(
    r"^\s*((?:-i|-f|--(?:index-url|extra-index-url|find-links|trusted-host|no-index))\b.*)", re.M
)


@dataclass(frozen=True)
class Source:
    """A folder with the user's script `program`; `library` holds what pip installed for it."""

    folder: Path
    program: str
    library: Path | None = None


@readable()
def fetch(directory: Path, config: Config) -> Source | None:
    """Find the user's code for the model in `directory`, bring it here, install what it needs.

    Returns None where there is no code, which is fine unless SAGEMAKER_PROGRAM names some.
    """
    program = _program(config)
    if not config.program and not config.submit_directory:
        _mention_unused(directory / archive.CODE_FOLDER)
    for folder in _candidates(directory, config):
        if (folder / program).is_file():
            return Source(folder, program, install(folder))
    if config.program or config.submit_directory:
        where = config.submit_directory or f"{directory}/code or {directory}"
        raise StartError(
            f"There is no {program} in {where}; SAGEMAKER_PROGRAM and SAGEMAKER_SUBMIT_DIRECTORY "
            "say where the script is."
        )
    return None


def beside(directory: Path, config: Config) -> Source | None:
    """Return the code that the model in `directory` brings itself, wherever others' code is.

    For many models in one container, where SAGEMAKER_SUBMIT_DIRECTORY is for those without any.
    """
    program = _program(config)
    own = replace(config, submit_directory=None)
    for folder in _candidates(directory, own):
        if (folder / program).is_file():
            return Source(folder, program, install(folder))
    return None


def shared(config: Config) -> Source | None:
    """Fetch, once for all models, the code of those that bring none. Raises StartError.

    A process of its own does it without root: to install a package may be to run it.
    """
    where = config.submit_directory
    if where is None or (where.startswith("/") and not Path(where).exists()):
        return None  # such as /opt/ml/model/code, which each model then has in its own folder
    apart = replace(config, model_dir=Path(tempfile.gettempdir()) / "skserve-none")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(write, "w") as answer:
            try:
                privileges.give_up_root(apart)
                found = fetch(apart.model_dir, apart)
                assert found is not None  # with a submit directory, there is code or an error
                library = found.library and str(found.library)
                json.dump([str(found.folder), found.program, library], answer)
            except StartError as error:
                json.dump(str(error), answer)
            finally:
                answer.flush()
                os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    said = json.loads(text) if text else "The code of SAGEMAKER_SUBMIT_DIRECTORY was not fetched."
    if isinstance(said, str):
        raise StartError(said)
    folder, program, library = said
    return Source(Path(folder), program, Path(library) if library else None)


def _program(config: Config) -> str:
    return (config.program or DEFAULT_PROGRAM).removesuffix(".py") + ".py"


def _mention_unused(code: Path) -> None:
    """Say that a code folder is passed over: a script of another name is a common slip."""
    if not code.is_dir() or (code / DEFAULT_PROGRAM).is_file():
        return
    scripts = ", ".join(sorted(path.name for path in code.glob("*.py"))) or "no .py file"
    log.info(
        "%s/ has no %s; it holds %s. Name the script with SAGEMAKER_PROGRAM.",
        *(code.name, DEFAULT_PROGRAM, scripts),
    )


def _candidates(directory: Path, config: Config) -> list[Path]:
    if config.submit_directory:
        return [bring(config.submit_directory, config)]
    return [directory / archive.CODE_FOLDER, directory]


def bring(location: str, config: Config, named: str = "SAGEMAKER_SUBMIT_DIRECTORY") -> Path:
    """Return a local folder with the code at `location`; an archive is unpacked.

    `named` is the setting that gave the location, for the sentence of a StartError.
    """
    if location.startswith("s3://"):
        path = _download(location, config, named)
    elif location.startswith("file://"):
        path = Path(unquote(urlsplit(location).path))
    else:
        path = Path(location)
    if path.is_dir():
        return path
    if not path.is_file():
        raise StartError(f"{named} is {location}, which does not exist.")
    if path.suffix == ".py":
        return path.parent
    target = Path(tempfile.mkdtemp(prefix="skserve-code-"))
    try:
        archive.extract(path, target)
    except ValueError as error:
        raise StartError(f"{named} is {location}, but {error}.") from error
    return target


def _download(uri: str, config: Config, named: str) -> Path:
    """Bring one S3 object here, in seconds or with a reason."""
    import boto3  # a third of a second: only where the code is in S3
    from botocore.config import Config as BotoConfig
    from botocore.exceptions import BotoCoreError, ClientError

    place = urlsplit(uri)
    target = Path(tempfile.mkdtemp(prefix="skserve-s3-")) / Path(place.path).name
    limits = BotoConfig(connect_timeout=3, read_timeout=30, retries={"total_max_attempts": 2})
    try:
        client = boto3.client(
            "s3", region_name=config.region, endpoint_url=config.s3_endpoint, config=limits
        )
        client.download_file(place.netloc, place.path.lstrip("/"), str(target))
    except (BotoCoreError, ClientError, OSError, ValueError) as error:
        raise StartError(
            f"{named} is {uri}, which cannot be downloaded: {error}. With network isolation the "
            "code must be in the model archive, below code/, or in a channel of the training job."
        ) from error
    return target


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
