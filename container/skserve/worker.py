"""The gunicorn worker: its gthread with a bound on what a slow or silent client can hold.

gunicorn parses, reads and writes. Three things are ours. A new connection waits in the poller, not
in a thread, until it has sent something. A client that stops in the middle of a request or of an
answer loses its connection after a while instead of keeping a thread. And a worker whose
predictions all hang says so and is replaced. `/ping` needs nothing else: `server` gives gthread
more threads than requests can ever be running or waiting (`registry.Slots`).
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import time
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

# Seconds without a byte before a client in the middle of something is given up.
STALL = 20


class Worker(ThreadWorker):  # type: ignore[misc]
    """One process that serves."""

    alive: bool  # gunicorn's, untyped

    def accept(self, listener: Any) -> None:
        """Take a new connection; it gets a thread when its first bytes are there."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                return
            raise
        limit = struct.pack("ll", STALL, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        conn = TConn(self.cfg, client, address, listener.getsockname())
        self.nr_conns += 1
        conn.timeout = time.monotonic() + STALL
        self.pending_conns.append(conn)
        self.poller.register(
            conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn)
        )

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
