"""What a worker sees of the models: the registry of the multi-model mode.

Which models are loaded is known to the zygote alone, so every worker gives the same answers. A call
goes to its model's process directly, on a connection of which a worker keeps a few for each model.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from skserve import telemetry
from skserve.config import MIB, Config
from skserve.errors import ModelFault, OutOfMemory, Overloaded, ServeError, TimedOut, quote
from skserve.formats import message_framing
from skserve.formats.chunks import Read
from skserve.inference.calls import Call, Reply
from skserve.multi_model.control_client import ControlClient
from skserve.multi_model.pool import ConnectionPool, ModelConnection
from skserve.multi_model.protocol import Message
from skserve.multi_model.replies import reply_of

# Seconds beyond the timeout of a request that its answer may be late: the model's process keeps
# the time itself, unless it never lets go of Python's lock.
GRACE = 5

# How often a call is offered to a model whose process ended before it had taken the whole of it,
# and the seconds in which the zygote may notice that end.
OFFERS, NOTICE = 5, 0.02


class ModelClient:
    """The models of the container. Make it after the fork; `control` leads to the zygote."""

    def __init__(self, control: socket.socket, config: Config, places: int) -> None:
        self._timeout = config.timeout + GRACE
        self._control = ControlClient(control, self._timeout)
        self._pool = ConnectionPool()
        self._largest = max(config.machine.memory // 8, 64 * MIB)
        self._each = (config.threads or 2) + config.queue
        self._free, self._held = places, Counter[str]()
        self._lock = threading.Lock()

    def ready(self) -> bool:
        """Models may be loaded at any time, so there is nothing to wait for."""
        return True

    def load(self, name: str, url: str) -> None:
        """Load a model; its next call succeeds. Raises Refused."""
        self._control.ask({"do": "load", "name": name, "url": url})

    def unload(self, name: str) -> None:
        """Let a model answer what it has, and end its process. Raises Refused."""
        self._control.ask({"do": "unload", "name": name})

    def url(self, name: str) -> str:
        """Return where a model was loaded from. Raises Refused."""
        answer, _ = self._control.ask({"do": "describe", "name": name})
        return str(answer["models"][0][1])

    def page(self, after: str | None, limit: int) -> tuple[list[list[str]], bool]:
        """Return the names and urls of at most `limit` models, and whether more follow.

        They are in order of name; `after` is the one that the page before ended with.
        """
        answer, _ = self._control.ask({"do": "list", "after": after, "limit": limit})
        return answer["models"], answer["more"]

    def cheap(self, name: str, size: int) -> bool:
        """Whether the poller may call a model with `size` bytes, and wait for its answer."""
        return self._pool.cheap(name, size)

    def model(self, name: str) -> RemoteModel:
        """Return what answers for one model, which need not be loaded."""
        return RemoteModel(self, name)

    @contextmanager
    def place(self, name: str) -> Iterator[None]:
        """Hold a place for one call of a model.

        A model may hold as many places as are left free: one that hangs gets at most half of them,
        two a third each, and there is always one for another. Raises Overloaded.
        """
        with self._lock:
            if self._held[name] >= min(self._each, self._free):
                raise Overloaded(
                    "As many requests of this model are running and waiting as may.",
                    "Try again in a second.",
                    "queue",
                )
            self._held[name] += 1
            self._free -= 1
        try:
            yield
        finally:
            with self._lock:
                self._free += 1
                self._held[name] -= 1
                if not self._held[name]:
                    del self._held[name]

    def describe(self, name: str) -> Message:
        """Return what a model says of itself, as untrusted data. Raises ServeError."""
        with self.place(name):
            body = self.invoke(name, Call(b""), describe=True).body
        description = json.loads(body) if isinstance(body, bytes) else None
        if not isinstance(description, dict):
            raise ModelFault(f"What model {name} says of itself is no description.")
        return description

    def invoke(self, name: str, call: Call, describe: bool = False) -> Reply:
        """Let a model answer one call, or `describe` itself instead. Raises ServeError."""
        record = telemetry.current()
        head: Message = {
            "id": record.request_id if record else "",
            "content_type": call.content_type,
            "accept": call.accept,
            "attributes": call.attributes,
            "describe": describe,
        }
        for _ in range(OFFERS):
            connection = self._connection(name)
            if record is not None:
                record.model = connection.place
            head["headers"] = dict(call.headers) if connection.scripted else {}
            try:
                message_framing.send_frame(connection.end, head, call.body)
            except (BrokenPipeError, ConnectionResetError):
                # The whole call did not get through, so no model answered it.
                self._pool.drop(name, connection)
                time.sleep(NOTICE)
                continue
            except BlockingIOError:
                raise self._hung(name, connection) from None
            return self._answer(name, connection, record, len(call.body))
        raise Overloaded(f"Model {name} ends as fast as it is started.", "Try again in a second.")

    def _answer(
        self, name: str, connection: ModelConnection, record: telemetry.Record | None, size: int
    ) -> Reply:
        """Wait for the answer to a call of `size` bytes."""
        began = time.perf_counter()
        try:
            frame = message_framing.receive_frame(connection.end, self._largest)
        except BlockingIOError:
            raise self._hung(name, connection) from None
        except (EOFError, ConnectionResetError):
            frame = None
        except ValueError as error:
            connection.end.close()
            raise ModelFault(
                f"What model {name} answered cannot be passed on: {quote(error)}."
            ) from error
        if frame is None:
            raise self._died(name, connection)
        connection.learn(size, time.perf_counter() - began, frame[0].get("cheap") is True)
        try:
            reply = reply_of(*frame, record)
            whole = frame[0]["whole"] is True
        except ServeError:
            self._pool.keep(name, connection)
            raise
        except Exception as error:  # it may be anything
            connection.end.close()
            raise ModelFault(
                f"What model {name} answered is no reply: {quote(repr(error)[:200])}."
            ) from error
        if whole:
            self._pool.keep(name, connection)
            return reply
        return reply._replace(body=self._parts(name, connection))

    def _parts(self, name: str, connection: ModelConnection) -> Iterator[bytes]:
        """Yield a body in parts as they come. Raises ModelFault where they break off."""
        try:
            yield from message_framing.receive_parts(connection.end, self._largest)
        except BaseException as error:
            connection.end.close()
            if isinstance(error, EOFError | OSError):
                raise ModelFault(f"What model {name} answered broke off.") from error
            raise
        self._pool.keep(name, connection)

    def _hung(self, name: str, connection: ModelConnection) -> ServeError:
        connection.end.close()
        self._control.ask({"do": "exit_reason", "name": name, "pid": connection.pid, "hung": True})
        return TimedOut(
            f"Model {name} did not answer within {self._timeout:g} s; its process was ended.",
            "Send fewer rows, or raise SAGEMAKER_MODEL_SERVER_TIMEOUT.",
        )

    def _died(self, name: str, connection: ModelConnection) -> ServeError:
        connection.end.close()
        answer, _ = self._control.ask(
            {"do": "exit_reason", "name": name, "pid": connection.pid, "hung": False}
        )
        kind = OutOfMemory if answer["out_of_memory"] else ModelFault
        return kind(
            f"Model {name} died while it answered: {answer['said']}.",
            "It is started again for the next call.",
        )

    def _connection(self, name: str) -> ModelConnection:
        """Take an unused connection to a model, or make one. Raises Refused."""
        unused = self._pool.take(name)
        if unused is not None:
            return unused
        self._pool.sweep()
        answer, descriptor = self._control.ask({"do": "connect", "name": name})
        assert descriptor is not None
        facts = answer["pid"], answer["scripted"], self._timeout, answer["place"]
        return ModelConnection(descriptor, *facts)


class RemoteModel:
    """One model, in another process."""

    def __init__(self, client: ModelClient, name: str) -> None:
        self._client, self._name = client, name

    def place(self) -> AbstractContextManager[None]:
        return self._client.place(self._name)

    def invoke(self, call: Call, here: bool = False) -> Reply:
        """Answer a call; in the poller (`here`) only after `ModelClient.cheap` said so."""
        return self._client.invoke(self._name, call)

    def transform(self, call: Call, read: Read, duplex: bool) -> None:
        """Take no body bit by bit: it is read whole, and sent to the model's process."""
