"""Many models in the image: the contract's sequence by curl, and models that want all memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import free_port
from tests.test_image import docker, readable
from tests.test_image import pytestmark as needs_docker
from tests.test_server import until

pytestmark = needs_docker

MEMORY = "1g"
ALLOCATES = """
def predict_fn(data, model):
    held = []
    while data[0, 0] > 10:
        held.append(bytearray(b"x" * (8 << 20)))
    return model.predict(data)
"""
STARVES = "held = []\nwhile True: held.append(bytearray(b'x' * (8 << 20)))\n"
PRINTS = """
import os
for _ in range(1000): os.write(1, b"x" * 999_999 + b"\\n")
"""
LARGE = "held = bytearray(b'x' * (400 << 20))\n"

# As contract section 4.5 prints it.
SEQUENCE = """
curl -fsS localhost:PORT/models
curl -s -o /dev/null -w '%{http_code}\\n' -XPOST localhost:PORT/models -H 'Content-Type: application/json' -d '{"model_name":"m1","url":"/opt/ml/models/m1/model"}'
curl -s -o /dev/null -w '%{http_code}\\n' -XPOST localhost:PORT/models -H 'Content-Type: application/json' -d '{"model_name":"m1","url":"/opt/ml/models/m1/model"}'
curl -s -XPOST localhost:PORT/models/m1/invoke -H 'Content-Type: text/csv' -d '5.1,3.5,1.4,0.2'; echo
curl -s -o /dev/null -w '%{http_code}\\n' -XDELETE localhost:PORT/models/m1
curl -s -o /dev/null -w '%{http_code}\\n' -XDELETE localhost:PORT/models/m1
"""  # noqa: E501


@pytest.fixture(scope="module")
def port(image, models: Callable[[str], Path], tmp_path_factory) -> Iterator[int]:
    """Return the port of a container of 1 GiB with a read-only disk and a user without a name."""
    root = tmp_path_factory.mktemp("models")
    scripts = {"m1": "", "allocates": ALLOCATES, "starves": STARVES, "prints": PRINTS,
               "large": LARGE}  # fmt: skip
    for name, script in scripts.items():
        shutil.copytree(models("iris"), root / name / "model")
        if script:
            (root / name / "model" / "code").mkdir()
            (root / name / "model" / "code" / "inference.py").write_text(script)
    published = free_port()
    options = ["-p", f"127.0.0.1:{published}:8080", "-v", f"{readable(root)}:/opt/ml/models:ro"]
    options += ["-e", "SAGEMAKER_MULTI_MODEL=true", "--memory", MEMORY, "--memory-swap", MEMORY]
    options += ["--user", "10001", "--read-only", "--tmpfs", "/tmp"]
    name = docker("run", "--detach", *options, image, "serve").stdout.strip()
    try:
        until(lambda: answers(published), 60)
        yield published
        assert docker("stop", "--time", "30", name).returncode == 0
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout == "0\n"
        assert "Traceback" not in docker("logs", name).stderr
    finally:
        docker("rm", "--force", name)


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/ping", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def load(port: int, name: str, model: str = "") -> requests.Response:
    asked = {"model_name": name, "url": f"/opt/ml/models/{model or name}/model"}
    return requests.post(f"http://127.0.0.1:{port}/models", json=asked, timeout=120)


def invoke(port: int, name: str, first: float = 5.1) -> requests.Response:
    url = f"http://127.0.0.1:{port}/models/{name}/invoke"
    headers = {"Content-Type": "text/csv"}
    return requests.post(url, f"{first},3.5,1.4,0.2", headers=headers, timeout=120)


def unload(port: int, name: str) -> int:
    return requests.delete(f"http://127.0.0.1:{port}/models/{name}", timeout=60).status_code


def test_the_contracts_sequence_by_curl(port):
    script = SEQUENCE.replace("PORT", str(port))
    done = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout.splitlines()[0]) == {"models": []}
    assert done.stdout.splitlines()[1:] == ["200", "409", "[0]", "200", "404"]


def test_a_model_that_wants_all_memory_hurts_only_itself(port):
    """The kernel ends the one that grows, although another is larger."""
    for name in ("m1", "large", "allocates"):
        assert load(port, name).status_code == 200
    answer = invoke(port, "allocates", 99)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "out_of_memory")
    assert "ran out of memory" in answer.json()["error"]["message"]
    answer = load(port, "starves")
    assert (answer.status_code, answer.json()["code"]) == (507, 507)
    assert "memory" in answer.json()["message"]
    for name in ("m1", "large", "allocates"):
        assert invoke(port, name).json() == [0]
    assert [unload(port, name) for name in ("m1", "large", "allocates")] == [200] * 3
    assert unload(port, "starves") == 404


def test_a_model_that_prints_a_gigabyte_is_loaded_and_alone_with_it(port):
    load(port, "m1")
    began = time.monotonic()
    assert load(port, "prints").status_code == 200
    took = time.monotonic() - began
    assert invoke(port, "m1").json() == [0]
    assert took < 60
    assert [unload(port, name) for name in ("m1", "prints")] == [200] * 2


@pytest.mark.soak
def test_pages_over_250_models(image, models, tmp_path):
    root = tmp_path / "models"
    shutil.copytree(models("iris"), root / "m1" / "model")
    published = free_port()
    options = ["-p", f"127.0.0.1:{published}:8080", "-v", f"{readable(root)}:/opt/ml/models:ro"]
    name = docker("run", "--detach", *options, "-e", "SAGEMAKER_MULTI_MODEL=true", image, "serve")
    try:
        until(lambda: answers(published), 60)
        names = sorted(f"model-{number}" for number in range(250))
        assert [load(published, one, "m1").status_code for one in names] == [200] * 250
        seen, sizes, query = [], [], {}
        while True:
            page = requests.get(f"http://127.0.0.1:{published}/models", query, timeout=5).json()
            seen += [one["modelName"] for one in page["models"]]
            sizes.append(len(page["models"]))
            if "nextPageToken" not in page:
                break
            query["next_page_token"] = page["nextPageToken"]
        assert (seen, sizes) == (names, [100, 100, 50])
        assert {invoke(published, one).text.strip() for one in names} == {"[0]"}
        # Root is given up by each model's process, and kept by what has to fork the next.
        users = docker("exec", name.stdout.strip(), "sh", "-c", "grep -h Uid: /proc/[0-9]*/status")
        assert users.stdout.count("Uid:\t65534") == 250
        assert [unload(published, one) for one in names] == [200] * 250
    finally:
        docker("rm", "--force", name.stdout.strip())
