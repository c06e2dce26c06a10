"""What a worker sees of the models: the registry of the multi-model mode.

Which models are loaded is known to the zygote alone, so every worker gives the same answers. A call
goes to its model's process directly, on a line of which a worker keeps a few for each model.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from skserve import telemetry
from skserve.config import MIB, Config
from skserve.errors import ModelFault, OutOfMemory, Overloaded, Refused, ServeError, TimedOut, quote
from skserve.formats import frames
from skserve.formats.chunks import Read
from skserve.inference.calls import Call, Reply
from skserve.multi_model import protocol
from skserve.multi_model.protocol import Message

# Seconds beyond the timeout of a request that its answer may be late: the model's process keeps
# the time itself, unless it never lets go of Python's lock.
GRACE = 5

# Seconds that a worker looks for the zygote, which is started again where it has died.
SEARCH = 10

# How often a call is offered to a model whose process ended before it had taken the whole of it,
# and the seconds in which the zygote may notice that end.
OFFERS, NOTICE = 5, 0.02

# Unused connections to one model that a worker keeps.
SPARE_LINES = 8

# Seconds of waiting beyond which an answer was not cheap, whatever the model's process says of it.
QUICK = 0.02

# Facts and stages of one call that a model's process may add to its line in the log.
FACTS = 50

_SAFE = frozenset({"describe", "list", "connect", "exit_reason"})  # to ask twice


class _Lost(Exception):
    """The zygote died before it answered."""


class _Line:
    """A line to the process `pid` of a model; only one with a script is sent the headers."""

    def __init__(
        self, descriptor: int, pid: int, scripted: bool, timeout: float, place: int | None = None
    ) -> None:
        self.end, self.pid, self.scripted = socket.socket(fileno=descriptor), pid, scripted
        self.place = place  # of the model, among those that are counted apart
        self.cheap: set[int] = set()  # sizes of body, as `int.bit_length` says them
        _give_up_after(self.end, timeout)

    def learn(self, size: int, seconds: float, said: bool) -> None:
        """Learn from an answer to a body of `size` bytes: what the model's process says of its
        cost is believed as long as the wait for it does not show otherwise.
        """
        if said and seconds < QUICK:
            self.cheap.add(size.bit_length())
        else:
            self.cheap.discard(size.bit_length())

    def ended(self) -> bool:
        try:
            return not self.end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


class ModelClient:
    """The models of the container. Make it after the fork; `control` leads to the zygote."""

    def __init__(self, control: socket.socket, config: Config, places: int) -> None:
        self._control = control
        self._timeout = config.timeout + GRACE
        self._largest = max(config.machine.memory // 8, 64 * MIB)
        self._each = (config.threads or 2) + config.queue
        self._free, self._held = places, Counter[str]()
        self._lock = threading.Lock()
        self._channels: list[socket.socket] = []
        self._lines: dict[str, list[_Line]] = {}
        self._swept = time.monotonic()

    def ready(self) -> bool:
        """Models may be loaded at any time, so there is nothing to wait for."""
        return True

    def load(self, name: str, url: str) -> None:
        """Load a model; its next call succeeds. Raises Refused."""
        self._ask({"do": "load", "name": name, "url": url})

    def unload(self, name: str) -> None:
        """Let a model answer what it has, and end its process. Raises Refused."""
        self._ask({"do": "unload", "name": name})

    def url(self, name: str) -> str:
        """Return where a model was loaded from. Raises Refused."""
        answer, _ = self._ask({"do": "describe", "name": name})
        return str(answer["models"][0][1])

    def page(self, after: str | None, limit: int) -> tuple[list[list[str]], bool]:
        """Return the names and urls of at most `limit` models, and whether more follow.

        They are in order of name; `after` is the one that the page before ended with.
        """
        answer, _ = self._ask({"do": "list", "after": after, "limit": limit})
        return answer["models"], answer["more"]

    def cheap(self, name: str, size: int) -> bool:
        """Whether the poller may call a model with `size` bytes, and wait for its answer."""
        with self._lock:
            free = self._lines.get(name)
            return size.bit_length() in free[-1].cheap if free else False

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

    def invoke(self, name: str, call: Call) -> Reply:
        """Let a model answer one call. Raises ServeError."""
        record = telemetry.current()
        head: Message = {
            "id": record.request_id if record else "",
            "content_type": call.content_type,
            "accept": call.accept,
            "attributes": call.attributes,
        }
        for _ in range(OFFERS):
            line = self._line(name)
            if record is not None:
                record.model = line.place
            head["headers"] = dict(call.headers) if line.scripted else {}
            try:
                frames.send_frame(line.end, head, call.body)
            except (BrokenPipeError, ConnectionResetError):
                self._let_go(
                    name, line
                )  # the whole call did not get through, so no model answered it
                time.sleep(NOTICE)
                continue
            except BlockingIOError:
                raise self._hung(name, line) from None
            return self._answer(name, line, record, len(call.body))
        raise Overloaded(f"Model {name} ends as fast as it is started.", "Try again in a second.")

    def _answer(self, name: str, line: _Line, record: telemetry.Record | None, size: int) -> Reply:
        """Wait for the answer to a call of `size` bytes."""
        began = time.perf_counter()
        try:
            frame = frames.receive_frame(line.end, self._largest)
        except BlockingIOError:
            raise self._hung(name, line) from None
        except (EOFError, ConnectionResetError):
            frame = None
        except ValueError as error:
            line.end.close()
            raise ModelFault(
                f"What model {name} answered cannot be passed on: {quote(error)}."
            ) from error
        if frame is None:
            raise self._died(name, line)
        line.learn(size, time.perf_counter() - began, frame[0].get("cheap") is True)
        try:
            reply = _reply(*frame, record)
            whole = frame[0]["whole"] is True
        except ServeError:
            self._keep(name, line)
            raise
        except Exception as error:  # it may be anything
            line.end.close()
            raise ModelFault(
                f"What model {name} answered is no reply: {quote(repr(error)[:200])}."
            ) from error
        if whole:
            self._keep(name, line)
            return reply
        return replace(reply, body=self._parts(name, line))

    def _parts(self, name: str, line: _Line) -> Iterator[bytes]:
        """Yield a body in parts as they come. Raises ModelFault where they break off."""
        try:
            yield from frames.receive_parts(line.end, self._largest)
        except BaseException as error:
            line.end.close()
            if isinstance(error, EOFError | OSError):
                raise ModelFault(f"What model {name} answered broke off.") from error
            raise
        self._keep(name, line)

    def _hung(self, name: str, line: _Line) -> ServeError:
        line.end.close()
        self._ask({"do": "exit_reason", "name": name, "pid": line.pid, "hung": True})
        return TimedOut(
            f"Model {name} did not answer within {self._timeout:g} s; its process was ended.",
            "Send fewer rows, or raise SAGEMAKER_MODEL_SERVER_TIMEOUT.",
        )

    def _died(self, name: str, line: _Line) -> ServeError:
        line.end.close()
        answer, _ = self._ask({"do": "exit_reason", "name": name, "pid": line.pid, "hung": False})
        kind = OutOfMemory if answer["starved"] else ModelFault
        return kind(
            f"Model {name} died while it answered: {answer['said']}.",
            "It is started again for the next call.",
        )

    def _line(self, name: str) -> _Line:
        """Take a free line to a model, or make one. Raises Refused."""
        with self._lock:
            free = self._lines.get(name)
            if free:
                return free.pop()
        self._sweep()
        answer, descriptor = self._ask({"do": "connect", "name": name})
        assert descriptor is not None
        facts = answer["pid"], answer["scripted"], self._timeout, answer["place"]
        return _Line(descriptor, *facts)

    def _keep(self, name: str, line: _Line) -> None:
        with self._lock:
            free = self._lines.setdefault(name, [])
            if len(free) < SPARE_LINES:
                free.append(line)
                return
        line.end.close()

    def _let_go(self, name: str, ended: _Line) -> None:
        """Close a line that has ended, and with it all others to that process."""
        with self._lock:
            free = self._lines.pop(name, [])
            kept = [line for line in free if line.pid != ended.pid]
            if kept:
                self._lines[name] = kept
        for line in {ended, *free}.difference(kept):
            line.end.close()

    def _sweep(self) -> None:
        """Close the lines of models that are gone, at most once a second."""
        with self._lock:
            if time.monotonic() - self._swept < 1:
                return
            self._swept = time.monotonic()
            for name, free in list(self._lines.items()):
                for line in [line for line in free if line.ended()]:
                    free.remove(line)
                    line.end.close()
                if not free:
                    del self._lines[name]

    def _ask(self, message: Message) -> tuple[Message, int | None]:
        """Ask the zygote; return what it answers, and a descriptor if it gave one.

        Raises Refused where it refuses, or died before it answered what cannot be asked twice.
        """
        deadline = time.monotonic() + SEARCH
        while True:
            try:
                answer, descriptor = self._exchange(message)
                break
            except _Lost:
                if message["do"] not in _SAFE or time.monotonic() > deadline:
                    raise Refused(
                        503,
                        "The process that holds the models died; it is started again. "
                        "GET /models says what is loaded.",
                    ) from None
                time.sleep(0.05)
        if answer["status"] != 200:
            raise Refused(answer["status"], answer["message"])
        return answer, descriptor

    def _exchange(self, message: Message) -> tuple[Message, int | None]:
        channel = self._channel(message)
        try:
            heard = protocol.hear(channel)
        except BlockingIOError:
            channel.close()
            raise TimedOut("The model was not ready in time.", "Try again in a second.") from None
        except OSError:
            heard = None
        if heard is None:
            channel.close()
            raise _Lost
        with self._lock:
            self._channels.append(channel)
        answer, descriptors = heard
        return answer, descriptors[0] if descriptors else None

    def _channel(self, message: Message) -> socket.socket:
        """Return the channel on which `message` is on its way: a free one, or a new one."""
        while True:
            with self._lock:
                channel = self._channels.pop() if self._channels else None
            if channel is None:
                break
            # Loading and unloading take as long as the zygote lets them.
            _give_up_after(channel, 0 if message["do"] in ("load", "unload") else self._timeout)
            try:
                protocol.tell(channel, message)
                return channel
            except OSError:
                channel.close()
        channel, theirs = protocol.channel()
        with theirs:
            socket.send_fds(self._control, [b"?"], [theirs.fileno()])
        with self._lock:
            self._channels.append(channel)
        return self._channel(message)


class RemoteModel:
    """One model, in another process."""

    def __init__(self, fleet: ModelClient, name: str) -> None:
        self._fleet, self._name = fleet, name

    def place(self) -> AbstractContextManager[None]:
        return self._fleet.place(self._name)

    def invoke(self, call: Call, here: bool = False) -> Reply:
        """Answer a call; in the poller (`here`) only after `ModelClient.cheap` said so."""
        return self._fleet.invoke(self._name, call)

    def transform(self, call: Call, read: Read, duplex: bool) -> None:
        """Take no body bit by bit: it is read whole, and sent to the model's process."""


