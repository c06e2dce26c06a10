"""The image, from outside: built by its own Dockerfile, run as SageMaker and others run it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
from sklearn.datasets import load_wine

from tests.conftest import free_port
from tests.test_source import wheel

BASE = "python:3.13-slim"
WINES = load_wine().data
STRICT = ("--user", "10001", "--read-only", "--tmpfs", "/tmp", "--network", "none")
SIZE_LIMIT = 330 << 20  # bytes on top of the base


def docker(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check)


def engine() -> bool:
    return shutil.which("docker") is not None and docker("info", check=False).returncode == 0


def required() -> bool:
    return os.environ.get("SKSERVE_REQUIRE_DOCKER") == "1"


pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(not required() and not engine(), reason="no Docker engine answers here"),
]


@dataclass
class Container:
    """A running container; `url` is None where it has no network."""

    name: str
    url: str | None

    @property
    def log(self) -> str:
        done = docker("logs", self.name)
        return done.stdout + done.stderr

    @property
    def pid(self) -> int:
        """Return its first process, as the host numbers it."""
        return int(docker("inspect", "--format", "{{.State.Pid}}", self.name).stdout)

    def python(self, code: str) -> str:
        return docker("exec", self.name, "python", "-c", code).stdout

    def ready(self) -> bool:
        if self.url:
            try:
                return requests.get(self.url + "/ping", timeout=2).status_code == 200
            except requests.RequestException:
                return False
        if not listening(self.pid):  # to ask costs as much as the start that is waited for
            return False
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/ping').status)"
        return docker("exec", self.name, "python", "-c", ask, check=False).stdout == "200\n"


def listening(pid: int, port: int = 8080) -> bool:
    """Say whether a socket listens on the port, in the network that the process is in."""
    try:
        table = Path(f"/proc/{pid}/net/tcp").read_text()
    except OSError:  # it has ended
        return False
    return re.search(rf":{port:04X} 0{{8}}:0000 0A ", table) is not None


@contextmanager
def container(
    image: str, model: Path, *options: str, port: int = 8080, noisy: bool = False
) -> Iterator[Container]:
    """Run the image on a model folder until it is ready. Its log fails the test, if it is noisy."""
    published = None if "none" in options else free_port()
    ports = ["-p", f"127.0.0.1:{published}:{port}"] if published else []
    mount = ["-v", f"{model}:/opt/ml/model:ro"]
    name = docker("run", "--detach", *ports, *mount, *options, image, "serve").stdout.strip()
    running = Container(name, f"http://127.0.0.1:{published}" if published else None)
    try:
        deadline = time.monotonic() + 60
        process = Path(f"/proc/{running.pid}")
        while not running.ready():
            assert process.exists(), running.log
            assert time.monotonic() < deadline, running.log
            time.sleep(0.05)
        yield running
        if not noisy:
            assert "WARNING" not in running.log
            assert "ERROR" not in running.log
    finally:
        docker("rm", "--force", name)


@pytest.fixture
def wine(models: Callable[[str], Path]) -> Path:
    return readable(models("wine"))


def readable(folder: Path) -> Path:
    """Let everyone read a folder of this test, and reach it: pytest makes its own private."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def test_the_image_is_what_sagemaker_asks_for(image):
    found = json.loads(docker("image", "inspect", image).stdout)[0]
    config = found["Config"]

    assert config["Entrypoint"] == ["python", "-m", "skserve"]
    assert config["Labels"]["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    assert config["Labels"]["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert config["Labels"]["skserve.scikit-learn"] == "1.9"
    assert config["Labels"]["skserve.python"] == "3.13"
    assert (found["Os"], found["Architecture"]) == ("linux", "amd64")


def test_the_image_is_small_and_holds_nothing_it_does_not_need(image):
    sizes = [
        int(docker("image", "inspect", "--format", "{{.Size}}", one).stdout)
        for one in (image, BASE)
    ]
    look = "find / -xdev -type f -perm /6000; "
    look += "command -v gcc cc g++ git uv java nginx aws; ls -d /opt/ml; "
    look += "find /opt -type d -name tests; find /opt/venv -name '*.py' | wc -l; "
    look += "find /opt/venv/lib -name '*.pyc' | wc -l"
    found = docker("run", "--rm", "--entrypoint", "sh", image, "-c", look, check=False)

    assert sizes[0] - sizes[1] < SIZE_LIMIT
    sources, compiled = (int(line) for line in found.stdout.split())
    assert 0 < sources <= compiled + 5


SEND = """
import io, json, urllib.request, numpy as np
rows = json.loads({rows!r})
stream = io.BytesIO()
np.save(stream, np.array(rows))
bodies = {{
    "text/csv": "".join(",".join(map(str, row)) + "\\n" for row in rows).encode(),
    "application/json": json.dumps(rows).encode(),
    "application/jsonlines": "\\n".join(map(json.dumps, rows)).encode(),
    "application/x-npy": stream.getvalue(),
}}
for kind, body in bodies.items():
    headers = {{"Content-Type": kind, "Accept": "application/json"}}
    call = urllib.request.Request("http://127.0.0.1:8080/invocations", body, headers)
    print(json.dumps([row["indices"] for row in json.load(urllib.request.urlopen(call))]))
"""


def neighbours(lines: str) -> set[str]:
    answers = lines.strip().splitlines()
    assert len(answers) == 4
    return set(answers)


def test_it_answers_every_format(image, wine):
    with container(image, wine) as running:
        rows = WINES[:2].tolist()
        stream = io.BytesIO()
        np.save(stream, WINES[:2])
        bodies = {
            "text/csv": "".join(",".join(map(str, row)) + "\n" for row in rows).encode(),
            "application/json": json.dumps(rows).encode(),
            "application/jsonlines": "\n".join(map(json.dumps, rows)).encode(),
            "application/x-npy": stream.getvalue(),
        }
        for content_type, body in bodies.items():
            for accept in bodies:
                headers = {"Content-Type": content_type, "Accept": accept}
                answer = requests.post(
                    running.url + "/invocations", data=body, headers=headers, timeout=10
                )
                assert answer.status_code == 200, answer.text
                assert answer.headers["Content-Type"] == accept
        nearest = answer.content
        assert np.load(io.BytesIO(nearest)).shape == (2, 2, 10)

        assert docker("exec", running.name, "sh", "-c", "id -u").stdout == "0\n"
        status = running.python("print(open('/proc/1/status').read())")
        assert "Uid:\t65534" in status  # root was given up
        assert docker("stop", "--time", "30", running.name).returncode == 0
        state = docker("inspect", "--format", "{{.State.ExitCode}}", running.name).stdout
        assert state == "0\n"


def test_it_needs_no_root_no_network_and_no_writable_disk(image, wine):
    with container(image, wine, *STRICT) as running:
        answers = neighbours(running.python(SEND.format(rows=json.dumps(WINES[:2].tolist()))))

    assert len(answers) == 1


def test_a_model_only_root_can_read_is_served_by_root(image, wine, tmp_path):
    private = tmp_path / "private"
    shutil.copytree(wine, private)
    (private / "model.joblib").chmod(0o600)
    with container(image, private) as running:
        assert "nobody cannot read /opt/ml/model/model.joblib, so root serves" in running.log


def test_it_listens_where_sagemaker_says(image, wine):
    with container(image, wine, "-e", "SAGEMAKER_BIND_TO_PORT=9090", port=9090) as running:
        assert requests.get(running.url + "/", timeout=5).json()["method"] == "kneighbors"


def test_a_script_and_its_wheels_come_along_in_the_archive(image, models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models("iris"), folder)
    (folder / "code").mkdir()
    (folder / "code" / "serve_me.py").write_text(
        "import greeting\ndef predict_fn(data, model): return [greeting.WORD] * len(data)\n"
    )
    (folder / "code" / "requirements.txt").write_text("greeting\n")
    wheel(folder / "code" / "wheels", "greeting", "WORD = 'hello'")
    readable(folder)
    settings = ("-e", "SAGEMAKER_PROGRAM=serve_me.py")
    settings += ("-e", "SAGEMAKER_SUBMIT_DIRECTORY=/opt/ml/model/code")
    ask = (
        "import urllib.request as u; print(u.urlopen(u.Request("
        "'http://127.0.0.1:8080/invocations', b'[[1, 2, 3, 4]]')).read().decode())"
    )
    ask = ask.replace(
        "b'[[1, 2, 3, 4]]'", "b'[[1, 2, 3, 4]]', {'Content-Type': 'application/json'}"
    )
    with container(image, folder, *settings, *STRICT) as running:
        assert running.python(ask) == '["hello"]\n'


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), marks=pytest.mark.soak),
        ("--network", "none"),
        (*("--user", "10001", "--read-only", "--tmpfs", "/tmp:exec"), "--network", "none"),
    ],
    ids=["nobody", "nobody without a network", "10001 on a disk that is read-only"],
)
def test_requirements_may_replace_packages_of_the_image(image, models, tmp_path, options):
    folder = tmp_path / "model"
    shutil.copytree(models("iris"), folder)
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(
        "import urllib3\ndef predict_fn(data, model): return [urllib3.WORD]\n"
    )
    (folder / "code" / "requirements.txt").write_text("urllib3==2.0.1\n")
    wheel(folder / "code" / "wheels", "urllib3", "WORD = 'ours'", version="2.0.1")
    ask = (
        "import urllib.request as u; print(u.urlopen(u.Request("
        "'http://127.0.0.1:8080/invocations', b'[[1, 2, 3, 4]]',"
        "{'Content-Type': 'application/json'})).read().decode())"
    )
    with container(image, readable(folder), *options) as running:
        assert running.python(ask) == '["ours"]\n'


def test_a_folder_without_a_model_ends_with_one_sentence(image, tmp_path):
    done = docker(
        "run", "--rm", "-v", f"{readable(tmp_path)}:/opt/ml/model:ro", image, "serve", check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("skserve: /opt/ml/model holds no model")
    assert done.stderr.count("\n") == 1


def test_a_training_job_without_settings_ends_with_one_sentence(image):
    done = docker("run", "--rm", image, "train", check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("skserve: The job does not say what to train")
    assert done.stderr.count("\n") == 1
