"""The process of one model in the multi-model mode: it loads, answers, and ends.

It is forked from the zygote and alone with its model, so whatever the model does hurts only itself.
The zygote speaks to it over a channel: each descriptor that comes is the line of a worker, and the
message `drain` means that no call is taken any more. What is answered is the single-model line.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import tempfile
import threading
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from skserve import privileges, telemetry
from skserve.config import Config
from skserve.errors import (
    ModelFault,
    NoRoom,
    OutOfMemory,
    Overloaded,
    ServeError,
    StartError,
    TimedOut,
)
from skserve.formats import frames
from skserve.formats.json_text import dumps_anyway
from skserve.inference import source
from skserve.inference.calls import Call, Reply
from skserve.inference.model import Model
from skserve.inference.source import Source
from skserve.multi_model import protocol
from skserve.multi_model.memory_guard import check_rest, check_room, first_to_go
from skserve.multi_model.protocol import Message
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.memory import Bodies
from skserve.scheduling.retirement import Retirement
from skserve.scheduling.slots import Slots

log = logging.getLogger("skserve")

# Characters that the process of a model may use to say why it could not load.
WORDS_LIMIT = 4096

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


def _counted(record: telemetry.Record) -> Message:
    """Return what the worker is to count of a call, and to say in its line of the log."""
    return {
        "stages": record.stages,
        "facts": record.facts,
        "predictions": record.predictions,
        "cells": [sum(columns) for columns in record.cells] if record.cells else None,
    }


class ModelServer:
    """The loaded model and the lines on which its calls come, one thread each."""

    def __init__(self, channel: socket.socket, single: LocalModel, retirement: Retirement) -> None:
        self._channel, self._single, self._retirement = channel, single, retirement
        self._tired = False
        self._lines: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._memory = telemetry.MemoryLook()

    def listen(self) -> None:
        """Take lines until the zygote is gone or says `drain`."""
        self._tell_memory()
        while (heard := protocol.hear(self._channel)) is not None:
            message, descriptors = heard
            if "drain" in message:
                self._drain()
                break
            for descriptor in descriptors:
                line = socket.socket(fileno=descriptor)
                thread = threading.Thread(target=self._serve, args=(line,), daemon=True)
                with self._lock:
                    self._lines[line] = thread
                thread.start()

    def _drain(self) -> None:
        """Answer every call that came whole, and let no other come.

        A worker whose call does not fit through any more is told so by its socket, and asks anew.
        """
        with self._lock:
            lines = dict(self._lines)
        for line in lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RD)
        for thread in lines.values():
            thread.join()

    def _serve(self, line: socket.socket) -> None:
        """Answer the calls of one line until it ends."""
        try:
            while (frame := frames.receive_frame(line)) is not None:
                self._answer(line, *frame)
                self._tell_if_tired()
        except (OSError, EOFError, ValueError):
            pass  # the worker is gone, and who asked with it
        finally:
            with self._lock:
                del self._lines[line]
            with suppress(OSError):  # a script may have closed it
                line.close()

    def _answer(self, line: socket.socket, head: Message, body: bytes) -> None:
        """Answer one call. Raises OSError, and EOFError where a body broke off in the middle."""
        record = telemetry.begin(head.pop("id"))
        with ExitStack() as held:
            try:
                if head.pop("describe", False):
                    reply = Reply(dumps_anyway(self._single.describe()))
                else:
                    held.enter_context(self._single.place())
                    cheap = self._single.cheap(len(body))
                    reply = self._single.invoke(Call(body, **head), cheap)
            except BaseException as error:
                failed = self._failed(error, record.request_id)
                frames.send_frame(line, {"error": failed, **_counted(record)}, b"")
                return
            self._send(line, reply, record, self._single.cheap(len(body)))
        self._tell_memory()

    def _send(
        self, line: socket.socket, reply: Reply, record: telemetry.Record, cheap: bool
    ) -> None:
        """Send a reply; another call of this size would be `cheap`."""
        answer = {
            "whole": isinstance(reply.body, bytes),
            "cheap": cheap,
            "status": reply.status,
            "media_type": reply.media_type,
            "headers": {str(name): str(text) for name, text in reply.headers.items()},
            **_counted(record),
        }
        if isinstance(reply.body, bytes):
            frames.send_frame(line, answer, reply.body)
            return
        with closing(reply.body) as parts:  # type: ignore[type-var]
            frames.send_frame(line, answer, b"")
            try:
                frames.send_parts(line, parts)
            except OSError:
                raise
            except Exception as error:
                log.error("request %s: the stream broke.", record.request_id, exc_info=error)
                raise EOFError from error

    def _tell_memory(self) -> None:
        """Tell the zygote how much memory this process takes, now and then."""
        if (found := self._memory.due()) is not None:
            with suppress(OSError):
                protocol.tell(self._channel, {"memory": found})

    def _failed(self, error: BaseException, request_id: str) -> dict[str, Any]:
        """Say what failed in the words of a ServeError; its traceback belongs into this log."""
        if isinstance(error, TimedOut):
            self._tell_if_hung()
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            answer: ServeError = OutOfMemory("The model ran out of memory.", "Send fewer rows.")
        elif isinstance(error, ServeError):
            answer = error
        else:
            answer = ModelFault("The server failed on this request.", "The log has the traceback.")
        if answer.status >= 500 and not isinstance(error, Overloaded | TimedOut):
            log.error("request %s: %s", request_id, answer.logged, exc_info=error)
        return {
            "status": answer.status,
            "code": answer.code,
            "message": answer.marked,
            "hint": answer.hint,
            "retry_after": getattr(answer, "retry_after", 1),
            "reason": answer.reason,
        }

    def _tell_if_tired(self) -> None:
        """Tell the zygote, once, that another process should take the place of this one."""
        why = "" if self._tired else self._retirement.reason(self._single.answered)
        if why:
            self._tired = True
            with suppress(OSError):
                protocol.tell(self._channel, {"tired": why})

    def _tell_if_hung(self) -> None:
        """Tell the zygote that every prediction hangs, as soon as that is so."""
        left = self._single.hangs_in()
        if left <= 0:
            with suppress(OSError):
                protocol.tell(self._channel, {"hung": True})
        elif left < float("inf"):
            again = threading.Timer(left, self._tell_if_hung)
            again.daemon = True
            again.start()
