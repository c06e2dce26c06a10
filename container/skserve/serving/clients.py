"""The connections that wait in the poller: for what, since when, and until when."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from itertools import islice
from operator import itemgetter

from skserve.serving.client_socket import STALL
from skserve.serving.connection import Connection

# Seconds that a client has to take its answer after we have closed our side: long enough to send
# the rest of a body that was refused, and so to read why.
LINGER = 5

# Seconds for which a stopping worker still waits for requests on its idle connections.
LAST_REQUESTS = 2

# Connections that are looked at before new ones are again.
FEW = 16

# Idle connections that are looked at where one has to leave.
LOOKS = 8

# Seconds after which a request that is not whole may have to leave its place to a new connection.
SLOW = 1


Address = tuple[str, int]


class Client:
    """One connection, with its socket."""

    __slots__ = ("address", "connection", "group", "pipelined", "server", "socket")

    def __init__(
        self, client: socket.socket, address: Address, server: Address, limit: int
    ) -> None:
        self.socket, self.address, self.server = client, address, server
        self.connection = Connection(limit)
        self.group: Group | None = None
        self.pipelined = False  # another request is in the buffer already


class Group(dict[Client, float]):
    """Clients that wait for the same thing, with the time at which they are given up.

    In the order of that time, because all of them may wait for as long. They are registered with
    `epoll`.
    """

    def __init__(self, epoll: select.epoll, seconds: float) -> None:
        super().__init__()
        self.epoll, self.seconds = epoll, seconds

    def late(self, now: float) -> list[Client]:
        """Return those whose time is up."""
        found = []
        for client, deadline in self.items():
            if deadline > now:
                break
            found.append(client)
        return found

    def shorten(self, seconds: float) -> None:
        """Give up those that wait, and all that come, after so many seconds at the latest."""
        self.seconds = min(self.seconds, seconds)
        last = time.monotonic() + seconds
        self.update({client: min(deadline, last) for client, deadline in self.items()})


class Clients:
    """All that wait, each in one group, and what `woken` and listening sockets say.

    `fresh` wait for their first request, `kept` for the next one, `reading` for the rest of one,
    `leaving` until their clients have closed. Listeners are registered with `first`, as `fresh` is.
    """

    def __init__(self, woken: int, keep_alive: float) -> None:
        self._epoll, self.first = select.epoll(), select.epoll()
        self._epoll.register(self.first, select.EPOLLIN)
        self._epoll.register(woken, select.EPOLLIN)
        self._by_descriptor: dict[int, Client] = {}
        self.fresh, self.kept = Group(self.first, STALL), Group(self._epoll, keep_alive)
        self.reading, self.leaving = Group(self._epoll, STALL), Group(self._epoll, LINGER)

    def ready(self, seconds: float) -> Iterator[int]:
        """Wait for so many seconds at most, and yield the descriptors that have something to read.

        After every FEW of them come those of `first`, as they are then: a new connection, with
        /ping on it, does not wait until all others are answered.
        """
        first = self.first.fileno()
        for number, (descriptor, _) in enumerate(self._epoll.poll(seconds), 1):
            if descriptor != first:
                yield descriptor
            if descriptor == first or number % FEW == 0:
                for new, _ in self.first.poll(0, FEW):
                    yield new

    def get(self, descriptor: int) -> Client | None:
        return self._by_descriptor.get(descriptor)

    def all(self) -> list[Client]:
        return list(self._by_descriptor.values())

    def enter(self, client: Client, group: Group) -> None:
        """Let a client wait in a group, as its last."""
        before = client.group
        if before is None:
            self._by_descriptor[client.socket.fileno()] = client
        else:
            del before[client]
        if before is None or before.epoll is not group.epoll:
            group.epoll.register(client.socket, select.EPOLLIN)
            if before is not None:
                before.epoll.unregister(client.socket)
        client.group, client.pipelined = group, False
        group[client] = time.monotonic() + group.seconds

    def leave(self, client: Client) -> None:
        """Take a client out, if it waits here."""
        if client.group is not None:
            del client.group[client]
            del self._by_descriptor[client.socket.fileno()]
            client.group.epoll.unregister(client.socket)
            client.group, client.pipelined = None, False

    def linger(self, client: Client) -> bool:
        """Close our side of a connection; return whether the client may still have its own open."""
        try:
            client.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        self.enter(client, self.leaving)
        return True

    def silent(self) -> list[Client]:
        """Return those whose time is up and that are in the middle of nothing."""
        groups, now = (self.fresh, self.kept, self.leaving), time.monotonic()
        return [client for group in groups for client in group.late(now)]

    def hurry(self) -> None:
        """Let idle connections wait only a little longer."""
        self.fresh.shorten(LAST_REQUESTS)
        self.kept.shorten(LAST_REQUESTS)

    def dispensable(self) -> Client | None:
        """Return who may have to leave for a new connection: who has waited longest for a request.

        Where none is idle, that is who has been longest in the middle of one.
        """
        idle = [
            (deadline - group.seconds, client)
            for group in (self.kept, self.fresh)
            for client, deadline in islice(group.items(), LOOKS)
        ]
        idle.sort(key=itemgetter(0))
        for _, client in idle:
            if _silent(client.socket):
                return client
        for client, deadline in islice(self.reading.items(), 1):
            if deadline - self.reading.seconds < time.monotonic() - SLOW:
                return client
        return None


def _silent(client: socket.socket) -> bool:
    """Whether nothing has come from a client that was not read."""
    try:
        client.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
