"""Script mode: the user's training script, run the way AWS's toolkit runs it.

The script is a child process in /opt/ml/code with its hyperparameters as arguments and SM_* in its
environment. A script that also holds serving functions goes into the model as `code/`, so that the
model serves as it is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from skserve import archive
from skserve.config import TrainingSettings
from skserve.errors import StartError
from skserve.inference import source
from skserve.inference.hooks import HOOKS
from skserve.inference.requirements import install
from skserve.training.job import Job
from skserve.training.toolkit_env import arguments, variables

log = logging.getLogger("skserve")

PROGRAM, SUBMIT = "sagemaker_program", "sagemaker_submit_directory"

# What AWS's scikit-learn image calls the module that runs a script.
FRAMEWORK = "sagemaker_sklearn_container.training:main"

# AWS's toolkit waits as long for the names of the other hosts.
_NAMES_SECONDS = 15 * 60
_PATIENCE = 0.5  # seconds between two looks

# The entry point is part of a command, so only plain relative paths are taken, as by AWS's toolkit.
_PLAIN = re.compile(r"(?!-)(?!.*(?:^|/)\.{1,2}(?:/|$))[\w.+-]+(?:/[\w.+-]+)*")

_LITTER = shutil.ignore_patterns("__pycache__", ".git", ".ipynb_checkpoints", "*.pyc")


@dataclass(frozen=True)
class Script:
    """What is to be run: `command` in `folder`, with `environ`."""

    program: str
    folder: Path
    command: list[str]
    environ: dict[str, str]


def program_of(job: Job, config: TrainingSettings) -> str | None:
    """Return the script's name, if the job has one. The environment comes before the job."""
    named = config.program or job.control.get(PROGRAM)
    return None if named is None else str(named)


def prepare(job: Job, config: TrainingSettings, environ: Mapping[str, str]) -> Script:
    """Bring the code here, install what it needs, and say how it is run. Raises StartError."""
    program = program_of(job, config) or ""
    if not _PLAIN.fullmatch(program):
        raise StartError(
            f"{PROGRAM} is {program!r}; expected a path inside the code folder made of letters, "
            "digits and . _ + -, such as train.py."
        )
    location = str(job.control.get(SUBMIT) or config.submit_directory or job.code)
    folder = _placed(location, job, config)
    program = _found(program, folder)
    library = install(folder)
    paths = [str(folder), str(library or ""), environ.get("PYTHONPATH", "")]
    added = {
        **variables(job, program, location, FRAMEWORK),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "SAGEMAKER_JOB_NAME": str(job.control.get("sagemaker_job_name", "")),
        "CURRENT_HOST": job.host,
    }
    if region := job.control.get("sagemaker_region") or config.region:
        added["SAGEMAKER_REGION"] = str(region)
    return Script(program, folder, _command(program, folder, job), {**environ, **added})


def _placed(location: str, job: Job, config: TrainingSettings) -> Path:
    """Return /opt/ml/code with the code of `location` in it; what lies there already is kept."""
    if location == str(job.code) and not job.code.is_dir():
        raise StartError(
            f"There is no code: set {SUBMIT} to a folder, a tar.gz or an s3:// URI, or mount the "
            f"script's folder at {job.code}."
        )
    found = source.bring(location, config, SUBMIT)
    if found.resolve() == job.code.resolve():
        return found
    if job.code.is_dir() and any(job.code.iterdir()):
        log.info("%s is not empty, so it is run and %s is not.", job.code, location)
        return job.code
    try:
        shutil.copytree(found, job.code, ignore=_LITTER, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        log.info(
            "The code cannot be copied to %s (%s), so it is run in %s.", job.code, error, found
        )
        return found
    return job.code


def _found(program: str, folder: Path) -> str:
    """Return the entry point's name in `folder`; its `.py` may be left out, as in serving."""
    for name in (program, f"{program}.py"):
        if (folder / name).is_file():
            return name
    raise StartError(
        f"There is no {program} in the code; it holds {archive.listing(folder)}. "
        f"{PROGRAM} says which file is run."
    )


def _command(program: str, folder: Path, job: Job) -> list[str]:
    """A Python file is run by Python, anything else by a shell, without a word being quoted."""
    if program.endswith(".py"):
        return [sys.executable, program, *arguments(job)]
    with contextlib.suppress(OSError):  # a read-only folder: it may be executable already
        (folder / program).chmod(0o777)
    return ["/bin/sh", "-c", 'exec "$0" "$@"', f"./{program}", *arguments(job)]


def await_hosts(job: Job, limit: float = _NAMES_SECONDS) -> None:
    """Wait until the other hosts' names are known: they start at different moments."""
    deadline = time.monotonic() + limit
    for host in job.hosts:
        if host == job.host:
            continue
        # In a thread, because a slow name server would hold back a signal.
        looking = threading.Thread(target=_look_up, args=(host, deadline), daemon=True)
        looking.start()
        looking.join(_PATIENCE)
        if looking.is_alive():
            log.info("waiting for the address of %s", host)
        while looking.is_alive():  # in short waits: a signal may have woken the other thread
            looking.join(_PATIENCE)
        if time.monotonic() > deadline:
            raise StartError(f"The host {host} has no address after {limit:.0f} seconds.")


def _look_up(host: str, deadline: float) -> None:
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, None)
            return
        time.sleep(_PATIENCE)


def keep_code(script: Script, job: Job, saved: Collection[Path]) -> None:
    """Put the code into the model, if it has serving functions and the script did not do so.

    `saved` is what the script wrote, below the model directory: an earlier run's code is replaced.

    Raises StartError where it cannot: without it the model would not be served as it was meant.

    `serve` looks for inference.py, so a program of another name is there under both names.
    """
    target = job.model_dir / archive.CODE_FOLDER
    own = {Path(archive.CODE_FOLDER), Path(source.DEFAULT_PROGRAM)}
    if any(own & {path, *path.parents} for path in saved):
        return
    named = [script.folder / source.DEFAULT_PROGRAM, script.folder / script.program]
    serving = next((one for one in named if one.is_file() and _serves(one)), None)
    if serving is None:
        return
    try:
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(script.folder, target, ignore=_LITTER)
        if serving.name != source.DEFAULT_PROGRAM:
            shutil.copy(serving, target / source.DEFAULT_PROGRAM)
    except (OSError, shutil.Error) as error:
        raise StartError(f"The code cannot be put into the model, {target}: {error}.") from error
    log.info("%s has serving functions, so the code is in %s.", serving.name, target)


def _serves(path: Path) -> bool:
    return path.suffix == ".py" and any(archive.binds(path.read_bytes(), name) for name in HOOKS)
