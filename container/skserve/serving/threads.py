"""What the poller does not do itself: requests that may take long, and answers to slow readers."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from skserve.serving.client_socket import ClientSocket
from skserve.serving.clients import Client
from skserve.serving.responses import Answer, status_of
from skserve.serving.wsgi import Application, Exchange, environ_of

log = logging.getLogger("skserve")


class Threads:
    """Answers requests in threads; meanwhile the poller does not watch their clients.

    After each answer `done` has the client, and whether its connection is kept, and a byte is
    written to `wake`, the end of a pipe. A body may take `body_timeout` seconds; `stopping` says
    whether to keep no connection.
    """

    def __init__(
        self,
        count: int,
        application: Application,
        body_timeout: float,
        wake: int,
        stopping: Callable[[], bool],
    ) -> None:
        self.done: deque[tuple[Client, bool]] = deque()
        self._calls: set[Client] = set()
        self._pool = ThreadPoolExecutor(count, "request")
        self._application, self._body_timeout = application, body_timeout
        self._wake, self._stopping = wake, stopping

    @property
    def calls(self) -> int:
        """How many calls of models are here."""
        return len(self._calls)

    def serve(self, client: Client, call: bool) -> None:
        """Let the application answer what may be a call of a model."""
        if call:
            self._calls.add(client)
        self._submit(client, partial(self._exchange, client, self._application))

    def stream(self, client: Client, answer: Answer) -> None:
        """Send an answer in parts, which are made while they are sent."""

        def application(_: dict[str, Any], start_response: Any) -> Any:
            start_response(status_of(answer.status_code), answer.headers)
            return answer.body

        self._submit(client, partial(self._exchange, client, application))

    def send(self, client: Client, rest: bytes, keep: bool) -> None:
        """Send the rest of an answer to a slow reader."""

        def send() -> bool:
            ClientSocket(client.socket, self._body_timeout).send(rest)
            return keep

        self._submit(client, send)

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False)

    def _exchange(self, client: Client, application: Application) -> bool:
        request = client.connection.request
        assert request is not None
        channel = ClientSocket(client.socket, self._body_timeout)
        exchange = Exchange(client.connection, channel, self._stopping)
        return exchange.run(application, environ_of(request, client.address, client.server))

    def _submit(self, client: Client, work: Callable[[], bool]) -> None:
        self._pool.submit(self._run, client, work)

    def _run(self, client: Client, work: Callable[[], bool]) -> None:
        keep = False
        try:
            keep = work()
        except OSError as error:
            log.debug("A connection breaks: %s", error)
        except BaseException:
            log.exception("A request failed.")
        self._calls.discard(client)
        self.done.append((client, keep))
        with suppress(OSError):  # enough was written to wake the poller, or it has ended
            os.write(self._wake, b"\0")
