"""What `pack` makes, and what people make by hand, unpacked into the real container: it serves."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployment import package
from tests.deployment.conftest import ROOT
from tests.deployment.engine import until_up

EXAMPLES = ROOT / "examples"
ROWS = {
    "iris": "5.1,3.5,1.4,0.2\n",
    "regression": "0.04,0.05,0.06,0.02,-0.04,-0.03,-0.04,-0.002,0.02,-0.02\n",
    "wine": "13.7,1.9,2.4,17,120,2.4,2.1,0.3,1.5,5,1.0,2.9,800\n",
}


@contextmanager
def container(image: str, archive: Path, scratch: Path) -> Iterator[str]:
    """Run the image as SageMaker does: the archive unpacked to /opt/ml/model, read-only."""
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(unpacked)], check=True)
    for folder in (scratch, unpacked):
        folder.chmod(0o755)  # the container gives root up before it reads a model
    words = ["docker", "run", "--detach", "-p", "127.0.0.1::8080",
             "-v", f"{unpacked}:/opt/ml/model:ro", image, "serve"]  # fmt: skip
    name = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    try:
        port = subprocess.run(["docker", "port", name, "8080"], capture_output=True, text=True,
                              check=True).stdout.split()[0]  # fmt: skip
        until_up(f"http://{port}/ping")
        yield f"http://{port}/invocations"
    except BaseException:
        sys.stderr.write(subprocess.run(["docker", "logs", name], capture_output=True, text=True,
                                        check=False).stderr)  # fmt: skip
        raise
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)


def answer(url: str, body: str) -> list[str]:
    request = urllib.request.Request(
        url, body.encode(), {"Content-Type": "text/csv", "Accept": "text/csv"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.read().decode()).splitlines()


@pytest.mark.docker
@pytest.mark.parametrize("example", ROWS)
def test_the_packed_archive_of_each_example_serves(
    example: str, image: str, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    packed = package.pack(trained(example), tmp_path / "model.tar.gz")

    with container(image, packed.path, tmp_path) as url:
        assert len(answer(url, ROWS[example] * 3)) == 3
    assert packed.manifest["scikit_learn"]


@pytest.mark.docker
def test_an_archive_made_by_hand_as_aws_documents_it_serves(
    image: str, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    """The guide's layout: the model at the root, `code/inference.py` beside it, plain tar."""
    folder = str(trained("regression"))
    words = ["tar", "-czf", str(tmp_path / "model.tar.gz"), "-C", folder, "."]
    subprocess.run(words, check=True)

    with container(image, package.verify(tmp_path / "model.tar.gz").path, tmp_path) as url:
        (line,) = answer(url, ROWS["regression"])
        assert float(line) > 0


def test_every_example_is_packed_here() -> None:
    there = {path.parent.name for path in EXAMPLES.glob("*/train.py")}

    assert there - {"pipeline"} == {*ROWS}  # that one is two models in a chain
