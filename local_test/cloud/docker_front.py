"""The engine's API with this cloud's ECR in it: what DOCKER_HOST names.

`docker login`, `push` and `pull` of an ECR name are answered here; everything else goes to the
engine as it came, byte by byte. So build_and_push.sh works as it does with AWS.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .engine import Engine, EngineError
from .images import Images, PushError
from .services import ACCOUNT

_HEAD_LIMIT = 1 << 16
_PUSH = re.compile(r"(?:/v[\d.]+)?/images/(?P<name>.+)/push")
_PULL = re.compile(r"(?:/v[\d.]+)?/images/create")
_LOGIN = re.compile(r"(?:/v[\d.]+)?/auth")


class DockerFront(socketserver.ThreadingTCPServer):
    """Listens on a port of this machine alone."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, engine: Engine, images: Images) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.engine, self.images = engine, images


class _Handler(socketserver.BaseRequestHandler):
    server: DockerFront

    def handle(self) -> None:
        with suppress(OSError):
            head, rest = self._head()
            if not head:
                return
            line, _, headers = head.partition(b"\r\n")
            method, target, _ = line.decode("latin-1").split(" ", 2)
            answer = self._own(method, target)
            if answer is None:
                self._pass_on(line, headers, rest)
                return
            named = http.client.parse_headers(io.BytesIO(headers + b"\r\n"))
            answer(self._body(rest, int(named.get("Content-Length") or 0)))

    def _head(self) -> tuple[bytes, bytes]:
        held = b""
        while b"\r\n\r\n" not in held and len(held) < _HEAD_LIMIT:
            part = self.request.recv(1 << 14)
            if not part:
                return b"", b""
            held += part
        head, _, rest = held.partition(b"\r\n\r\n")
        return head + b"\r\n", rest

    def _body(self, held: bytes, size: int) -> bytes:
        while len(held) < size and (part := self.request.recv(1 << 14)):
            held += part
        return held

    def _own(self, method: str, target: str) -> Callable[[bytes], None] | None:
        """Return what answers a request here, None for the engine's own."""
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if method != "POST":
            return None
        if _LOGIN.fullmatch(url.path):
            return self._login
        push = _PUSH.fullmatch(url.path)
        if push and self._ours(unquote(push["name"])):
            return lambda body: self._push(unquote(push["name"]), query.get("tag", "latest"))
        if _PULL.fullmatch(url.path) and self._ours(query.get("fromImage", "")):
            return lambda body: self._pull(query["fromImage"], query.get("tag", "latest"))
        return None

    def _ours(self, name: str) -> bool:
        return self.server.images.parts(name) is not None

    def _login(self, body: bytes) -> None:
        given = json.loads(body)
        host = given.get("serveraddress", "").removeprefix("https://").split("/")[0]
        if not self._ours(f"{host}/any"):
            engine = self.server.engine
            with suppress(EngineError):
                self._json(200, engine.ask("POST", "/auth", given))
                return
            self._json(401, {"message": f"the engine could not log in at {host}"})
        elif given.get("password") == f"{ACCOUNT}-auth-token":  # what moto's ECR hands out
            self._json(200, {"Status": "Login Succeeded", "IdentityToken": ""})
        else:
            self._json(401, {"message": "Your Authorization Token is invalid."})

    def _push(self, name: str, tag: str) -> None:
        self._stream({"status": f"The push refers to repository [{name}]"})
        try:
            digest, size = self.server.images.push(name, tag)
        except (PushError, EngineError) as error:
            self._stream({"errorDetail": {"message": str(error)}, "error": str(error)})
        else:
            self._stream({"status": f"{tag}: digest: {digest} size: {size}"})
            self._stream(
                {"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": size}}
            )

    def _pull(self, name: str, version: str) -> None:
        self._stream({"status": f"Pulling from {name}", "id": version})
        try:
            digest = self.server.images.pull(name, version)
        except (PushError, EngineError) as error:
            self._stream({"errorDetail": {"message": str(error)}, "error": str(error)})
        else:
            self._stream({"status": f"Digest: {digest}"})
            self._stream({"status": f"Status: Image is up to date for {name}:{version}"})

    def _json(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.request.sendall(
            f"HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nApi-Version: 1.41\r\n"
            f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )

    _begun = False

    def _stream(self, value: Any) -> None:
        """Send one line of progress; the connection's end is the end of the answer."""
        if not self._begun:
            self._begun = True
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                                 b"Connection: close\r\n\r\n")  # fmt: skip
        self.request.sendall(json.dumps(value).encode() + b"\r\n")

    def _pass_on(self, line: bytes, headers: bytes, rest: bytes) -> None:
        """Join the caller and the engine for one request; an upgraded one stays joined."""
        kept = [one for one in headers.split(b"\r\n") if one]
        if not any(one.lower().startswith(b"upgrade:") for one in kept):
            kept = [one for one in kept if not one.lower().startswith(b"connection:")]
            kept.append(b"Connection: close")
        connection = self.server.engine.connection(timeout=None)
        connection.connect()
        engine = connection.sock
        try:
            engine.sendall(b"\r\n".join([line, *kept]) + b"\r\n\r\n" + rest)
            there = threading.Thread(target=_pump, args=(self.request, engine), daemon=True)
            there.start()
            _pump(engine, self.request)
        finally:
            engine.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, and hand its end on."""
    with suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
