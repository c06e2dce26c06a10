"""One moto server for the run, emptied before each test, and words run as a user runs them."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.loaders import create_loader
from click.testing import CliRunner

import deploy
from deployment.aws import Cloud

if TYPE_CHECKING:
    from tests.deployment.local_cloud import LocalCloud

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
ACCOUNT = "123456789012"  # moto's own
ROLE = f"arn:aws:iam::{ACCOUNT}:role/skserve"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Moto:
    """The server, its steering wheel, and clients for it."""

    url: str
    environ: dict[str, str] = field(default_factory=dict)
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def steer(self, path: str, value: Any = None, method: str = "POST") -> Any:
        data = value if isinstance(value, bytes) else json.dumps(value or {}).encode()
        request = urllib.request.Request(f"{self.url}/_test/{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read() or b"{}")

    def next(self, **values: Any) -> None:
        self.steer("set", values)

    def fault(self, operation: str, code: str, message: str = "", **more: Any) -> None:
        self.steer("fault", {"operation": operation, "code": code, "message": message, **more})

    @property
    def sent(self) -> list[tuple[str, Any]]:
        """The calls of SageMaker and Auto Scaling that changed something, with their arguments."""
        with urllib.request.urlopen(f"{self.url}/_test/sent", timeout=10) as response:
            return [(name, arguments) for name, arguments in json.loads(response.read())]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of AWS's own of the last invocation."""
        return dict(self.steer("headers"))

    @property
    def calls(self) -> list[str]:
        with urllib.request.urlopen(f"{self.url}/_test/calls", timeout=10) as response:
            return list(json.loads(response.read()))

    def client(self, service: str, region: str = REGION) -> Any:
        if (service, region) not in self.clients:
            self.clients[service, region] = boto3.client(
                service, region_name=region, endpoint_url=self.url,
                aws_access_key_id="test", aws_secret_access_key="test",
            )  # fmt: skip
        return self.clients[service, region]

    def reset(self) -> None:
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        urllib.request.urlopen(request, timeout=10).close()
        self.steer("reset")


@pytest.fixture(scope="session")
def _server() -> Iterator[Moto]:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("cloud_server.py")), str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "MOTO_PORT": str(port)},
    )  # fmt: skip
    # Its log says one line a request: read away, or the pipe fills up and it stops.
    drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
    assert server.stderr is not None
    server.stderr.close()
    moto = Moto(f"http://127.0.0.1:{port}")
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                moto.reset()
                break
            assert server.poll() is None, "moto's server ended at once"
            time.sleep(0.1)
        yield moto
    finally:
        server.terminate()
        server.wait(10)
        drain.wait(10)


