"""A running multi-model server, and what tests ask of it."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from tests.conftest import Server, serving
from tests.test_image import Container

IRIS = "5.1,3.5,1.4,0.2"


@dataclass
class ManyModels:
    """A running multi-model server, and the folder that its models are in."""

    server: Server | Container
    root: Path

    def load(self, name: str, url: Path | str | None = None, **named: Any) -> requests.Response:
        asked = {"model_name": name, "url": str(url or self.root / name)}
        return requests.post(self.server.url + "/models", json=asked, timeout=60, **named)

    def invoke(
        self, name: str, body: str = IRIS, content_type: str = "text/csv"
    ) -> requests.Response:
        return requests.post(
            f"{self.server.url}/models/{quote(name, safe='')}/invoke",
            body,
            headers={"Content-Type": content_type},
            timeout=60,
        )

    def unload(self, name: str) -> requests.Response:
        return requests.delete(f"{self.server.url}/models/{quote(name, safe='')}", timeout=60)

    def names(self) -> list[str]:
        listed = requests.get(self.server.url + "/models", timeout=10).json()
        return [one["modelName"] for one in listed["models"]]

    def raw(self, method: str, path: str, body: str = "") -> tuple[int, dict[str, Any]]:
        """Send a path as it is, which `requests` would tidy up."""
        host = self.server.url.removeprefix("http://")
        with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
            connection.request(method, path, body, {"Content-Type": "text/csv"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    @property
    def log(self) -> str:
        log = self.server.log
        return log if isinstance(log, str) else log.read_text(errors="replace")

    def _sessions(self) -> Iterator[tuple[int, int]]:
        """Yield the children of the server that have not ended meanwhile, with their sessions."""
        for one in children(self.server.pid):
            with suppress(ProcessLookupError):
                yield one, os.getsid(one)

    @property
    def zygote(self) -> int:
        """Return the process that the models are children of: it alone left the session."""
        (pid,) = [one for one, session in self._sessions() if session == one]
        return pid

    @property
    def workers(self) -> list[int]:
        return [one for one, session in self._sessions() if session != one]

    @property
    def models(self) -> list[int]:
        return children(self.zygote)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def many_models(root: Path, log: Path, **settings: str) -> Iterator[ManyModels]:
    settings = {
        "SAGEMAKER_MULTI_MODEL": "true",
        "SKSERVE_MODEL_ROOT": str(root),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        **settings,
    }
    with serving(root / "none", log, **settings) as server:
        yield ManyModels(server, root)


def error(answer: requests.Response) -> str:
    return str(answer.json()["error"]["message"])
