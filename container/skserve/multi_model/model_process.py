"""The process of one model in the multi-model mode: it loads, answers, and ends.

It is forked from the zygote and alone with its model, so whatever the model does hurts only itself.
`model_server` answers the calls.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from skserve import privileges
from skserve.config import Config
from skserve.errors import (
    NoRoom,
    StartError,
)
from skserve.inference import source
from skserve.inference.model import Model
from skserve.inference.source import Source
from skserve.multi_model import protocol
from skserve.multi_model.memory_guard import check_rest, check_room, first_to_go
from skserve.multi_model.model_server import ModelServer
from skserve.multi_model.reports import WORDS_LIMIT
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.retirement import Retirement
from skserve.scheduling.slots import Slots

log = logging.getLogger("skserve")


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def folder_prefix(pid: int) -> str:
    """Return how the folder begins in which process `pid` keeps its files while it lives."""
    return f"{pid}-"


def call_it(name: str) -> None:
    """Name this process for `ps -o comm`, in 15 characters."""
    _LIBC.prctl(_PR_SET_NAME, name.encode(errors="replace")[:15])


def run(url: str, channel: socket.socket, config: Config, code: Source | None) -> NoReturn:
    """Load the model at `url`, tell the zygote, answer calls until told to end.

    `code` is the user's code for models that bring none.
    """
    parent = os.getppid()
    try:
        with first_to_go(config.machine.memory):
            model = _load(url, config, code, parent)
            threads = config.threads or (1 if model.script else 2)
            slots = Slots(
                threads,
                config.queue,
                config.timeout,
                config.native_threads or 1,
                config.longest_wait,
            )
            retirement = Retirement(config.max_requests, config.machine.memory, config.machine.left)
            bodies = Bodies(max(config.in_flight, config.max_whole))
            _LIBC.malloc_trim(0)  # what loading alone needed
            check_rest(config)
        protocol.tell(channel, {"loaded": model.title, "scripted": bool(model.script)})
        ModelServer(channel, LocalModel(slots, model, config.batching, bodies), retirement).listen()
    except (NoRoom, MemoryError) as error:
        _give_up(channel, 507, str(error) or "There is not enough memory to load the model.")
    except StartError as error:
        _give_up(channel, 400, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _give_up(channel, 400, f"The model cannot be read: {where}{error.strerror or error}.")
    except SystemExit:
        _give_up(channel, 400, "The model ended the program while it was loaded (sys.exit).")
    except BaseException as error:
        log.exception("The model cannot be loaded.")
        said = " ".join(str(error).split())[:300]
        _give_up(channel, 400, f"The model cannot be loaded: {type(error).__name__}: {said}.")
    os._exit(0)


def _give_up(channel: socket.socket, status: int, message: str) -> None:
    with suppress(OSError):
        protocol.tell(channel, {"failed": message[:WORDS_LIMIT], "status": status})


def _load(url: str, config: Config, code: Source | None, parent: int) -> Model:
    directory = _below(config.models_below, url)
    privileges.give_up_root(replace(config, model_dir=directory))
    privileges.shield()
    privileges.confine()
    # After that, because a change of user clears it.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    check_room(directory, config)
    # What a script or pip leaves there is removed when this process has ended.
    tempfile.tempdir = tempfile.mkdtemp(prefix=folder_prefix(os.getpid()))
    code = source.beside(directory, config) or code
    alone = replace(config, model_dir=directory, submit_directory=None, program=None)
    model = Model.load(directory, alone, code)
    model.warm_up()
    return model


def _below(root: Path, url: str) -> Path:
    """Return the folder that `url` names. Raises StartError unless it lies below `root`."""
    if "\0" in url:
        raise StartError("The url of the model holds a null byte.")
    try:
        real = (root / url.removeprefix("file://")).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its links go in a circle"
        raise StartError(f"There is no model at {url}: {reason}.") from None
    if root.resolve() not in real.parents:
        raise StartError(f"{url} is not below {root}, where models must lie (SKSERVE_MODEL_ROOT).")
    if not real.is_dir():
        raise StartError(f"{url} is not a folder.")
    return real
