"""The thread that polls all connections of a worker.

It accepts, reads heads and small bodies, and answers what `Inline` says. All other requests go to
threads, as does the rest of an answer that the client does not take at once.

- Where there are as many connections as may be, a new one takes the place of the one that has
  waited longest for a request.
- A client that stops in the middle of a request loses its connection after a while.
- After the last answer on a connection, what the client still sends is thrown away for a while, so
  that it can read that answer.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile

from skserve import logs
from skserve.serving.balancer import Balancer
from skserve.serving.client_socket import STALL
from skserve.serving.clients import Address, Client, Clients
from skserve.serving.connection import Next
from skserve.serving.head import Refusal, Request
from skserve.serving.inline import Handler, Inline
from skserve.serving.listeners import Listeners
from skserve.serving.responses import Answer
from skserve.serving.sizing import Limits
from skserve.serving.standby import Standby
from skserve.serving.threads import Threads
from skserve.serving.wsgi import Application

log = logging.getLogger("skserve")

# Bytes that are read from a connection at once.
PIECE = 64 << 10

_LATE = Refusal(
    408, "request_timeout", f"The request was not whole within {STALL} s.", "Send it again."
)


class Poller:
    """Polls the connections of a worker. One lock guards all of it; see `Standby`.

    `wake` are the two ends of a pipe: what is written to it ends a wait.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        balancer: Balancer,
        place: int | None,
        wake: Sequence[int],
        limits: Limits,
        inline: Inline,
        application: Application,
    ) -> None:
        self._limits, self._inline = limits, inline
        self._woken, waker = wake
        self._cold = partial(balancer.cold, place)
        self._listeners = Listeners(listeners, balancer, place, self._take)
        self._threads = Threads(
            limits.threads, application, limits.body_timeout, waker, lambda: self._stopping
        )
        self._clients = Clients(self._woken, limits.keep_alive)
        self._pipelined: deque[Client] = deque()
        self._standby = Standby(self._stand_in)
        self._stopping = False

    @property
    def held(self) -> int:
        """The connections of this worker, in the poller and in threads."""
        return self._listeners.held

    def start(self) -> None:
        """Make the calling thread the one that polls, by `turn`."""
        self._standby.start()
        self._listeners.switch(self._clients.first, not self._cold())

    def turn(self, seconds: float) -> None:
        """Wait for something to do, for so many seconds at most, and do what there is."""
        ready = self._clients.ready(0 if self._pipelined else seconds)
        if self._standby.polls:  # until the poller is back: for that the rest is ready again
            ready = takewhile(self._standby.wanted, ready)
        for descriptor in ready:
            client = self._clients.get(descriptor)
            if client is not None:
                if not client.pipelined:  # else its requests are answered in turn
                    self._readable(client)
            elif descriptor == self._woken:
                self._finish()
            elif self._listeners.open:
                self._listeners.accept(descriptor)
        for _ in range(len(self._pipelined)):
            if (waiting := self._pipelined.popleft()).pipelined:
                waiting.pipelined = False
                self._look(waiting, waiting.connection.answered())
        logs.flush()
        self._expire()
        if not self._stopping:
            room = self.held < self._limits.connections or self._clients.dispensable() is not None
            self._listeners.switch(self._clients.first, room and not self._cold())

    def stop(self) -> None:
        """Accept what is queued and no more, and let idle connections wait only a little longer."""
        self._stopping = True
        self._listeners.close(self._clients.first)
        self._clients.hurry()

    def close(self) -> None:
        """Leave what still runs behind."""
        for client in self._clients.all():
            self._drop(client)
        self._threads.close()

    def _stand_in(self, client: Client, seconds: float) -> None:
        """Do a turn in the place of the poller, which answers a client."""
        self._clients.leave(client)
        self.turn(seconds)

    def _take(self, client: socket.socket, address: Address, server: Address) -> None:
        """Wait for the first request of a new connection."""
        self._listeners.held += 1
        self._clients.enter(Client(client, address, server, self._limits.body), self._clients.fresh)
        if self.held > self._limits.connections and (idle := self._clients.dispensable()):
            self._drop(idle)

    def _drop(self, client: Client) -> None:
        self._clients.leave(client)
        self._listeners.held -= 1
        client.socket.close()

    def _linger(self, client: Client) -> None:
        """Close our side, and the whole when the client has closed its own or time is up."""
        if not self._clients.linger(client):
            self._drop(client)

    def _expire(self) -> None:
        for client in self._clients.silent():
            self._drop(client)
        for client in self._clients.reading.late(time.monotonic()):
            self._refuse(client, _LATE)

    def _readable(self, client: Client) -> None:
        leaving = client.group is self._clients.leaving
        try:
            said = client.socket.recv(PIECE)
        except BlockingIOError:
            return  # this was seen of another one, with the same descriptor
        except OSError:
            said = b""
        if said and not leaving:
            self._look(client, client.connection.feed(said))
        elif not said and (refusal := None if leaving else client.connection.ended()):
            self._refuse(client, refusal)
        elif not said:
            self._drop(client)

    def _look(self, client: Client, verdict: Next | Refusal) -> None:
        """Answer the request at the front, hand it on, or wait for more of it."""
        if verdict is Next.WAIT:
            if client.group is not self._clients.reading and client.connection.begun:
                self._clients.enter(client, self._clients.reading)
        elif isinstance(verdict, Refusal):
            self._refuse(client, verdict)
        else:
            request, handler = client.connection.request, None
            assert request is not None
            if verdict is Next.WHOLE and not self._standby.polls:
                handler = self._inline.handler(request)
            if handler is not None:
                self._answer(client, request, handler)
                return
            call = self._inline.is_call(request)
            if call and verdict is Next.WHOLE and self._threads.calls >= self._limits.calls:
                self._send(client, request, self._inline.overloaded(request))
            else:
                self._clients.leave(client)
                self._threads.serve(client, call)

    def _refuse(self, client: Client, refusal: Refusal) -> None:
        """Answer what is no request: so few bytes fit into a socket without waiting."""
        answer = self._inline.refused(refusal, client.connection.request)
        with suppress(OSError):
            client.socket.send(answer.write(close=True))
        self._linger(client)

    def _answer(self, client: Client, request: Request, handler: Handler) -> None:
        """Answer here and now, without the lock: the standby may poll meanwhile."""
        answer = None
        self._standby.leave(client)
        try:
            answer = handler(request)
        except Exception:
            log.exception("A request failed in the poller.")
        finally:
            self._standby.come_back()
        if answer is None:
            self._linger(client)
        elif not isinstance(answer.body, bytes):
            self._clients.leave(client)
            self._threads.stream(client, answer)
        else:
            self._send(client, request, answer)

    def _send(self, client: Client, request: Request, answer: Answer) -> None:
        """Send an answer as far as the kernel takes it; a thread sends the rest."""
        keep = request.keep_alive and not self._stopping
        data = answer.write(not keep, request.line.method == "HEAD")
        try:
            sent = client.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        if sent < len(data):
            self._clients.leave(client)
            self._threads.send(client, data[sent:], keep)
        else:
            self._go_on(client, keep)

    def _go_on(self, client: Client, keep: bool) -> None:
        """Keep a connection whose request was answered, or close it."""
        if not keep:
            self._linger(client)
        elif client.connection.more:
            self._clients.enter(client, self._clients.reading)
            client.pipelined = True
            self._pipelined.append(client)  # in turn with the other connections
        else:
            client.connection.answered()
            self._clients.enter(client, self._clients.kept)

    def _finish(self) -> None:
        """Take clients back whose requests were answered in threads."""
        with suppress(BlockingIOError):  # the standby has read it meanwhile
            os.read(self._woken, 1 << 12)
        for _ in range(len(self._threads.done)):
            self._go_on(*self._threads.done.popleft())