@pytest.fixture
def moto(_server: Moto, tmp_path: Path) -> Moto:
    """An empty account, and an environment that leads a command to it and nowhere else."""
    _server.reset()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    _server.environ = kept | {
        "AWS_ENDPOINT_URL": _server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
        "HOME": str(tmp_path),
        "COLUMNS": "120",
    }
    return _server


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Shell:
    """A user's folder, and `python deploy.py` in it."""

    folder: Path
    environ: dict[str, str]

    def __call__(self, *words: str, stdin: str = "", code: int | None = 0) -> Ran:
        """Run words in this process: starting Python and boto3 anew takes two seconds each time."""
        done = CliRunner().invoke(deploy.main, list(words), input=stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        ran = Ran(done.exit_code, done.stdout, done.stderr)
        assert code is None or ran.code == code, f"{words}: {ran.code}\n{ran.out}\n{ran.err}"
        return ran

    def process(self, *words: str, code: int = 0) -> Ran:
        """Run words as a process of their own."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "deploy.py"), *words], cwd=self.folder, env=self.environ,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.stdout}\n{done.stderr}"
        return Ran(done.returncode, done.stdout, done.stderr)

    def change(self, *words: str, **more: Any) -> Ran:
        """Run a word that waits, looking often enough for a test."""
        return self(*words, "--poll", "0.02", **more)

    def interrupted(self, *words: str, when: Callable[[], bool]) -> Ran:
        """Run words and press Ctrl-C once `when` is true."""
        running = subprocess.Popen(
            [sys.executable, str(ROOT / "deploy.py"), *words, "--poll", "0.02"], cwd=self.folder,
            env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # A shell's background job ignores SIGINT, and so does what it starts.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while not when() and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
        return Ran(running.returncode, out, err)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a newcomer has: an empty folder with a joblib file."""
    here = tmp_path / "work"
    here.mkdir()
    save_model(here / "model.joblib")
    return here


@pytest.fixture(scope="session", autouse=True)
def _clients_are_kept() -> Iterator[None]:
    """Keep boto3's clients and models from run to run here: they are half of a run's time."""
    kept: dict[Any, Any] = {}
    loader = create_loader()
    make = Cloud._client

    def client(self: Cloud, service: str, at: str = "") -> Any:
        who = [os.environ.get(key) for key in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID")]
        key = (service, at or self.region, *who)
        if key not in kept:
            kept[key] = make(self, service, at)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cloud, "_client", client)
        patch.setattr("botocore.session.create_loader", lambda *_: loader)
        yield


@pytest.fixture
def shell(moto: Moto, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for key in os.environ:
        if key.startswith("AWS_"):
            monkeypatch.delenv(key)
    for key, value in moto.environ.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(folder)
    return Shell(folder, moto.environ)


def save_model(path: Path, coefficient: float = 1.0) -> None:
    """Save what looks like a fitted model to everything that does not unpickle it."""
    path.write_bytes(pickle.dumps({"coef_": coefficient, "_sklearn_version": "1.9.1"}))


def settings_file(folder: Path, image: str, more: str = "", **keys: str) -> Path:
    """Write endpoint.toml: the least that deploys, `keys` at its top and `more` below."""
    top = {"name": "wine", "model": "model.joblib", "image": image, "role": "skserve", **keys}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in top.items() if value)
    path = folder / "endpoint.toml"
    path.write_text(text + more)
    return path


def make_role(moto: Moto, service: str = "sagemaker.amazonaws.com") -> str:
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
             "Principal": {"Service": service}}]}  # fmt: skip
    moto.client("iam").create_role(RoleName="skserve", AssumeRolePolicyDocument=json.dumps(trust))
    return ROLE


DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"


def make_image(
    moto: Moto, tag: str = "1", media_type: str = DOCKER, architecture: str = "amd64",
    labels: dict[str, str] | None = None,
) -> str:  # fmt: skip
    """Put an image into moto's ECR as ECR would hold it, and return its URI by tag."""
    import hashlib

    ecr = moto.client("ecr")
    with contextlib.suppress(ecr.exceptions.RepositoryAlreadyExistsException):
        ecr.create_repository(repositoryName="skserve")
    config = json.dumps({"architecture": architecture, "os": "linux", "tag": tag,
                         "config": {"Labels": labels or {}}}).encode()  # fmt: skip
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    moto.steer(f"blob/{digest}", config, "PUT")
    layer = hashlib.sha256(tag.encode()).hexdigest()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": media_type,
        "config": {"mediaType": "x", "size": len(config), "digest": digest},
        "layers": [{"mediaType": "x", "size": 1, "digest": f"sha256:{layer}"}],
    })  # fmt: skip
    ecr.put_image(repositoryName="skserve", imageManifest=manifest, imageTag=tag,
                  imageManifestMediaType=media_type)  # fmt: skip
    return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/skserve:{tag}"


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry, and an engine that reaches it; its host name."""
    from tests.deployment import engine

    with engine.registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """`make cloud` as a process, with a bucket."""
    from tests.deployment import local_cloud

    # A busy machine gives a start more than a minute; SageMaker gives it eight.
    with local_cloud.running(
        tmp_path_factory.mktemp("cloud"), "--startup-seconds", "240"
    ) as started:
        started.account()
        yield started


@pytest.fixture(scope="session")
def on_cloud(cloud: LocalCloud, image: str) -> str:
    """The real image, pushed to the local cloud; its URI by digest."""
    return cloud.push(image)


@pytest.fixture(scope="session")
def pushed(hub: str) -> str:
    """The real image, built and pushed by build_and_push.sh; its URI by digest."""
    words = [str(ROOT / "build_and_push.sh"), "--registry", hub]
    environ = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(
        words, env=environ, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
