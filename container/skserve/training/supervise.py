"""`train`: one training job, from SageMaker's files to a model and an exit code.

Two ways lead to a model: the user's script, or no code at all, where hyperparameters name the
estimator. Both run in a child process: this one keeps the contract, hands on signals, and says why
a job failed in the failure file.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from skserve import telemetry
from skserve.config import NATIVE_THREADS, TrainingSettings
from skserve.errors import StartError
from skserve.training import child, failure, user_script
from skserve.training.job import Job

log = logging.getLogger("skserve")

ESTIMATOR = "estimator"  # the hyperparameter that asks for no-code mode
STOPPED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class _Work:
    """What the child is to do, and who says so in messages."""

    name: str
    run: user_script.Script
    scripted: bool


class _Stop(BaseException):
    """SIGTERM came before the training had begun; no Exception, which logging would swallow."""


def train(config: TrainingSettings, environ: Mapping[str, str]) -> int:
    """Run the job and return the exit status: 0, 1, or 143 if it was stopped without a model."""
    for number in (signal.SIGTERM, signal.SIGINT):  # process 1 would ignore them
        signal.signal(number, _stop)
    telemetry.configure(config.log_level, config.log_format)
    job = None
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        Job.placeholder(config).clear_failure()
        job = Job.read(config)
        telemetry.configure(job.log_level, config.log_format)
        job.prepare()
        work = _prepared(job, config, environ)
        return 0 if work is None else _supervised(work, job, config)
    except StartError as error:
        return _failed(job, config, str(error))
    except _Stop:
        _failed(job, config, "Stopped before the training began; nothing was saved.")
        return STOPPED
    except Exception as error:
        message = f"skserve itself failed: {type(error).__name__}: {error}. This is a bug."
        return _failed(job, config, message, traceback.format_exc())


def refuse(message: str) -> int:
    """Fail for a setting that could not even be read; SageMaker's own layout is assumed."""
    job = Job.placeholder(TrainingSettings())
    with contextlib.suppress(StartError):
        job.clear_failure()
    return _failed(job, TrainingSettings(), message)


def _stop(*_: object) -> NoReturn:
    raise _Stop


def _failed(job: Job | None, config: TrainingSettings, message: str, details: str = "") -> int:
    """Write the failure file, also where the job's own files could not be read."""
    (job or Job.placeholder(config)).write_failure(message, details)
    return 1


def _prepared(job: Job, config: TrainingSettings, environ: Mapping[str, str]) -> _Work | None:
    """Choose the way; None where this host has nothing to do."""
    # Libraries would take the CPUs of the machine for those of this container.
    threads = str(config.native_threads or job.cpus)
    environ = dict.fromkeys(NATIVE_THREADS, threads) | dict(environ)
    program = user_script.program_of(job, config)
    if program is not None:
        run = user_script.prepare(job, config, environ)
        user_script.await_hosts(job)
        return _Work(run.program, run, True)
    if ESTIMATOR not in job.hyperparameters:
        raise StartError(
            "The job does not say what to train: name a script with the hyperparameter "
            f"{user_script.PROGRAM}, or an estimator with {ESTIMATOR}, for example "
            f"{ESTIMATOR}=sklearn.ensemble.RandomForestClassifier."
        )
    if not job.first:
        log.info("%s fits the model, so %s has nothing to do.", job.hosts[0], job.host)
        return None
    command = [sys.executable, "-m", "skserve", "fit"]
    return _Work("The training", user_script.Script("", job.base, command, dict(environ)), False)


def _supervised(work: _Work, job: Job, config: TrainingSettings) -> int:
    before = _models(job)
    try:
        ended = child.run(work.run.command, work.run.environ, work.run.folder)
    except (OSError, ValueError) as error:
        raise StartError(
            f"{work.name} cannot be started: {error}. A hyperparameter may be too long, or hold a "
            "character that no argument can hold."
        ) from error
    saved = _models(job) - before
    # Without a script a model appears whole, so one that was saved before a stop is the result.
    if ended.status == 0 or (ended.stopped and saved and not work.scripted):
        _succeeded(work, ended, job, saved)
        return 0
    if work.scripted or not job.failure.exists():  # else no-code mode has said why itself
        message, details = failure.explain(work.name, ended, job, config, work.scripted)
        _failed(job, config, message, details)
    return STOPPED if ended.stopped else 1


def _models(job: Job) -> set[tuple[Path, int]]:
    """Return what lies in the model directory, with times, to see what a run has put there."""
    return {
        (path.relative_to(job.model_dir), path.lstat().st_mtime_ns)
        for path in job.model_dir.rglob("*")
        if not path.name.startswith(".")
    }


def _succeeded(
    work: _Work, ended: child.Ended, job: Job, saved: Collection[tuple[Path, int]]
) -> None:
    if work.scripted and saved:
        user_script.keep_code(work.run, job, [path for path, _ in saved])
    if not saved:
        log.warning(
            "%s ended well but left nothing in %s, so there is nothing to serve.",
            *(work.name, job.model_dir),
        )
    log.info(
        "%s ended %safter %s, at most %.0f MiB of memory",
        work.name,
        "early, on a signal, with its model saved, " if ended.status else "",
        child.clock(ended.seconds),
        ended.peak / 2**20,
    )
