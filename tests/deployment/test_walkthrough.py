"""docs/40-training.md: every command of it, as a reader types it, with less data."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from tests.conftest import free_port
from tests.deployment.conftest import ROOT, Moto, make_image
from tests.test_image import docker, pytestmark  # noqa: F401 - the marks are this module's too

PAGE = ROOT / "docs" / "40-training.md"
ROWS = 2000
# What a test must do with less of, or elsewhere. build_and_push.sh has tests of its own.
INSTEAD = {
    ". .venv/bin/activate": ":",  # the tests' own environment comes first in PATH
    "generate.py catalogue": f"generate.py catalogue --rows {ROWS}",
    "IMAGE=$(./build_and_push.sh --region eu-west-1)": "IMAGE={pushed}",
    "train_local.sh job": "train_local.sh job {image}",
    "train_local.sh script": "train_local.sh script {image}",
    "serve_local.sh job/model": "serve_local.sh job/model {image} {port}",
    "serve_local.sh script/model": "serve_local.sh script/model {image} {port}",
    "localhost:8080": "localhost:{port}",
    "--wine 7": "--wine 7 --url http://127.0.0.1:{port}",
    "predict.sh catalogue/request.json": (
        "predict.sh catalogue/request.json application/json http://127.0.0.1:{port}"
    ),
    "--then-deploy": "--then-deploy --poll 0.05",
    "delete --yes": "delete --yes --poll 0.05",
}


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
def typed(image: str, moto: Moto, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Type the page's commands into one shell, in a copy of what they need."""
    here = tmp_path / "skserve"
    here.mkdir()
    here.chmod(0o755)
    for name in ("examples", "local_test", "deployment", "container"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "deploy.py", here)
    known = {"image": image, "port": free_port(), "pushed": make_image(moto)}
    lines = []
    for number, command in enumerate(commands()):
        for page, ours in INSTEAD.items():
            command = command.replace(page, ours.format(**known))
        lines += [f"echo '# {number}'", command]
    environ = moto.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        return subprocess.run(
            ["bash", "-e", "-c", "\n".join(lines)], cwd=here, env=environ, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
    finally:
        left = docker("ps", "--quiet", "--filter", f"publish={known['port']}").stdout.split()
        with contextlib.suppress(subprocess.CalledProcessError):
            docker("rm", "--force", *left)


def test_every_command_of_the_walkthrough_works(
    typed: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert typed.returncode == 0, typed.stdout + typed.stderr
    here = tmp_path / "skserve"
    wines = np.load(here / "catalogue" / "train" / "wines.npy")
    names = (here / "catalogue" / "names.csv").read_text().splitlines()
    _, indices = NearestNeighbors(n_neighbors=10).fit(wines).kneighbors(wines[7:8])

    # Both twins recommend what scikit-learn itself would, in its order.
    (first, second) = re.findall(
        rf"^Like {re.escape(names[7])}:\n((?:  .*\n)+)", typed.stdout, re.M
    )
    assert first == second
    assert [line.split("  ")[-1] for line in first.splitlines()] == [
        names[index] for index in indices[0] if index != 7
    ]
    expected = NearestNeighbors(n_neighbors=10).fit(wines).kneighbors(wines[:1])[1][0].tolist()
    (answer,) = re.findall(r'^(\[\{"distances.*?\}\])', typed.stdout, re.M)
    assert json.loads(answer)[0]["indices"] == expected
    assert "train_nearest_distance=" in typed.stdout
    assert "train.py has serving functions, so the code is in /opt/ml/model/code" in typed.stderr
    assert "wine-at-scale: deleted" in typed.stdout


def test_the_page_shows_the_hyperparameters_that_it_uses() -> None:
    shown = (ROOT / "examples" / "wine_at_scale" / "hyperparameters.json").read_text()

    assert f"```json\n{shown}```" in PAGE.read_text()
