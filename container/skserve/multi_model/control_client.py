"""A worker's questions to the zygote, on channels of its own."""

from __future__ import annotations

import socket
import threading
import time

from skserve.errors import Refused, TimedOut
from skserve.multi_model import protocol
from skserve.multi_model.protocol import Message

# Seconds that a worker looks for the zygote, which is started again where it has died.
SEARCH = 10

_SAFE = frozenset({"describe", "list", "connect", "exit_reason"})  # to ask twice


class _Lost(Exception):
    """The zygote died before it answered."""


class ControlClient:
    """Asks over `control`, which leads to the zygote, one thing at a time on each channel.

    An answer may take `timeout` seconds, but for loading and unloading.
    """

    def __init__(self, control: socket.socket, timeout: float) -> None:
        self._control, self._timeout = control, timeout
        self._lock = threading.Lock()
        self._channels: list[socket.socket] = []  # of which no answer is awaited

    def ask(self, message: Message) -> tuple[Message, int | None]:
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
            protocol.give_up_after(
                channel, 0 if message["do"] in ("load", "unload") else self._timeout
            )
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
