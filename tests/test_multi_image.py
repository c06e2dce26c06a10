"""Many models in the image: the contract's sequence by curl, and models that want all memory."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.conftest import free_port
from tests.many_models import ManyModels
from tests.servers import until
from tests.test_image import Container, docker, readable
from tests.test_image import pytestmark as needs_docker

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


@contextmanager
def contained(image: str, root: Path, options: Sequence[str] = ()) -> Iterator[ManyModels]:
    """Run the image on a folder of models until it is told to end."""
    published = free_port()
    options = ["-p", f"127.0.0.1:{published}:8080", *options]
    options += ["-v", f"{readable(root)}:/opt/ml/models:ro", "-e", "SAGEMAKER_MULTI_MODEL=true"]
    name = docker("run", "--detach", *options, image, "serve").stdout.strip()
    running = Container(name, f"http://127.0.0.1:{published}")
    try:
        until(running.ready, 60)
        yield ManyModels(running, Path("/opt/ml/models"))
        assert docker("stop", "--time", "30", name).returncode == 0
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout == "0\n"
        assert "Traceback" not in running.log
    finally:
        docker("rm", "--force", name)


@pytest.fixture(scope="module")
def running(image, add, tmp_path_factory) -> Iterator[ManyModels]:
    """Return a container of 1 GiB with a read-only disk and a user without a name."""
    root = tmp_path_factory.mktemp("models")
    scripts = {"m1": "", "allocates": ALLOCATES, "starves": STARVES, "prints": PRINTS,
               "large": LARGE}  # fmt: skip
    for name, script in scripts.items():
        add(root / name, "model", script)
    options = ["--memory", MEMORY, "--memory-swap", MEMORY]
    options += ["--user", "10001", "--read-only", "--tmpfs", "/tmp"]
    with contained(image, root, options) as running:
        yield running


def load(running: ManyModels, name: str, model: str = "") -> requests.Response:
    return running.load(name, f"/opt/ml/models/{model or name}/model")


def test_the_contracts_sequence_by_curl(running):
    script = SEQUENCE.replace("PORT", running.server.url.rpartition(":")[2])
    done = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout.splitlines()[0]) == {"models": []}
    assert done.stdout.splitlines()[1:] == ["200", "409", "[0]", "200", "404"]


def test_a_model_that_wants_all_memory_hurts_only_itself(running):
    """The kernel ends the one that grows, although another is larger."""
    for name in ("m1", "large", "allocates"):
        assert load(running, name).status_code == 200
    answer = running.invoke("allocates", "99,3.5,1.4,0.2")
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "out_of_memory")
    assert "ran out of memory" in answer.json()["error"]["message"]
    answer = load(running, "starves")
    assert (answer.status_code, answer.json()["code"]) == (507, 507)
    assert "memory" in answer.json()["message"]
    for name in ("m1", "large", "allocates"):
        assert running.invoke(name).json() == [0]
    assert [running.unload(name).status_code for name in ("m1", "large", "allocates")] == [200] * 3
    assert running.unload("starves").status_code == 404


def test_a_model_that_prints_a_gigabyte_is_loaded_and_alone_with_it(running):
    load(running, "m1")
    began = time.monotonic()
    assert load(running, "prints").status_code == 200
    took = time.monotonic() - began
    assert running.invoke("m1").json() == [0]
    assert took < 60
    assert [running.unload(name).status_code for name in ("m1", "prints")] == [200] * 2


@pytest.mark.soak
def test_pages_over_250_models(image, add, tmp_path):
    add(tmp_path / "models" / "m1", "model")
    with contained(image, tmp_path / "models") as running:
        names = sorted(f"model-{number}" for number in range(250))
        assert [load(running, one, "m1").status_code for one in names] == [200] * 250
        seen, sizes, query = [], [], {}
        while True:
            page = requests.get(running.server.url + "/models", query, timeout=5).json()
            seen += [one["modelName"] for one in page["models"]]
            sizes.append(len(page["models"]))
            if "nextPageToken" not in page:
                break
            query["next_page_token"] = page["nextPageToken"]
        assert (seen, sizes) == (names, [100, 100, 50])
        assert {running.invoke(one).text.strip() for one in names} == {"[0]"}
        # Root is given up by each model's process, and kept by what has to fork the next.
        ask = "grep -h Uid: /proc/[0-9]*/status"
        users = docker("exec", running.server.name, "sh", "-c", ask)
        assert users.stdout.count("Uid:\t65534") == 250
        assert [running.unload(one).status_code for one in names] == [200] * 250
