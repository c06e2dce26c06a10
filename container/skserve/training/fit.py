"""No-code mode, in the child process: read the channels, fit, save, evaluate, report.

The model is saved before it is evaluated, so that a stop in the middle of a long evaluation costs
the evaluation only. SIGTERM keeps its default meaning: it ends the process at once, also in the
middle of a C loop, and a model that was saved by then is whole.
"""

from __future__ import annotations

import logging
import math
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from skserve import telemetry
from skserve.config import TrainingSettings
from skserve.errors import StartError
from skserve.estimators.declared import document, type_of
from skserve.estimators.readers import first_step, is_vectorizer
from skserve.inference import artifact
from skserve.training import channel, evaluation, recipe, report
from skserve.training.dataset import Channel, Dataset
from skserve.training.evaluation import Evaluation
from skserve.training.fit_errors import explained
from skserve.training.job import Job

log = logging.getLogger("skserve")

TRAIN, VALIDATION = "train", "validation"

# Estimators whose verbose output tells how the solver fares, and not how far it is.
_WITHOUT_PROGRESS = "sklearn.svm."


def fit(config: TrainingSettings) -> int:
    """Run the job that the hyperparameters describe; return the exit status."""
    job = Job.read(config)
    telemetry.configure(job.log_level, config.log_format)
    try:
        _run(job)
    except StartError as error:
        job.write_failure(str(error), _cause(error))
        return 1
    except MemoryError:
        memory = f"{config.machine.memory / 2**30:.1f} GiB"
        job.write_failure(
            f"The memory, {memory}, is too small for this data: take a larger instance, or fewer "
            "rows.",
            traceback.format_exc(),
        )
        return 1
    return 0


def _cause(error: StartError) -> str:
    return "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""


def _run(job: Job) -> None:
    estimator = recipe.build(job.hyperparameters)
    try:
        kind = evaluation.kind_of(estimator)
    except Exception as error:  # one that asks the estimator inside, and was given none
        raise StartError(
            f"{type(estimator).__name__} is not complete: give the estimator inside it, "
            f'{{"{job.hyperparameters["estimator"]}": {{"estimator": "sklearn.svm.SVC"}}}}.'
        ) from error
    folds = _folds(job)
    train = _read(job, TRAIN, estimator, kind)
    validation = _read(job, VALIDATION, estimator, kind) if VALIDATION in job.inputs else None
    if validation is not None:
        validation = _aligned(validation, train)
    fitted = _fitted(estimator, train)
    try:
        path = artifact.save(fitted, job.model_dir, _sample(train), _schema(train))
    except OSError as error:
        raise StartError(f"The model cannot be saved in {job.model_dir}: {error}.") from error
    log.info("saved %s, %s bytes", path, f"{path.stat().st_size:,}")
    found = _evaluated(estimator, fitted, train, validation, folds)
    for name, value in found.metrics.items():
        print(f"{name}={value:.10g};", flush=True)  # as SageMaker's metric definitions find it
    _report(job, fitted, train, found)


def _folds(job: Job) -> int:
    folds = job.hyperparameters.get("folds", 5)
    if isinstance(folds, int) and not isinstance(folds, bool) and (folds == 0 or folds >= 2):
        return folds
    raise StartError(f"folds={folds}; expected a whole number from 2, or 0 for none.")


def _read(job: Job, name: str, estimator: Any, kind: str) -> Dataset:
    """Read a channel, and check it against what the estimator takes."""
    settings = job.inputs.get(name, {})
    if settings.get("TrainingInputMode") == "Pipe":
        raise StartError(f"Channel {name} is in Pipe mode; choose File or FastFile.")
    target = job.hyperparameters.get("target")
    supervised = kind in ("classifier", "regressor")
    if supervised and target is None:
        raise StartError(
            f"{type(estimator).__name__} learns a target, and none is given: set target to the "
            "name of its column, or to its number, from 0; -1 is the last."
        )
    content_type = str(settings.get("ContentType") or "")
    header = str(job.hyperparameters.get("header", "auto"))
    source = Channel(name, job.channel(name), content_type, header)
    data = channel.read(source, target)
    if supervised:
        data = replace(data, y=_targets(data, kind, name))
    if is_vectorizer(first_step(estimator)):
        return channel.documents(data, source)
    return data


