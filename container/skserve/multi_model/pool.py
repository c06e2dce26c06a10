"""The connections of one worker to the processes of models, kept for the next call."""

from __future__ import annotations

import socket
import threading
import time

from skserve.multi_model import protocol
from skserve.region import NO_MODEL

# Unused connections to one model that a worker keeps.
SPARE = 8

# Seconds of waiting beyond which an answer was not cheap, whatever the model's process says of it.
QUICK = 0.02


class ModelConnection:
    """A connection to the process `pid` of a model; one with a script is sent the headers."""

    def __init__(
        self, descriptor: int, pid: int, scripted: bool, timeout: float, place: int = NO_MODEL
    ) -> None:
        self.end, self.pid, self.scripted = socket.socket(fileno=descriptor), pid, scripted
        self.place = place  # of the model, among those that are counted apart
        self.cheap: set[int] = set()  # sizes of body, as `int.bit_length` says them
        protocol.give_up_after(self.end, timeout)

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


class ConnectionPool:
    """The unused connections to each model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # the poller and all threads take connections here
        self._free: dict[str, list[ModelConnection]] = {}
        self._swept = time.monotonic()

    def cheap(self, name: str, size: int) -> bool:
        """Whether the poller may call a model with `size` bytes, and wait for its answer."""
        with self._lock:
            free = self._free.get(name)
            return size.bit_length() in free[-1].cheap if free else False

    def take(self, name: str) -> ModelConnection | None:
        """Return a connection to a model, if one is unused."""
        with self._lock:
            free = self._free.get(name)
            return free.pop() if free else None

    def keep(self, name: str, connection: ModelConnection) -> None:
        with self._lock:
            free = self._free.setdefault(name, [])
            if len(free) < SPARE:
                free.append(connection)
                return
        connection.end.close()

    def drop(self, name: str, ended: ModelConnection) -> None:
        """Close a connection that has ended, and with it all others to that process."""
        with self._lock:
            free = self._free.pop(name, [])
            kept = [connection for connection in free if connection.pid != ended.pid]
            if kept:
                self._free[name] = kept
        for connection in {ended, *free}.difference(kept):
            connection.end.close()

    def sweep(self) -> None:
        """Close the connections of models that are gone, at most once a second."""
        with self._lock:
            if time.monotonic() - self._swept < 1:
                return
            self._swept = time.monotonic()
            for name, free in list(self._free.items()):
                for connection in [connection for connection in free if connection.ended()]:
                    free.remove(connection)
                    connection.end.close()
                if not free:
                    del self._free[name]
