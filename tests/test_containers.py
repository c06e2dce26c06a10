"""Several containers in a row, and answers in parts, through the real image."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
import requests

from tests.conftest import ROOT
from tests.test_image import container, docker, readable
from tests.test_image import pytestmark as needs_docker

pytestmark = needs_docker

TEN_PARTS = """
import time
def output_fn(prediction, accept):
    for number in range(10):
        yield f"{number}\\n"
        time.sleep(0.2)
"""


def test_a_scaler_and_a_classifier_answer_like_their_pipeline(image):
    script = ROOT / "examples" / "pipeline" / "run.sh"
    done = subprocess.run(["bash", script, image], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    chained, whole = (line.partition(":")[2].split() for line in done.stdout.splitlines())
    assert chained == whole == ["0", "2", "1"]


def test_a_generators_parts_arrive_as_they_are_made_or_not_as_a_success(image, models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models("iris"), folder)
    (folder / "inference.py").write_text(TEN_PARTS)
    with container(image, readable(folder)) as running:

        def ask() -> requests.Response:
            url = running.url + "/invocations"
            return requests.post(url, json=[[1, 2, 3, 4]], stream=True, timeout=30)

        assert len(ask().content) == 20  # the first of all requests also imports what it needs
        firsts = []
        for _ in range(3):  # a machine with other work may be late once
            began = time.perf_counter()
            arrived = [(time.perf_counter() - began, part) for part in ask().iter_content(None)]
            assert [part for _, part in arrived] == [b"%d\n" % number for number in range(10)]
            assert arrived[-1][0] - arrived[0][0] > 1
            firsts.append(arrived[0][0])
        assert min(firsts) < 0.3

        parts = ask().iter_content(None)
        next(parts)
        docker("kill", running.name)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(parts)