def _give_up_after(end: socket.socket, seconds: float) -> None:
    """Limit the time of each step on a socket; 0 is without limit."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


class _Relayed(ServeError):
    """What a model's process says went wrong; its own log has the traceback."""

    def __init__(self, status: int, code: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.status, self.code = status, code


def _reply(head: Message, body: bytes, record: telemetry.Record | None) -> Reply:
    """Make a reply of a frame. Raises whatever reading one raises for what is none."""
    if record is not None:
        _count(head, record)
    if "error" in head:
        error = head["error"]
        code, message, hint = (str(error[key]) for key in ("code", "message", "hint"))
        relayed = _Relayed(_status(error["status"], 400), code, message, hint)
        relayed.reason = str(error["reason"])
        raise relayed
    headers = {str(name): str(text) for name, text in head["headers"].items()}
    return Reply(body, str(head["media_type"]), _status(head["status"], 200), headers)


def _count(head: Message, record: telemetry.Record) -> None:
    """Take over what a model's process counted. Raises ValueError for what nothing can count to.

    No stage took longer than the whole call, whatever is said.
    """
    stages, facts = (islice(head[key].items(), FACTS) for key in ("stages", "facts"))
    longest = time.perf_counter() - record.began
    for name, seconds in stages:
        if (took := float(seconds)) != took:
            raise ValueError("a stage of no length")
        record.stages[_name(name)] = min(max(took, 0.0), longest)
    record.facts.update({_name(name): _plain(fact) for name, fact in facts})
    _whole(record.facts.get("rows", 0))
    record.predictions = _whole(head.get("predictions", 0))
    if (cells := head.get("cells")) is not None:
        missing, unseen, outside = map(_whole, cells)
        record.cells = [[missing], [unseen], [outside]]


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise ValueError(f"a count of {value!r:.50}")
    return value


def _status(value: Any, lowest: int) -> int:
    if not isinstance(value, int) or not lowest <= value <= 599:
        raise ValueError(f"a status of {value!r:.50}")
    return value


def _plain(fact: Any) -> Any:
    return fact if isinstance(fact, int | float) else _word(fact)


def _name(said: Any) -> str:
    """Return a name for a line of the log, in which it can be taken for no other fact."""
    return "_".join(re.findall(r"\w+", str(said)[:50]))


def _word(said: Any) -> str:
    """Return what a model's process says without what would break a line of the log."""
    return " ".join(str(said)[:200].split())
