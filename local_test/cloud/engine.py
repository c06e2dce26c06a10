"""The Docker engine, over its own HTTP API: containers that carry this cloud's label.

Nothing here is a child process, so nothing is left behind if this process is killed but containers,
and those are found again by their label.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

LABEL = "skserve.cloud"  # its value names the cloud that a container belongs to
_DEFAULT = "unix:///var/run/docker.sock"


class EngineError(Exception):
    """The engine cannot be reached, or says no."""


@dataclass(frozen=True)
class Mount:
    """A folder of this machine, and where the container sees it."""

    folder: Path
    inside: str
    read_only: bool = True


@dataclass(frozen=True)
class Spec:
    """A container to be."""

    image: str
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    memory_mb: int | None = None
    isolated: bool = False
    read_only: bool = True
    entrypoint: tuple[str, ...] = ()
    hostname: str = ""  # its name among the containers of its network


@dataclass(frozen=True)
class Ended:
    """How a container's process ended."""

    code: int
    out_of_memory: bool


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def engine_address() -> str:
    """Return where the engine listens, as the `docker` command would find it."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return _DEFAULT


class Engine:
    """The engine, as seen by one cloud."""

    def __init__(self, identity: str, address: str = "") -> None:
        self.identity = identity
        self.address = address or engine_address()
        self._networks = threading.Lock()

    def connection(self, timeout: float | None = 120) -> http.client.HTTPConnection:
        """Return a connection to the engine that is not open yet."""
        where = urlsplit(self.address)
        if where.scheme == "unix":
            return _Unix(where.path, timeout)
        if where.scheme not in ("tcp", "http"):
            raise EngineError(f"Docker is asked at unix:// or tcp:// only, not at {self.address}")
        return http.client.HTTPConnection(where.hostname or "", where.port or 2375, timeout=timeout)

    def open(
        self, method: str, path: str, body: Any = None, timeout: float | None = 120, **query: Any
    ) -> http.client.HTTPResponse:
        """Send a request and return the answer with its body unread. Raises `EngineError`."""
        asked = f"{path}?{urlencode(query)}" if query else path
        content = None if body is None else json.dumps(body)
        try:
            connection = self.connection(timeout)
            connection.request(method, asked, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status >= 400:
                raise EngineError(_message(answer.read(), answer.status))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise EngineError(f"Docker does not answer at {self.address}: {error}") from error
        return answer

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Send a request and return the answer's JSON, None for an empty one."""
        content = self.open(method, path, body, **query).read()
        return json.loads(content) if content.strip() else None

    def image(self, reference: str) -> dict[str, Any] | None:
        """Describe an image that the engine holds, or return None."""
        try:
            found: dict[str, Any] = self.ask("GET", f"/images/{quote(reference)}/json")
        except EngineError as error:
            if "no such image" in str(error).lower():
                return None
            raise
        return found

    def start(self, spec: Spec) -> Container:
        """Start a container and return it. Raises `EngineError`."""
        made = self.ask("POST", "/containers/create", self._description(spec))
        container = Container(self, made["Id"], dict(spec.labels))
        try:
            self.ask("POST", f"/containers/{container.id}/start")
        except EngineError:
            container.remove()
            raise
        return container

    def _description(self, spec: Spec) -> dict[str, Any]:
        host: dict[str, Any] = {
            "ReadonlyRootfs": spec.read_only,
            "Tmpfs": {"/tmp": ""} if spec.read_only else {},
            "Binds": [
                f"{mount.folder}:{mount.inside}:{'ro' if mount.read_only else 'rw'}"
                for mount in spec.mounts
            ],
            "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
            "Memory": (spec.memory_mb or 0) << 20,
        }
        network = self.network(spec.isolated)
        host["NetworkMode"] = network
        described: dict[str, Any] = {
            "Image": spec.image,
            "Cmd": list(spec.words),
            "Env": [f"{key}={value}" for key, value in spec.environment.items()],
            "User": spec.user,
            "Labels": {**spec.labels, LABEL: self.identity},
            "ExposedPorts": {"8080/tcp": {}},
            "HostConfig": host,
        }
        if spec.entrypoint:
            described["Entrypoint"] = list(spec.entrypoint)
        if spec.hostname:
            aliases = {network: {"Aliases": [spec.hostname]}}
            described |= {"Hostname": spec.hostname,
                          "NetworkingConfig": {"EndpointsConfig": aliases}}  # fmt: skip
        return described

    def network(self, isolated: bool) -> str:
        """Return the network for containers, made at its first use.

        Without masquerade nothing outside this machine can answer a container.
        """
        name = f"skserve-cloud-{self.identity}{'-isolated' if isolated else ''}"
        with self._networks:  # the engine takes two networks of one name, and then starts nothing
            known = self.ask("GET", "/networks", filters=json.dumps({"name": [name]}))
            if all(one["Name"] != name for one in known):
                self.ask("POST", "/networks/create", {
                    "Name": name, "Labels": {LABEL: self.identity}, "Options": {
                        "com.docker.network.bridge.enable_ip_masquerade": str(not isolated).lower()
                    },
                })  # fmt: skip
        return name

    def gateway(self) -> str:
        """Return this machine's address on the containers' network."""
        found = self.ask("GET", f"/networks/{self.network(False)}")
        return str(found["IPAM"]["Config"][0]["Gateway"])

    def containers(self) -> Iterator[Container]:
        """Yield the containers of this cloud, running or not, also those of an earlier process."""
        mine = json.dumps({"label": [f"{LABEL}={self.identity}"]})
        for found in self.ask("GET", "/containers/json", all="true", filters=mine):
            yield Container(self, found["Id"], found["Labels"])

    def remove_networks(self) -> None:
        """Remove what `network` made."""
        mine = json.dumps({"label": [f"{LABEL}={self.identity}"]})
        for found in self.ask("GET", "/networks", filters=mine):
            with suppress(EngineError):
                self.ask("DELETE", f"/networks/{found['Id']}")


