"""A loaded model in its process: it answers the calls of the workers until it is told to end.

The zygote speaks to it over a channel: each descriptor that comes is a connection to a worker, and
the message `drain` means that no call is taken any more. A call is answered as by a single model.
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import ExitStack, closing, suppress
from typing import Any

from skserve import telemetry
from skserve.errors import (
    ModelFault,
    OutOfMemory,
    Overloaded,
    ServeError,
    TimedOut,
)
from skserve.formats import message_framing
from skserve.formats.json_text import dumps_anyway
from skserve.inference.calls import Call, Reply
from skserve.multi_model import protocol
from skserve.multi_model.protocol import Message
from skserve.process_memory import MemoryLook
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.retirement import Retirement
from skserve.series import STAGES

log = logging.getLogger("skserve")


def _counted(record: telemetry.Record) -> Message:
    """Return what the worker is to count of a call, and to say in its line of the log."""
    return {
        "stages": dict(zip(STAGES, record.stages, strict=True)),
        "facts": record.facts,
        "rows": record.rows,
        "predictions": record.predictions,
        "cells": [sum(columns) for columns in record.cells] if record.cells else None,
    }


class ModelServer:
    """The loaded model and the connections on which its calls come, a thread for each."""

    def __init__(self, channel: socket.socket, single: LocalModel, retirement: Retirement) -> None:
        self._channel, self._single, self._retirement = channel, single, retirement
        self._replacement_asked = False
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._memory = MemoryLook()

    def listen(self) -> None:
        """Take connections until the zygote is gone or says `drain`."""
        self._tell_memory()
        while (heard := protocol.hear(self._channel)) is not None:
            message, descriptors = heard
            if "drain" in message:
                self._drain()
                break
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                with self._lock:
                    self._connections[connection] = thread
                thread.start()

    def _drain(self) -> None:
        """Answer every call that came whole, and let no other come.

        A worker whose call does not fit through any more is told so by its socket, and asks anew.
        """
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        for thread in connections.values():
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        """Answer the calls of one connection until it ends."""
        try:
            while (frame := message_framing.receive_frame(connection)) is not None:
                self._answer(connection, *frame)
                self._ask_for_replacement()
        except (OSError, EOFError, ValueError):
            pass  # the worker is gone, and who asked with it
        finally:
            with self._lock:
                del self._connections[connection]
            with suppress(OSError):  # a script may have closed it
                connection.close()

    def _answer(self, connection: socket.socket, head: Message, body: bytes) -> None:
        """Answer one call. Raises OSError, and EOFError where a body broke off in the middle."""
        record = telemetry.begin(head.pop("id"))
        with ExitStack() as held:
            try:
                if head.pop("describe", False):
                    reply = Reply(dumps_anyway(self._single.describe()))
                else:
                    cheap = self._single.cheap(len(body))
                    if not cheap:  # else it waits for no slot
                        held.enter_context(self._single.place())
                    reply = self._single.invoke(Call(body, **head), cheap)
            except BaseException as error:
                failed = self._failed(error, record.request_id)
                message_framing.send_frame(connection, {"error": failed, **_counted(record)}, b"")
                return
            self._send(connection, reply, record, self._single.cheap(len(body)))
        self._tell_memory()

    def _send(
        self, connection: socket.socket, reply: Reply, record: telemetry.Record, cheap: bool
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
            message_framing.send_frame(connection, answer, reply.body)
            return
        with closing(reply.body) as parts:  # type: ignore[type-var]
            message_framing.send_frame(connection, answer, b"")
            try:
                message_framing.send_parts(connection, parts)
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

    def _ask_for_replacement(self) -> None:
        """Tell the zygote, once, that another process should take the place of this one."""
        why = "" if self._replacement_asked else self._retirement.reason(self._single.answered)
        if why:
            self._replacement_asked = True
            with suppress(OSError):
                protocol.tell(self._channel, {"replace": why})

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
