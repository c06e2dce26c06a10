"""The gunicorn worker: its gthread with a bound on what slow and silent clients can hold.

gunicorn parses, reads and writes. Ours is what happens around that, so that no client holds a
thread, or the poller, without a complete request in a place of its own (`bounds.Slots`):

- a connection waits in the poller until the head of its request is there, or is too long;
- a client that stops in the middle of a body or of an answer loses its connection after a while;
- a connection is closed by the poller too, which throws away what a refused client still sends;
- a worker whose predictions all hang says so and is replaced.

`/ping` needs nothing else, because there are more threads than places.

All this overrides methods of gunicorn's gthread worker that are its own business and may change in
any release, so requirements pin gunicorn to exactly one; read them again before raising the pin.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.workers.gthread import TConn, ThreadWorker

# Seconds without a byte before a client in the middle of something is given up.
STALL = 20

# Seconds that a client has to take its answer after we have closed our side: long enough to send
# the rest of a body that was refused, and so to read why.
LINGER = 5

# Bytes in which a head must end.
HEAD_LIMIT = 64 << 10

_HEAD_END = b"\r\n\r\n"
_REFUSAL = (
    b'{"error":{"code":"head_too_large","message":"The head of the request has more than %d bytes.'
    b'","hint":"Send fewer or shorter headers."}}' % HEAD_LIMIT
)
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_REFUSAL), _REFUSAL)
)


class Master(Arbiter):  # type: ignore[misc]
    """gunicorn's master, which stops only once where several workers fail to start."""

    _halting = False

    def reap_workers(self) -> None:
        try:
            super().reap_workers()
        except HaltServer:
            if not self._halting:
                self._halting = True
                raise


class Connection(TConn):  # type: ignore[misc]
    """gunicorn's connection, which leaves its slow farewell to `linger`."""

    seen = 0  # bytes of an incomplete head, as of the last look
    linger: Callable[[socket.socket], None]

    def close(self, graceful: bool = False) -> None:
        if graceful:
            self.linger(self.sock)
        else:
            super().close()


class Worker(ThreadWorker):  # type: ignore[misc]
    """One process that serves."""

    alive: bool  # gunicorn's, untyped

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.leaving: deque[tuple[float, socket.socket]] = deque()

    def accept(self, listener: Any) -> None:
        """Take a new connection; it gets a thread when a head is there."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                return
            raise
        limit = struct.pack("ll", STALL, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        conn = Connection(self.cfg, client, address, listener.getsockname())
        conn.linger = self._linger
        conn.timeout = time.monotonic() + STALL
        self.nr_conns += 1
        self.pending_conns.append(conn)
        self.poller.register(
            conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn)
        )

    def on_pending_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        if self._has_head(conn, self.pending_conns):
            super().on_pending_socket_readable(conn, client)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        if self._has_head(conn, self.keepalived_conns):
            super().on_client_socket_readable(conn, client)

    def _has_head(self, conn: Connection, waiting: deque[Connection]) -> bool:
        """Whether gunicorn can read the head of a request without waiting for more of it.

        If not, the kernel is told to wake us when there is more than we have seen. A head that has
        not grown has ended; one that grows beyond the limit is refused here, without a thread.
        """
        try:
            head = conn.sock.recv(HEAD_LIMIT, socket.MSG_PEEK)
        except OSError:
            return True
        complete = _HEAD_END in head or len(head) in (0, conn.seen)
        too_long = not complete and len(head) == HEAD_LIMIT
        before, conn.seen = conn.seen, 0 if complete or too_long else len(head)
        if conn.seen != before:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, conn.seen + 1)
        if too_long:
            self._refuse(conn, waiting)
        return complete

    def _refuse(self, conn: Connection, waiting: deque[Connection]) -> None:
        """Answer from the poller: so few bytes fit into an empty socket without waiting."""
        self.poller.unregister(conn.sock)
        waiting.remove(conn)
        self.nr_conns -= 1
        with suppress(OSError):
            conn.sock.send(_TOO_LONG)
        conn.close(graceful=True)

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Keep the connection if the body was read, or is here to be thrown away; else close it."""
        return keepalive and bool(conn.parser.finish_body(deadline=time.monotonic() + 0.02))

    def _linger(self, client: socket.socket) -> None:
        """Close our side, and the whole when the client has closed its own or time is up."""
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            client.close()  # it is gone already
            return
        client.setblocking(False)
        self.nr_conns += 1
        self.leaving.append((time.monotonic() + LINGER, client))
        self.poller.register(client, selectors.EVENT_READ, self._throw_away)

    def _throw_away(self, client: socket.socket) -> None:
        try:
            over = not client.recv(1 << 20)
        except BlockingIOError:
            over = False
        except OSError:
            over = True
        if over:
            self.poller.unregister(client)
            client.close()

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        while self.leaving and (self.leaving[0][0] < now or self.leaving[0][1].fileno() < 0):
            _, client = self.leaving.popleft()
            self.nr_conns -= 1
            if client.fileno() >= 0:
                self.poller.unregister(client)
                client.close()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Before a stopping worker closes its door, let in whoever already stands there."""
        stopping = not enabled and not self.alive and self._accepting
        if stopping:
            for listener in self.sockets:
                known = -1
                while known != self.nr_conns:
                    known = self.nr_conns
                    self.accept(listener)
        super().set_accept_enabled(enabled)
        if stopping:
            for listener in self.sockets:
                listener.close()

    def _cap_keepalive(self, deadline: float) -> None:
        """Wait for connections that never said anything no longer than for kept-alive ones."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def notify(self) -> None:
        super().notify()
        if self.alive and self.app.hung():
            self.log.error("Every prediction of this worker hangs; it is replaced.")
            self.alive = False
