"""Training in real containers: stops, mounts that cannot be written, several hosts."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_image import docker, pytestmark, readable  # noqa: F401 - the marks are ours too

FOREST = {"estimator": "sklearn.ensemble.RandomForestClassifier", "target": "cultivar"}
# A handler that saves, and none; process 1 would have ignored the signal for both.
SAVES = """
import os, signal, sys, time
def save(*_):
    open(os.environ["SM_MODEL_DIR"] + "/model.txt", "w").write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(100)
"""
PLAIN = "import time\nprint('ready', flush=True)\ntime.sleep(100)\n"


@pytest.fixture
def network() -> Iterator[str]:
    name = f"skserve-{uuid.uuid4().hex[:8]}"
    docker("network", "create", name)
    yield name
    docker("network", "rm", name)


def job(base: Path, script: str = "", **hyperparameters: str) -> Path:
    """Lay out a job whose script, if any, is `script`."""
    shutil.copytree(ROOT / "local_test" / "test_dir" / "input", base / "input")
    if script:
        (base / "code").mkdir()
        (base / "code" / "train.py").write_text(script)
        hyperparameters["sagemaker_program"] = "train.py"
    (base / "input" / "config" / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    return base


def started(image: str, *options: str | Path) -> str:
    return docker("run", "--detach", *options, image, "train").stdout.strip()


def ended(name: str) -> tuple[int, str]:
    """Wait for a container, remove it, return its exit code and log."""
    code = int(docker("wait", name).stdout)
    done = docker("logs", name)
    docker("rm", name)
    return code, done.stdout + done.stderr


def until_ready(name: str) -> None:
    deadline = time.monotonic() + 60
    while "ready" not in docker("logs", name).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_docker_stop_saves_the_model_of_a_script_that_handles_it_and_ends_any_other(
    image, tmp_path
):
    saves, plain = job(tmp_path / "saves", SAVES), job(tmp_path / "plain", PLAIN)
    names = [started(image, "-v", f"{base}:/opt/ml") for base in (saves, plain)]
    for name in names:
        until_ready(name)
    began = time.monotonic()
    docker("stop", "--time", "120", *names)
    assert time.monotonic() - began < 60

    (saved, _), (stopped, log) = (ended(name) for name in names)

    assert (saved, stopped) == (0, 143)
    assert (saves / "model" / "model.txt").read_text() == "saved"
    first = (plain / "output" / "failure").read_text().splitlines()[0]
    assert "no model was saved: to save one, handle SIGTERM in the script" in first
    assert first in log
    assert "Traceback" not in log


def test_two_hosts_with_a_shared_output_make_one_model_and_do_not_clash(image, network, tmp_path):
    hosts = ["algo-1", "algo-2"]
    script = """
import os, socket, time
from pathlib import Path
for host in ("algo-1", "algo-2"):
    socket.getaddrinfo(host, None)
Path("/opt/ml/output", os.environ["SM_CURRENT_HOST"]).touch()
while not all(Path("/opt/ml/output", host).exists() for host in ("algo-1", "algo-2")):
    time.sleep(0.1)  # who leaves the network takes its name along
Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(os.environ["SM_CURRENT_HOST"])
"""
    shared = tmp_path / "shared"
    for part in ("model", "output"):
        (shared / part).mkdir(parents=True)
    names = []
    for host in hosts:
        base = job(tmp_path / host, script)
        settings = {"current_host": host, "hosts": hosts}
        (base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(settings))
        names.append(started(
            image, "--network", network, "--network-alias", host, "-v", f"{base}:/opt/ml",
            "-v", f"{shared}/model:/opt/ml/model", "-v", f"{shared}/output:/opt/ml/output",
        ))  # fmt: skip

    results = [ended(name) for name in names]

    assert [code for code, _ in results] == [0, 0], results
    assert (shared / "model" / "model.txt").read_text() == "algo-1"
    assert [path.name for path in (shared / "model").iterdir()] == ["model.txt"]
    assert not (shared / "output" / "failure").exists()


def test_a_job_trains_from_read_only_input_as_any_user(image, tmp_path):
    base = job(tmp_path / "ml", **FOREST, n_estimators="5", folds="0")
    results = tmp_path / "results"
    results.mkdir(mode=0o777)
    results.chmod(0o777)
    mounts = ["-v", f"{readable(base)}/input:/opt/ml/input:ro"]
    mounts += [word for part in ("model", "output") for word in ("-v", f"{results}:/opt/ml/{part}")]
    strict = ["--user", "10001", "--read-only", "--tmpfs", "/tmp", "--network", "none"]

    done = docker("run", "--rm", *strict, *mounts, image, "train", check=False)
    nowhere = docker("run", "--rm", *strict, "-v", f"{base}:/opt/ml:ro", image, "train",
                     check=False)  # fmt: skip
    (results / "roots").mkdir()
    mounts[-3] = f"{results}/roots:/opt/ml/model"
    roots = docker("run", "--rm", *strict, *mounts, image, "train", check=False)

    assert done.returncode == 0, done.stderr
    assert (results / "model.joblib").is_file()
    assert nowhere.returncode == 1
    assert (
        "/opt/ml/model cannot be written (Read-only file system); mount /opt/ml" in nowhere.stderr
    )
    assert roots.returncode == 1
    assert "/opt/ml/model cannot be written (Permission denied)" in roots.stderr
    assert "fitting" not in roots.stderr  # hours of it would be lost


def test_train_local_runs_the_folder_that_comes_with_it(image, tmp_path):
    folder = tmp_path / "test_dir"
    shutil.copytree(ROOT / "local_test" / "test_dir" / "input", folder / "input")
    script = ROOT / "local_test" / "train_local.sh"

    done = subprocess.run([script, folder, image], capture_output=True, text=True, check=False)
    wrong = subprocess.run([script, tmp_path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "validation_accuracy=0.9" in done.stdout
    assert (folder / "output" / "data" / "report.html").is_file()
    assert wrong.returncode == 1
    assert "usage: train_local.sh" in wrong.stderr
