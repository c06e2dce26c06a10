"""What takes minutes: images for the oldest and the newest scikit-learn, and large models."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from tests.conftest import ROOT
from tests.test_image import container, docker, readable
from tests.test_image import pytestmark as needs_docker

pytestmark = [*needs_docker, pytest.mark.soak]


@pytest.mark.parametrize(("sklearn", "python"), [("1.9", "3.13"), ("1.3", "3.11")])
def test_a_model_meets_its_own_version(sklearn, python, tmp_path):
    """Train inside an image, serve by the same one; then the neighbour image says what is wrong."""
    subprocess.run(["bash", ROOT / "../shared/tools/base-image.sh", python], check=True)
    tag = f"skserve-soak:{sklearn}"
    build = ["docker", "build", "--quiet", "--tag", tag, str(ROOT)]
    build += ["--build-arg", f"SKLEARN={sklearn}", "--build-arg", f"PYTHON_VERSION={python}"]
    subprocess.run(build, env={**os.environ, "DOCKER_BUILDKIT": "0"}, check=True)
    model = tmp_path / "model"
    model.mkdir(mode=0o777)
    model.chmod(0o777)
    train = ROOT / "examples" / "wine" / "train.py"
    mounts = ["-v", f"{train}:/train.py:ro", "-v", f"{model}:/out"]
    docker("run", "--rm", *mounts, "--entrypoint", "python", tag, "/train.py", "/out")

    with container(tag, readable(model)) as running:
        described = requests.get(running.url + "/", timeout=5).json()
        assert described["versions"]["saved_with_scikit-learn"].startswith(sklearn)
        payload = (ROOT / "local_test/payloads/wine.csv").read_bytes()
        headers = {"Content-Type": "text/csv"}
        answer = requests.post(running.url + "/invocations", payload, headers=headers, timeout=10)
        assert [row["indices"][0] for row in answer.json()] == [0, 1]


@pytest.mark.parametrize(("accelerate", "most"), [("off", 1.15), ("auto", 1.6)])
def test_the_workers_share_a_large_model(image, accelerate, most):
    """Run the benchmark: 432 MB add about their size, and half of it again for the fast path."""
    command = [sys.executable, ROOT / "benchmarks" / "footprint.py", image, accelerate]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stdout)

    added = [float(line.split()[-2]) for line in done.stdout.splitlines() if line.endswith("x")]
    assert len(added) == 2
    assert max(added) < most


def test_the_image_with_parquet_reads_it_without_a_writable_disk(models):
    """Build it, ask it for Parquet and Arrow, and say what it weighs beside the plain one."""
    tag = "skserve-soak:1.9-parquet"
    build = [
        "docker",
        "build",
        "--quiet",
        "--tag",
        tag,
        "--build-arg",
        "FORMATS=parquet",
        str(ROOT),
    ]
    subprocess.run(build, env={**os.environ, "DOCKER_BUILDKIT": "0"}, check=True)
    table = pa.table({"a": [1.0], "b": [1.0], "c": [1.0]})
    body = io.BytesIO()
    pq.write_table(table, body)
    options = ("--user", "10001", "--read-only", "--tmpfs", "/tmp:noexec")

    with container(tag, readable(models("named")), *options) as running:
        for form in ("application/x-parquet", "application/vnd.apache.arrow.stream"):
            headers = {"Content-Type": "application/x-parquet", "Accept": form}
            answer = requests.post(
                running.url + "/invocations", body.getvalue(), headers=headers, timeout=30
            )
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, form)
        broken = requests.post(
            running.url + "/invocations", body.getvalue()[:-9], headers=headers, timeout=30
        )
        assert broken.status_code == 400
    sizes = docker("image", "inspect", "--format", "{{.Size}}", tag, "python:3.13-slim").stdout
    print("bytes with Parquet, bytes of the base:", *sizes.split())