def _targets(data: Dataset, kind: str, channel: str) -> Any:
    """Check y: complete, numbers for a regressor, two classes or more for a classifier."""
    y, name = data.y, data.target
    assert y is not None
    empty = np.array([one != one for one in y.tolist()])
    if empty.any():
        raise StartError(
            f"The target {name} of channel {channel} is missing in {int(empty.sum()):,} of "
            f"{len(y):,} rows, first in row {int(empty.argmax()) + 1}; leave those rows out."
        )
    if kind == "regressor":
        if y.dtype == object:
            odd = next(one for one in y.tolist() if not isinstance(one, int | float))
            raise StartError(
                f"The target {name} holds text such as {odd!r}, and a regressor needs numbers; "
                "choose a classifier, or another target."
            )
        return y
    if y.dtype == object:
        y = np.array([str(one) for one in y.tolist()], dtype=object)
    elif np.all(y == np.floor(y)) and np.all(np.abs(y) < 2**53):
        y = y.astype(np.int64)  # so that the answers are 0 and 1, not 0.0 and 1.0
    if channel == TRAIN and len(set(y.tolist())) < 2:
        raise StartError(
            f"The target {name} has the single value {y.tolist()[0]!r} in all {len(y):,} rows; a "
            "classifier needs two classes or more."
        )
    return y


def _aligned(validation: Dataset, train: Dataset) -> Dataset:
    """Put the columns of the validation channel into the order of the train channel."""
    if isinstance(train.X, list):
        return validation
    if sorted(validation.names) != sorted(train.names):
        lacking = sorted(set(train.names) - set(validation.names))
        extra = sorted(set(validation.names) - set(train.names))
        raise StartError(
            "The validation channel has other columns than the train channel. Missing: "
            f"{', '.join(lacking[:10]) or 'none'}. Unexpected: {', '.join(extra[:10]) or 'none'}."
        )
    if hasattr(validation.X, "columns"):
        return replace(validation, X=validation.X[list(train.X.columns)])
    return validation


def _fitted(estimator: Any, train: Dataset) -> Any:
    """Fit a copy, with scikit-learn's own progress lines where it has them."""
    from sklearn.base import clone

    rows = len(train.X)
    width = "text" if isinstance(train.X, list) else f"{train.X.shape[1]:,} columns"
    log.info("fitting %s on %s rows of %s", type(estimator).__name__, f"{rows:,}", width)
    fitted = clone(estimator)
    try:
        with _verbose(fitted):
            fitted.fit(train.X) if train.y is None else fitted.fit(train.X, train.y)
    except MemoryError:
        raise
    except Exception as error:
        raise StartError(explained(estimator, train, error)) from error
    return fitted


@contextmanager
def _verbose(estimator: Any) -> Iterator[None]:
    """Let an estimator print its progress, if it can, for the time of the fit.

    Only what is fitted in place: copies inside a fitted ensemble would print when it serves.
    """
    if type(estimator).__module__.startswith(_WITHOUT_PROGRESS):
        yield
        return
    known = estimator.get_params()
    last = f"{estimator.steps[-1][0]}__verbose" if hasattr(estimator, "steps") else ""
    quiet = {name: known[name] for name in ("verbose", last) if known.get(name, True) in (False, 0)}
    estimator.set_params(**{name: type(value)(1) for name, value in quiet.items()})
    try:
        yield
    finally:
        estimator.set_params(**quiet)


def _sample(train: Dataset) -> Any:
    """Return the first row as JSON spells it."""
    if isinstance(train.X, list):
        return train.X[:1]
    row = train.X.iloc[0].tolist() if hasattr(train.X, "iloc") else train.X[0].tolist()
    return [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row]


def _schema(train: Dataset) -> dict[str, Any] | None:
    """Say what each column of a DataFrame holds; an array and texts say it themselves."""
    if not hasattr(train.X, "columns"):
        return None
    types = [
        "number" if cells.dtype.kind in "iuf" else type_of(cells.tolist())
        for _, cells in train.X.items()
    ]
    return document(types, train.names, _sample(train))


def _evaluated(
    estimator: Any, fitted: Any, train: Dataset, validation: Dataset | None, folds: int
) -> Evaluation:
    """Evaluate; the model is saved already, so what goes wrong here is said and no failure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once")
            return evaluation.evaluate(estimator, fitted, train, validation, folds)
    except Exception as error:
        log.warning("The model is saved, but could not be evaluated: %s", error, exc_info=True)
        return Evaluation(evaluation.kind_of(fitted))


def _report(job: Job, fitted: Any, train: Dataset, found: Evaluation) -> None:
    path = job.output / "report.html"
    try:
        path.write_text(report.render(fitted, train, found, job.hyperparameters), "utf-8")
    except Exception as error:
        log.warning("The model is saved, but the report is not: %s", error, exc_info=True)
        return
    log.info("wrote %s", path)