@dataclass
class Container:
    """A container of this cloud."""

    engine: Engine
    id: str
    labels: Mapping[str, str]

    def address(self) -> tuple[str, int]:
        """Return where its port 8080 is reached. Raises `EngineError` if it has ended."""
        ports = self._inspect()["NetworkSettings"]["Ports"].get("8080/tcp")
        if not ports:
            raise EngineError("the container has ended")
        return ports[0]["HostIp"], int(ports[0]["HostPort"])

    def ended(self) -> Ended | None:
        """Say how it ended, None while it runs; one that is gone was killed."""
        try:
            state = self._inspect()["State"]
        except EngineError:
            return Ended(137, False)
        if state["Running"] or state["Status"] == "created":
            return None
        return Ended(state["ExitCode"], state["OOMKilled"])

    def stop(self, seconds: int) -> None:
        """Send SIGTERM, SIGKILL after `seconds`; nothing is said of one that has gone already."""
        with suppress(EngineError):
            self.engine.open(
                "POST", f"/containers/{self.id}/stop", t=seconds, timeout=seconds + 60
            ).read()

    def wait(self) -> Ended:
        """Wait until it ends, and say how."""
        with suppress(EngineError, OSError, http.client.HTTPException):
            self.engine.open("POST", f"/containers/{self.id}/wait", timeout=None).read()
        return self.ended() or Ended(137, False)

    def kill(self) -> None:
        """End it at once, as a fault does."""
        with suppress(EngineError):
            self.engine.ask("POST", f"/containers/{self.id}/kill")

    def remove(self) -> None:
        """Take it away, running or not."""
        with suppress(EngineError):
            self.engine.ask("DELETE", f"/containers/{self.id}", force="true", v="true")

    def follow(self, line: Callable[[str], None], since: int = 0) -> None:
        """Call `line` with each line that it prints, from second `since` on, until it ends."""
        with suppress(EngineError, OSError, http.client.HTTPException):
            answer = self.engine.open(
                "GET", f"/containers/{self.id}/logs", follow="true", stdout="true", stderr="true",
                since=since, timeout=None,
            )  # fmt: skip
            for text in _lines(answer):
                line(text)

    def _inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = self.engine.ask("GET", f"/containers/{self.id}/json")
        return found


def _lines(answer: http.client.HTTPResponse) -> Iterator[str]:
    """Yield the lines of both streams: frames of a kind, three zeros and a big-endian length."""
    held = {1: b"", 2: b""}
    while len(head := answer.read(8)) == 8:
        kind, size = struct.unpack(">BxxxI", head)
        *whole, held[kind] = (held.get(kind, b"") + answer.read(size)).split(b"\n")
        yield from (text.decode("utf-8", "replace").rstrip("\r") for text in whole)
    yield from (text.decode("utf-8", "replace") for text in held.values() if text)


def _message(body: bytes, status: int) -> str:
    with suppress(ValueError):
        return str(json.loads(body)["message"])
    return f"Docker answered {status}: {body.decode('utf-8', 'replace')}"
