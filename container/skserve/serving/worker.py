"""The gunicorn worker: its gthread, whose poller waits for requests and answers the cheap ones.

gunicorn parses, reads and writes. Ours is what happens around that, so that no client holds a
thread, or the poller, without a request in a place of its own (`bounds.Slots`):

- a connection waits in the poller until the head of its request is there, and the body too where it
  is small; a head that is too long is refused;
- a whole request whose answer is known to be cheap is answered by the poller itself: to hand it to
  a thread costs more than the answer. What the kernel does not take of it at once, a thread sends;
  where the answer takes long for once, a deputy polls meanwhile;
- a new connection is left to the worker that holds the fewest, if that one comes for it at once;
- everything else gets a thread, and there are more threads than places, so `/ping` never waits;
- a client that stops in the middle of a body or of an answer loses its connection after a while;
- a connection is closed by the poller too, which throws away what a refused client still sends;
- a worker whose predictions all hang says so and is replaced.

All this overrides methods of gunicorn's gthread worker that are its own business and may change in
any release, so requirements pin gunicorn to exactly one; read them again before raising the pin.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

from gunicorn import http
from gunicorn.http import wsgi
from gunicorn.http.body import LengthReader
from gunicorn.util import http_date
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from skserve.scheduling.costs import SMALL
from skserve.serving.app import HERE
from skserve.serving.arbiter import ENDINGS
from skserve.serving.balancer import Balancer

# Seconds without a byte before a client in the middle of something is given up.
STALL = 20

# Seconds that a client has to take its answer after we have closed our side: long enough to send
# the rest of a body that was refused, and so to read why.
LINGER = 5

# Seconds for which a new connection is left to a worker that holds fewer.
PATIENCE = 0.01

# Seconds for which the poller is away with one answer before a deputy polls in its place.
AWAY = 0.1

# New connections that are taken before the others are looked at again.
ACCEPTS = 16

# Bytes in which a head must end, and in a body that the poller waits for.
HEAD_LIMIT, BODY_LIMIT = 64 << 10, SMALL


_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_FOR_A_THREAD = (
    b"\r\ntransfer-encoding",  # its end is only known once it is parsed
    b"\r\nexpect",  # wants an answer before the body
    b"\r\ncontent-encoding",  # may unpack to anything
)
_REFUSAL = (
    b'{"error":{"code":"head_too_large","message":"The head of the request has more than %d bytes.'
    b'","hint":"Send fewer or shorter headers."}}' % HEAD_LIMIT
)
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_REFUSAL), _REFUSAL)
)


class Connection(TConn):  # type: ignore[misc]
    """gunicorn's connection, with what the poller has read of its next request."""

    parser: Any  # gunicorn's, untyped
    buffer = b""
    searched = 0  # bytes of the buffer in which no head ends
    behind = False  # the buffer may hold a whole request already: look before reading more
    used = False  # since it last came to the front of the kept-alive ones
    waiting: Any = None  # the deque of those that wait in the poller, while it is one of them
    linger: Callable[[socket.socket], None]

    def init(self) -> None:
        if self.parser is None:
            self.initialized = True
            self.parser = http.get_parser(self.cfg, self.sock, self.client)

    def close(self, graceful: bool = False) -> None:
        """Close at once, or leave the slow farewell to `linger`."""
        if graceful:
            self.linger(self.sock)
        else:
            super().close()


class Outbox:
    """Stands for a socket while the poller answers: keeps what the kernel does not take at once."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self.rest = b""

    def sendall(self, data: bytes) -> None:
        if not self.rest:
            with suppress(BlockingIOError):
                data = data[self._client.send(data) :]
        self.rest += data

    def fileno(self) -> int:
        return self._client.fileno()

    def setblocking(self, flag: bool) -> None:
        """Do nothing: it never blocks."""

    def gettimeout(self) -> float:
        return 0.0


class Response(wsgi.Response):  # type: ignore[misc]
    """gunicorn's response, which sends a head and a short body in one piece."""

    headers_sent: bool  # gunicorn's, untyped

    def write(self, arg: bytes) -> None:
        size = len(arg)
        whole = size == self.response_length and not (self.headers_sent or self._omits_body)
        if not whole or size > BODY_LIMIT:
            super().write(arg)
            return
        self.headers_sent, self.sent = True, size
        major, minor = self.req.version
        lines = [
            f"HTTP/{major}.{minor} {self.status}",
            f"Server: {self.version}",
            f"Date: {_date(int(time.time()))}",
            f"Connection: {'close' if self.should_close() else 'keep-alive'}",
            *[f"{name}: {value}" for name, value in self.headers],
            "\r\n",
        ]
        self.sock.sendall("\r\n".join(lines).encode("latin-1") + arg)


