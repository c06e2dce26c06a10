"""The model is loaded before the workers fork, unless its script prevents that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skserve.config import Config
from skserve.errors import StartError
from skserve.inference.model import Model
from skserve.inference.source import Source
from skserve.serving.sizing import Plan

log = logging.getLogger("skserve")


@contextmanager
def failures_said(config: Config) -> Iterator[None]:
    """Turn what the user's files may do while they are read into StartErrors."""
    try:
        yield
    except OSError as error:
        raise StartError(
            f"{error.filename or config.model_dir} cannot be read: {error.strerror or error}."
        ) from error
    except SystemExit as error:
        raise StartError("The model ended the program while it was loaded (sys.exit).") from error


def preloaded(config: Config, code: Source | None) -> Model | None:
    """Load the model here, before the fork, unless told not to or its script prevents it."""
    if not config.preload:
        return None
    before = _threads_and_sockets()
    with failures_said(config):
        # What each prediction may use is known before the size of the model is.
        jobs = Plan.make(config, code is not None, 0).native_threads
        model = Model.load(config.model_dir, config, code, jobs)
    left = _threads_and_sockets() - before
    if not (model.script and left):
        return model
    log.info("The script leaves %s behind, which a fork would break.", " and ".join(sorted(left)))
    return None


def _threads_and_sockets() -> set[str]:
    """Name what this process has that workers forked from it could not share."""
    found = set()
    if threading.active_count() > 1 or len(list(Path("/proc/self/task").glob("*"))) > 1:
        found.add("threads")
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            if str(descriptor.readlink()).startswith("socket:"):
                found.add("sockets")
        except OSError:
            continue  # closed since
    return found
