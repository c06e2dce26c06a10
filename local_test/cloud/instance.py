"""One instance of a variant: a container, asked over HTTP as SageMaker asks it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import urllib3

from .engine import Container

_PING_SECONDS = 2.0
_STOP_SECONDS = 30  # from SIGTERM to SIGKILL
_DRAIN_SECONDS = 60.0  # how long calls on their way may take before SIGTERM
_CONNECTIONS = 8


class CallError(Exception):
    """No answer came. `sent` says whether the container may have seen the call."""

    def __init__(self, message: str, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


def instance_id() -> str:
    return f"i-{uuid.uuid4().hex[:17]}"


class Instance:
    """A running container and its calls."""

    def __init__(self, name: str, container: Container) -> None:
        self.name, self.container = name, container
        self.kind = container.labels.get("skserve.cloud.kind", "")  # the instance type
        self.outstanding = 0
        self.alive = True
        self.called = time.monotonic()  # when a call was handed to it last
        self.missed = 0  # pings in a row without a 200
        self.loaded: dict[str, float] = {}  # of many models: name, and when it was called last
        self.lock = threading.Lock()
        host, port = container.address()
        self._pool = urllib3.HTTPConnectionPool(host, port, maxsize=_CONNECTIONS, retries=False)
        self._follower: threading.Thread | None = None

    def follow(
        self, line: Callable[[str], None], ended: Callable[[], None], since: int = 0
    ) -> None:
        """Hand on each line of the log from second `since` on, and note the container's end."""

        def watch() -> None:
            self.container.follow(line, since)
            self.alive = False
            ended()

        self._follower = threading.Thread(target=watch, name=f"log {self.name}", daemon=True)
        self._follower.start()

    def logged(self, seconds: float = 5.0) -> None:
        """Wait until the whole log of a container that has ended was handed on."""
        if self._follower is not None:
            self._follower.join(seconds)

    def ping(self) -> bool:
        """Ask as SageMaker does: 200 within two seconds."""
        with suppress(CallError, TimeoutError):
            answer = self.call("GET", "/ping", timeout=_PING_SECONDS)
            return bool(answer.status == 200)
        return False

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None,
        timeout: float = 60.0, stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        """Send one request. Raises `CallError`; TimeoutError where it takes too long."""
        limit = urllib3.Timeout(connect=min(timeout, 5.0), read=timeout)
        # One call a connection: a kept one may be closed by the container while a call is sent.
        sent = {**(headers or {}), "Connection": "close"}
        try:
            return self._pool.urlopen(
                method, path, body=body, headers=sent, timeout=limit,
                preload_content=not stream, redirect=False, retries=False,
            )  # fmt: skip
        except urllib3.exceptions.NewConnectionError as error:
            raise CallError(str(error), sent=False) from error
        except urllib3.exceptions.TimeoutError as error:
            raise TimeoutError(str(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise CallError(str(error)) from error

    def stop(self) -> None:
        """Let the calls on their way end, then SIGTERM, then take the container away."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.outstanding and self.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        self.container.stop(_STOP_SECONDS)
        self.logged()
        self.container.remove()
        self._pool.close()