@lru_cache(1)
def _date(second: int) -> str:
    return str(http_date(second))


class Input:
    """A body of known length, as it comes; gunicorn's own copies each byte three times on its way.

    What it holds is gunicorn's still, so what was not read is thrown away as ever.
    """

    def __init__(self, reader: LengthReader) -> None:
        self._reader = reader

    def read(self, size: int = sys.maxsize) -> bytes:
        """Return what is there, `size` bytes at most; nothing at the end."""
        reader = self._reader
        size = min(size, reader.length)
        part: bytes = reader.unreader.read(None, read_ahead=size) if size else b""
        if len(part) > size:
            reader.unreader.unread(part[size:])
            part = part[:size]
        reader.length -= len(part)
        return part


class Worker(ThreadWorker):  # type: ignore[misc]
    """One process that serves."""

    alive: bool  # gunicorn's, untyped

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._held = 0
        self._place: int | None = None
        super().__init__(*arguments, **named)
        self._place = self.app.balancer.join()
        self._left_since, self._share = 0.0, 1
        self.leaving: dict[socket.socket, float] = {}  # until when, in the order of that
        self._notified = 0.0
        self._turn = threading.Lock()  # held by the thread that polls
        self._away: tuple[Connection, float] | None = None  # with whose answer, for late from when
        self._deputised = False
        # gunicorn looks every setting up in two dictionaries, some thirty times a request.
        self.cfg.__dict__.update({name: one.get() for name, one in self.cfg.settings.items()})

    def init_signals(self) -> None:
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)  # see Arbiter.spawn_worker

    @property
    def nr_conns(self) -> int:
        """The connections of this worker, as gunicorn counts them; the others see it too."""
        return self._held

    @nr_conns.setter
    def nr_conns(self, count: int) -> None:
        self._held = count
        if self._place is not None and self._accepting:
            self.app.balancer.say(self._place, count)

    def give_up_place(self) -> None:
        """Tell the master's book that this worker has ended. Called in the master."""
        self.app.balancer.leave(self._place)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept the queued connections before a stopping worker closes its socket."""
        stopping = not enabled and not self.alive and self._accepting
        if stopping:
            for listener in self.sockets:
                known = -1
                while known != self.nr_conns:
                    known = self.nr_conns
                    self.accept(listener)
        super().set_accept_enabled(enabled)
        self.app.balancer.say(self._place, self._held if enabled else Balancer.ABSENT)
        if enabled:
            limit = struct.pack("ll", STALL, 0)
            for listener in self.sockets:  # the sockets that it accepts inherit these
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        if stopping:
            for listener in self.sockets:
                listener.close()

    def run(self) -> None:
        self._turn.acquire()
        threading.Thread(target=self._deputise, name="deputy", daemon=True).start()
        super().run()

    def _deputise(self) -> None:
        """Poll while the poller is away for long, with an answer that was cheap so far.

        What one request costs is never sure: other rows, another method, a log that is not read.
        The answer goes on as if in a thread, and all others go to threads until it is there.
        """
        while True:
            time.sleep(AWAY)
            away = self._away
            if away is None or time.monotonic() < away[1]:
                continue
            with self._turn:
                self._deputised = True
                while self._away is away:
                    if away[0].waiting is not None:
                        self._leave(away[0])
                    self.wait_for_and_dispatch_events(AWAY)
                self._deputised = False

    # ------------------------------------------------------------------- connections in the poller

    def accept(self, listener: Any) -> None:
        """Take a new connection, or leave it to a worker that has less to do; see `Balancer`."""
        for _ in range(ACCEPTS):
            if self.alive and self.app.balancer.others_first(self._place):
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

    def _take(self, listener: Any) -> bool:
        """Take a new connection, if there is one; return whether there was."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                time.sleep(PATIENCE)  # no descriptor is left: the poller would spin
            return False
        conn = Connection(self.cfg, client, address, listener.getsockname())
        conn.linger = self._linger
        self.nr_conns += 1
        conn.timeout = time.monotonic() + STALL
        self._wait(conn, self.pending_conns)
        return True

    def _wait(self, conn: Connection, among: deque[Connection]) -> None:
        """Let the poller tell when the client says something."""
        conn.waiting = among
        among.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._readable, conn))

    def _leave(self, conn: Connection) -> None:
        self.poller.unregister(conn.sock)
        if conn.waiting is not None:
            conn.waiting.remove(conn)
        conn.waiting = None

    def _drop(self, conn: Connection, graceful: bool = True) -> None:
        """Close a connection that waits in the poller."""
        self._leave(conn)
        self.nr_conns -= 1
        conn.close(graceful)

    def _readable(self, conn: Connection, client: socket.socket) -> None:
        if conn.waiting is None:
            return  # it has left the poller since the poller saw this
        if conn.behind:
            self._advance(conn)
            return
        try:
            said = client.recv(HEAD_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            conn.buffer += said
            self._advance(conn)
        elif conn.buffer:
            self._hand_on(conn)  # gunicorn knows what to say to half a request
        else:
            self._drop(conn, graceful=False)

    def _advance(self, conn: Connection) -> None:
        """Answer the request at the start of the buffer, hand it on, or wait for more of it."""
        conn.behind = False
        end = conn.buffer.find(_HEAD_END, conn.searched)
        if end < 0:
            conn.searched = max(0, len(conn.buffer) - len(_HEAD_END) + 1)
            if len(conn.buffer) >= HEAD_LIMIT:
                self._refuse(conn)
            elif conn.buffer.count(b"\n") != conn.buffer.count(b"\r\n"):
                self._hand_on(conn)  # this head never ends, as gunicorn will say
            return
        conn.searched = end
        head = conn.buffer[: end + 2].lower()
        length = _body_length(head)
        if length is None:
            self._hand_on(conn)
        elif len(conn.buffer) >= (size := end + len(_HEAD_END) + length):
            line = conn.buffer[: conn.buffer.find(b" ", conn.buffer.find(b" ") + 1)]
            if self.app.cheap(line, length) and not self._deputised:
                self._answer(conn, size)
            else:
                self._hand_on(conn)

    def _refuse(self, conn: Connection) -> None:
        """Answer from the poller: so few bytes fit into an empty socket without waiting."""
        with suppress(OSError):
            conn.sock.send(_TOO_LONG)
        self._drop(conn)

    def _hand_on(self, conn: Connection) -> None:
        """Let a thread answer."""
        self._leave(conn)
        self._give(conn, len(conn.buffer))
        self.enqueue_req(conn)

    def _give(self, conn: Connection, size: int) -> None:
        """Give gunicorn's parser the first `size` bytes."""
        conn.init()
        conn.parser.unreader.unread(conn.buffer[:size])
        conn.buffer, conn.searched, conn.data_ready = conn.buffer[size:], 0, True

    def _answer(self, conn: Connection, size: int) -> None:
        """Answer the first `size` bytes here and now, without ever waiting for the client."""
        self._give(conn, size)
        client = conn.sock
        outbox = conn.sock = Outbox(client)
        self._away = conn, time.monotonic() + AWAY
        self._turn.release()
        try:
            keep = self.handle(conn)
        finally:
            self._away = None
            self._turn.acquire()
            conn.sock = client
        if outbox.rest or conn.waiting is None:
            if conn.waiting is not None:
                self._leave(conn)
            self._submit(conn, partial(self._send, conn, outbox.rest, keep))
        elif not keep:
            self._drop(conn)
        else:
            conn.used = True
            if conn.waiting is self.pending_conns:
                self.pending_conns.remove(conn)
                conn.set_timeout()
                self.keepalived_conns.append(conn)
                conn.waiting = self.keepalived_conns
            if conn.buffer:  # in turn with the other connections
                conn.behind = True
                self.method_queue.defer(self._next, conn)

    def _next(self, conn: Connection) -> None:
        """Look at what a client sent behind the request that was just answered."""
        if conn.behind and conn.waiting is not None and conn.sock.fileno() >= 0:
            self._advance(conn)

    # ------------------------------------------------------------------------ requests in a thread

    def enqueue_req(self, conn: Connection) -> None:
        self._submit(conn, partial(self.handle, conn))

    def _submit(self, conn: Connection, work: Callable[[], bool]) -> None:
        done = self.tpool.submit(work)
        done.add_done_callback(lambda one: self.method_queue.defer(self.finish_request, conn, one))

    def _send(self, conn: Connection, rest: bytes, keep: bool) -> bool:
        """Send the rest of an answer to a slow reader."""
        conn.sock.setblocking(True)
        conn.sock.sendall(rest)
        return keep

    def finish_request(self, conn: Connection, done: Future[bool]) -> None:
        """Keep a connection whose request was answered, or close it. Called by the poller."""
        if done.exception() is not None or not done.result():
            self.nr_conns -= 1
            conn.close(graceful=True)
            return
        conn.sock.setblocking(False)
        conn.set_timeout()
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
        conn.buffer = conn.parser.unreader.take_buffered()
        self._wait(conn, self.keepalived_conns)
        if conn.buffer:
            self._advance(conn)

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Run the application. As gunicorn's, without its hooks, clock and access log."""
        here = isinstance(conn.sock, Outbox)
        resp, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, Response)
        environ["wsgi.multithread"] = True
        environ[HERE] = here
        if isinstance(req.body.reader, LengthReader):
            environ["wsgi.input"] = Input(req.body.reader)
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            resp.force_close()
        try:
            answer = self.wsgi(environ, resp.start_response)
            try:
                for part in answer:
                    resp.write(part)
                resp.close()
            finally:
                if hasattr(answer, "close"):
                    answer.close()
        except OSError:
            raise
        except (Exception, SystemExit):
            if resp.headers_sent:  # too late for a 500
                self.log.exception("Error handling request")
                raise StopIteration from None
            raise
        return not resp.should_close()

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Keep the connection if the body was read, or is here to be thrown away; else close it."""
        if not keepalive:
            return False
        if not getattr(conn.parser.mesg.body.reader, "length", 1):
            conn.parser.mesg = None  # or its end would be looked for, twice
            return True
        here = isinstance(conn.sock, Outbox)  # then all of it is in the buffer
        deadline = None if here else time.monotonic() + 0.02
        return bool(conn.parser.finish_body(deadline))

    # ------------------------------------------------------------------------------- farewells

    def _linger(self, client: socket.socket) -> None:
        """Close our side, and the whole when the client has closed its own or time is up."""
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            client.close()  # it is gone already
            return
        client.setblocking(False)
        self.nr_conns += 1
        self.leaving[client] = time.monotonic() + LINGER
        self.poller.register(client, selectors.EVENT_READ, self._throw_away)

    def _throw_away(self, client: socket.socket) -> None:
        if client not in self.leaving:
            return  # see `_readable`
        try:
            over = not client.recv(1 << 20)
        except BlockingIOError:
            over = False
        except OSError:
            over = True
        if over:
            self._part(client)

    def _part(self, client: socket.socket) -> None:
        del self.leaving[client]
        self.nr_conns -= 1
        self.poller.unregister(client)
        client.close()

    def murder_keepalived(self, force: bool = False) -> None:
        """Close idle connections; those used since they came to the front go to the end once."""
        kept, now = self.keepalived_conns, time.monotonic()
        while self.alive and kept and kept[0].used and kept[0].timeout <= now:
            conn = kept.popleft()
            conn.used = False
            conn.set_timeout()
            kept.append(conn)
        super().murder_keepalived(force)

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        while self.leaving and next(iter(self.leaving.values())) < now:
            self._part(next(iter(self.leaving)))

    def _cap_keepalive(self, deadline: float) -> None:
        """Wait for connections that never said anything no longer than for kept-alive ones."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def notify(self) -> None:
        """Tell the master that the poller is alive: once a second is often enough."""
        now = time.monotonic()
        if now < self._notified + 1 and self.alive:
            return
        self._notified = now
        super().notify()
        if self.alive and self.app.hung():
            self.log.error("Every prediction of this worker hangs; it is replaced.")
            self.alive = False
        elif self.alive and (why := self.app.retires()):
            self.log.info("This worker is replaced: %s.", why)
            self.alive = False


def _body_length(head: bytes) -> int | None:
    """Return the bytes in the body of a small request; None where gunicorn has to find out.

    Only a first look at a head in lower case: gunicorn's parser decides what it says.
    """
    if any(name in head for name in _FOR_A_THREAD):
        return None
    at = head.find(_LENGTH)
    if at < 0:
        return 0
    at += len(_LENGTH)
    said = head[at : head.index(b"\r\n", at)].strip()
    return int(said) if said.isdigit() and len(said) < 8 and int(said) <= BODY_LIMIT else None
