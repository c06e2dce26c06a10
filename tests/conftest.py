"""What several test files share: servers that really run, and the models they serve."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import settings

from tests import warm

if TYPE_CHECKING:
    from tests.many_models import ManyModels

ROOT = Path(__file__).parent.parent
START_LIMIT = 60  # seconds
IMAGE = os.environ.get("SKSERVE_TEST_IMAGE", "skserve-test:1.9")

# A busy machine is no defect; what must be fast is timed where that is claimed.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


@dataclass
class Server:
    """A running `python -m skserve serve`."""

    process: subprocess.Popen[bytes] | warm.Process
    url: str
    log: Path

    def post(
        self, body: bytes | str, content_type: str | None = "application/json", **headers: str
    ):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            named["Content-Type"] = content_type
        data = body.encode() if isinstance(body, str) else body
        return requests.post(self.url + "/invocations", data=data, headers=named, timeout=60)

    def ping(self) -> int:
        return requests.get(self.url + "/ping", timeout=5).status_code

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, patience: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# Tests of these files, and tests with containers, take ten seconds each.
LONG = (
    "test_examples", "test_interruptions", "test_round_trips", "test_selftest", "test_story",
)  # fmt: skip


@pytest.hookimpl(trylast=True)  # what is deselected counts for nothing
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with much to do first: xdist hands them out so, and none is left for the end."""
    weights: Counter[Path] = Counter()
    for item in items:
        long = item.path.stem in LONG or item.get_closest_marker("docker")
        weights[item.path] += 20 if long else 1
    items.sort(key=lambda item: -weights[item.path])


# The processes that servers are forked from, without pandas and with it.
hosts: dict[bool, warm.Host] = {}


def pytest_sessionfinish() -> None:
    for host in hosts.values():
        host.close()


def start(
    model_dir: Path, log: Path, cold: bool = False, module: str = "skserve", **environ: str
) -> Server:
    """Start a server without waiting for it; a `cold` one imports what it needs by itself."""
    port = free_port()
    words = ["serve", "--model-dir", str(model_dir), "--port", str(port)]
    full = {**os.environ, "SKSERVE_USER": "root", "PYTHONPATH": str(ROOT / "container"), **environ}
    process: subprocess.Popen[bytes] | warm.Process
    with log.open("wb") as sink:
        if cold:
            command = [sys.executable, "-m", module, *words]
            process = subprocess.Popen(command, env=full, stdout=sink, stderr=sink)
        else:
            script = (model_dir / "code").is_dir() or (model_dir / "inference.py").is_file()
            pandas = script or "SAGEMAKER_MULTI_MODEL" in environ
            if pandas not in hosts:
                hosts[pandas] = warm.Host(pandas)
            process = hosts[pandas].start(words, full, sink, module)
    return Server(process, f"http://127.0.0.1:{port}", log)


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        try:
            if server.ping() == 200:
                return
        except requests.RequestException:
            pass
        if server.process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"no server: {server.log.read_text()}")


@contextmanager
def serving(model_dir: Path, log: Path, cold: bool = False, **environ: str) -> Iterator[Server]:
    """Serve `model_dir` for a while."""
    server = start(model_dir, log, cold, **environ)
    try:
        wait_until_ready(server)
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a folder with the model of that name from `zoo.py`, made once."""
    from tests import zoo

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            zoo.make(name, made[name])
        return made[name]

    return folder


@pytest.fixture(scope="session")
def add(models: Callable[[str], Path]) -> Callable[..., Path]:
    """Return a function that puts a model below a root, with a script if one is given."""

    def make(root: Path, name: str, script: str = "", model: str = "iris", **files: str) -> Path:
        folder = root / name
        shutil.copytree(models(model), folder)
        if script:
            (folder / "code").mkdir()
            (folder / "code" / "inference.py").write_text(script)
        for file, text in files.items():
            (folder / "code" / f"{file}.py").write_text(text)
        return folder

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder that the example of that name trains, as a person runs it.

    It is made once for all processes of a run.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def train(name: str) -> Path:
        folder = base / "trained" / name
        folder.parent.mkdir(exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "model.joblib").exists():
                script = ROOT / "examples" / name / "train.py"
                subprocess.run([sys.executable, script, folder], check=True)
        return folder

    return train


@pytest.fixture(scope="session")
def servers(
    models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Return a running server of the model of that name, with one worker unless told otherwise.

    One is started for each set of settings, for all tests of this process.
    """
    running: dict[tuple[Any, ...], Any] = {}
    logs = tmp_path_factory.mktemp("logs")

    def server(name: str, **settings: str) -> Server:
        key = (name, *sorted(settings.items()))
        if key not in running:
            settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"} | settings
            context = serving(models(name), logs / f"{len(running)}-{name}", **settings)
            running[key] = (context, context.__enter__())
        return running[key][1]

    yield server
    for context, _ in running.values():
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def _shared(
    add: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ManyModels]:
    from tests.many_models import many_models

    root = tmp_path_factory.mktemp("models")
    add(root, "iris")
    add(root, "one", model="one")
    log = tmp_path_factory.mktemp("logs") / "shared"
    settings = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2", "SKSERVE_LOAD_TIMEOUT": "5"}
    with many_models(root, log, SKSERVE_QUEUE="4", **settings) as server:
        yield server


@pytest.fixture
def shared(_shared: ManyModels) -> Iterator[ManyModels]:
    """Return a server of many models that several tests use, without a model loaded."""
    yield _shared
    for name in _shared.names():
        assert _shared.unload(name).status_code == 200


@pytest.fixture
def three(shared: ManyModels) -> ManyModels:
    for name in ("a", "b", "c"):
        assert shared.load(name, shared.root / "iris").status_code == 200
    return shared


@pytest.fixture(scope="session")
def image() -> str:
    """Build the image, once in each process: from the cache where another one has built it."""
    with (Path(tempfile.gettempdir()) / f"{IMAGE.replace(':', '-')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would both build every layer
        done = subprocess.run(
            ["docker", "build", "--quiet", "--tag", IMAGE, str(ROOT)],
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return IMAGE


@pytest.fixture
def model_with_script(models: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of a model's folder with a script beside it, given as text or as a folder."""

    def make(script: str | Path, model: str = "iris", **files: str) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(models(model), folder)
        if isinstance(script, Path):
            shutil.copytree(script, folder / "code")
        else:
            (folder / "code").mkdir()
            (folder / "code" / "inference.py").write_text(script)
        for name, text in files.items():
            (folder / "code" / name.replace("__", ".")).write_text(text)
        return folder

    return make
