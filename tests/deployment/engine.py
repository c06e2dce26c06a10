"""A Docker engine and Debian's docker-registry, where there are any."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.conftest import free_port

REQUIRED = os.environ.get("SKSERVE_REQUIRE_DOCKER") == "1"


def needed() -> str:
    """Return the path of docker-registry. Skips, or fails where Docker is required, without it."""
    engine = (
        shutil.which("docker")
        and not subprocess.run(
            ["docker", "version"], capture_output=True, timeout=30, check=False
        ).returncode
    )
    program = shutil.which("docker-registry") or (_installed() if REQUIRED else None)
    if engine and program:
        return program
    missing = "docker-registry (Debian's package of that name)" if engine else "a Docker engine"
    if REQUIRED:
        pytest.fail(f"needs {missing}")
    pytest.skip(f"needs {missing}")


def _installed() -> str | None:
    """Install Debian's registry where the tests must not be skipped, and return its path."""
    for words in (["update"], ["install", "--yes", "--no-install-recommends", "docker-registry"]):
        subprocess.run(["apt-get", "-qq", *words], capture_output=True, check=False)
    return shutil.which("docker-registry")


@contextlib.contextmanager
def registry(base: Path) -> Iterator[str]:
    """Run docker-registry with its data in `base`; yields its host name."""
    program, port = needed(), free_port()
    (base / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {base}/d}}}}"
        f"\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (base / "log").open("w") as log:
        server = subprocess.Popen(
            [program, "serve", str(base / "config.yml")], stdout=log, stderr=log
        )
        try:
            until_up(f"http://127.0.0.1:{port}/v2/")
            yield f"localhost:{port}"
        finally:
            server.terminate()
            server.wait(10)
            _forget(f"localhost:{port}/")


def until_up(url: str, seconds: float = 60) -> None:
    """Wait until `url` answers 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    pytest.fail(f"{url} did not answer within {seconds:g} s")


def _forget(prefix: str) -> None:
    """Take the tags of this run out of the engine; other people's images stay."""
    listed = subprocess.run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"],
                            capture_output=True, text=True, check=False).stdout.split()  # fmt: skip
    mine = [name for name in listed if name.startswith(prefix)]
    if mine:
        subprocess.run(["docker", "rmi", *mine], capture_output=True, check=False)
