"""The listening sockets of a worker, and its share of the new connections.

A new connection is left to the worker that holds the fewest, if that one comes for it at once.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Sequence

from skserve.serving.balancer import Balancer

# Seconds for which a new connection is left to a worker that holds fewer.
PATIENCE = 0.01

# New connections that are taken before the others are looked at again.
ACCEPTS = 16

Take = Callable[[socket.socket, tuple[str, int], tuple[str, int]], None]


class Listeners:
    """Accepts connections; `take` gets each with the addresses of both ends."""

    def __init__(
        self, sockets: Sequence[socket.socket], balancer: Balancer, place: int | None, take: Take
    ) -> None:
        self._sockets = {listener.fileno(): listener for listener in sockets}
        self._balancer, self._place, self._take_over = balancer, place, take
        self._held = 0
        self._left_since, self._share = 0.0, 1
        self.open = False  # connections are accepted just now
        for listener in sockets:
            listener.setblocking(False)

    @property
    def held(self) -> int:
        """The connections of this worker; the others see it too."""
        return self._held

    @held.setter
    def held(self, count: int) -> None:
        self._held = count
        if self.open:
            self._balancer.say(self._place, count)

    def switch(self, epoll: select.epoll, on: bool) -> None:
        """Accept connections from now on, or no more."""
        if on == self.open:
            return
        self.open = on
        for descriptor in self._sockets:
            if on:
                epoll.register(descriptor, select.EPOLLIN)
            else:
                epoll.unregister(descriptor)
        self._balancer.say(self._place, self._held if on else Balancer.ABSENT)

    def accept(self, descriptor: int) -> None:
        """Take new connections, or leave them to a worker that has less to do; see `Balancer`.

        Nothing happens for the descriptor of a connection: what was seen of it is past, because it
        has been handed to a thread or closed while the poller answered another.
        """
        listener = self._sockets.get(descriptor)
        if listener is None:
            return
        for _ in range(ACCEPTS):
            if self._balancer.others_first(self._place):
                break
            if not self._take(listener):
                return
        else:
            return
        now = time.monotonic()
        if now - self._left_since > 2 * PATIENCE:  # the last one that was left is long gone
            self._left_since, self._share = now, 1
        elif now - self._left_since > PATIENCE:  # the others are busy
            for _ in range(self._share):
                if not self._take(listener):
                    break
            self._left_since, self._share = now, 2 * self._share
        else:
            os.sched_yield()  # the poller comes back here at once

    def close(self, epoll: select.epoll) -> None:
        """Take what is queued already, whatever the others hold, and listen no more."""
        for listener in self._sockets.values():
            while self._take(listener):
                pass
        self.switch(epoll, False)
        for listener in self._sockets.values():
            listener.close()

    def _take(self, listener: socket.socket) -> bool:
        """Take a new connection, if there is one; return whether there was."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno == errno.ECONNABORTED:
                return True  # that one has left; the next may be there
            if error.errno != errno.EAGAIN:
                time.sleep(PATIENCE)  # no descriptor is left: the poller would spin
            return False
        client.setblocking(False)
        self._take_over(client, address, listener.getsockname())
        return True
