"""A client's socket for a thread that answers it, and how long the thread waits for the client."""

from __future__ import annotations

import select
import socket
import sys
import time

# Seconds without a byte before a client in the middle of something is given up.
STALL = 20

# Seconds that a body may take in any case, and the bytes of it that earn a second more.
GRACE, RATE = 5, 1000

# Bytes that are read at once.
PIECE = 256 << 10


class Patience:
    """How long a thread waits for a client, over all the times that it has to.

    `grace` seconds, and one more for each RATE bytes that have passed, but no more than `most`.
    """

    def __init__(self, grace: float, most: float) -> None:
        self._grace, self._most = grace, most
        self.renew()

    def renew(self) -> None:
        """Count anew."""
        self._waited, self._bytes = 0.0, 0

    def passed(self, count: int) -> None:
        self._bytes += count

    def wait(self, client: socket.socket, event: int) -> None:
        """Wait until the socket is ready. Raises TimeoutError."""
        left = min(self._most, self._grace + self._bytes / RATE) - self._waited
        poller = select.poll()
        poller.register(client, event)
        began = time.monotonic()
        ready = poller.poll(max(0.0, min(left, STALL)) * 1000)
        self._waited += time.monotonic() - began
        if not ready:
            raise TimeoutError("the client is too slow")


class ClientSocket:
    """A client's socket, which never blocks, for a thread that may wait for it."""

    def __init__(self, client: socket.socket, timeout: float) -> None:
        self._client = client
        self.reading = Patience(GRACE, timeout)
        self._writing = Patience(STALL, sys.maxsize)

    def receive(self) -> bytes:
        """Return what has come; nothing where the client has ended. Raises OSError."""
        while True:
            said = self.waiting()
            if said is not None:
                return said
            self.reading.wait(self._client, select.POLLIN)

    def waiting(self) -> bytes | None:
        """Return what is there already, if anything is. Raises OSError."""
        try:
            said = self._client.recv(PIECE)
        except BlockingIOError:
            return None
        self.reading.passed(len(said))
        return said

    def send(self, data: bytes) -> None:
        """Send it all. Raises OSError."""
        left = memoryview(data)
        while left:
            try:
                sent = self._client.send(left)
            except BlockingIOError:
                self._writing.wait(self._client, select.POLLOUT)
                continue
            self._writing.passed(sent)
            left = left[sent:]
