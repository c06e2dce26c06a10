"""build_and_push.sh and a real registry: what arrives is what SageMaker takes, or is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployment import registry
from deployment.errors import Refused
from tests.deployment.conftest import DOCKER, OCI, REGION, ROOT, Moto, make_image

TINY = "FROM scratch\nCOPY container /container\nLABEL skserve.scikit-learn=1.9\n"


@dataclass
class Pushed:
    code: int
    out: str
    err: str


@dataclass
class Tree:
    """A copy of what the script needs, with a Dockerfile that builds in a second."""

    folder: Path
    registry: str

    def push(self, *words: str, path: str = "", code: int | None = 0) -> Pushed:
        environ = os.environ | {"PYTHON": sys.executable}
        environ["PATH"] = f"{path}:{environ['PATH']}" if path else environ["PATH"]
        where = ["--registry", self.registry] if self.registry else []
        done = subprocess.run(
            [str(self.folder / "build_and_push.sh"), *where, *words],
            env=environ, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return Pushed(done.returncode, done.stdout, done.stderr)

    def git(self, *words: str) -> str:
        named = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *named, *words], cwd=self.folder, capture_output=True,
                              text=True, check=True)  # fmt: skip
        return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in ("build_and_push.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "deployment", folder / "deployment",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    # `deployment` shares one module with the program.
    (folder / "requirements").mkdir()
    (folder / "requirements" / "x.txt").write_text("")
    (folder / "container").mkdir()
    (folder / "container" / "x.py").write_text("x = 1\n")
    (folder / "Dockerfile").write_text(TINY)
    (folder / ".dockerignore").write_text("")
    (folder / ".gitignore").write_text("__pycache__\n")
    made = Tree(folder, "localhost:1")
    made.git("init", "--quiet")
    made.git("add", ".")
    made.git("commit", "--quiet", "-m", "x")
    return made


def put(hub: str, tag: str, media_type: str, architecture: str) -> None:
    """Put an image into the registry as another tool would have pushed it."""
    config = json.dumps({"architecture": architecture, "os": "linux", "config": {}}).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    start = urllib.request.Request(f"http://{hub}/v2/skserve/blobs/uploads/", method="POST")
    with urllib.request.urlopen(start, timeout=10) as response:
        there = response.headers["Location"]
    _put(f"{there}&digest={digest}", config, "application/octet-stream")
    kind = "oci.image.config.v1" if media_type == OCI else "docker.container.image.v1"
    about = {"mediaType": f"application/vnd.{kind}+json", "size": len(config), "digest": digest}
    manifest = {"schemaVersion": 2, "mediaType": media_type, "layers": [], "config": about}
    _put(f"http://{hub}/v2/skserve/manifests/{tag}", json.dumps(manifest).encode(), media_type)


def _put(url: str, body: bytes, kind: str) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": kind}, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


@pytest.mark.docker
def test_it_pushes_once_and_prints_the_digest_alone(hub: str, tree: Tree) -> None:
    tree.registry = hub
    tag = f"0.1.0-{tree.git('rev-parse', '--short=12', 'HEAD')}"

    first = tree.push()
    again = tree.push()

    found = registry.look(f"{hub}/skserve:{tag}", None)
    assert found is not None
    assert found.media_type == DOCKER
    assert found.labels["skserve.scikit-learn"] == "1.9"
    assert first.out == again.out == f"{hub}/skserve@{found.digest}\n"
    assert "nothing is built or pushed" in again.err


def test_a_changed_file_makes_another_tag(tree: Tree) -> None:
    def tag() -> str:
        return tree.push("--dry-run").err.rsplit("verify ", 1)[1]

    clean = tag()
    (tree.folder / "container" / "x.py").write_text("x = 2\n")
    dirty = tag()
    (tree.folder / "container" / "new.py").write_text("")
    untracked = tag()
    (tree.folder / "notes.txt").write_text("not in the image")

    assert len({clean, dirty, untracked}) == 3
    assert tag() == untracked


@pytest.mark.docker
@pytest.mark.parametrize(
    ("media_type", "architecture", "reason", "way_out"),
    [
        (OCI, "amd64", "its manifest is application/vnd.oci.image", "oci-mediatypes=false"),
        (DOCKER, "arm64", "built for linux/arm64, and linux/amd64 is needed", "--platform"),
    ],
)
def test_what_sagemaker_would_reject_is_refused_with_the_way_out(
    hub: str, tree: Tree, media_type: str, architecture: str, reason: str, way_out: str
) -> None:
    tree.registry = hub
    tag = f"bad-{architecture}"
    put(hub, tag, media_type, architecture)

    done = tree.push("--tag", tag, code=3)

    assert done.out == ""
    assert reason in done.err
    assert way_out in done.err.split("way out:")[1]


@pytest.mark.docker
def test_an_image_of_the_wrong_architecture_is_never_pushed(hub: str, tree: Tree) -> None:
    """The base here is for amd64 only, so asking for arm64 builds the wrong thing, or nothing."""
    tree.registry = hub
    (tree.folder / "Dockerfile").write_text("ARG BASE=python:3.13-slim\nFROM ${BASE}\n")

    done = tree.push("--platform", "linux/arm64", "--tag", "arm", code=None)

    assert done.code in (1, 3)
    assert done.out == ""
    assert registry.look(f"{hub}/skserve:arm", None) is None


@pytest.mark.soak  # half a gigabyte through a registry; test_cloud.py pushes the image, too
@pytest.mark.docker
def test_the_real_image_arrives_as_sagemaker_takes_it(pushed: str) -> None:
    found = registry.look(pushed, None)

    assert found is not None
    assert (found.media_type, found.architecture) == (DOCKER, "amd64")
    assert found.labels["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    assert found.labels["skserve.scikit-learn"]


def test_buildx_is_told_to_make_one_docker_manifest_without_attestations(
    tree: Tree, tmp_path: Path
) -> None:
    """There is no buildx here, so a stand-in records what it would be told."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "docker").write_text("#!/bin/sh\nexit 0\n")
    (fake / "docker").chmod(0o755)

    done = tree.push("--dry-run", "--platform", "linux/arm64", "--", "--build-arg", "SKLEARN=1.5",
                     path=str(fake))  # fmt: skip

    (command,) = [line for line in done.err.splitlines() if "buildx build" in line]
    for word in ("--provenance=false", "--sbom=false", "oci-mediatypes=false", "type=docker",
                 "--platform linux/arm64", "--build-arg SKLEARN=1.5"):  # fmt: skip
        assert word in command
    assert done.out == ""


@pytest.mark.parametrize("words", [["--platform", "windows"], ["--nonsense"], ["--tag"],
                                   ["--account", "12"], ["--tag", "a b"]])  # fmt: skip
def test_wrong_words_are_wrong_usage(words: list[str], tree: Tree) -> None:
    assert tree.push(*words, code=2).out == ""


@pytest.mark.parametrize(
    ("region", "host"),
    [
        (REGION, "123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
        ("cn-north-1", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com"),
    ],
)
def test_each_partition_has_its_own_host(region: str, host: str, moto: Moto) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deployment.registry", "--region", region, "--account",
         "123456789012", "host"],
        cwd=ROOT, env=moto.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == host


def test_the_repository_is_made_once_scanned_and_immutable(
    moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in moto.environ.items():
        monkeypatch.setenv(key, value)
    cloud = registry.Cloud(REGION)

    assert registry.ensure(cloud, "team/skserve", "", 5)
    assert not registry.ensure(cloud, "team/skserve", "", 5)

    ecr = moto.client("ecr")
    (found,) = ecr.describe_repositories()["repositories"]
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert found["imageScanningConfiguration"] == {"scanOnPush": True}
    kept = ecr.get_lifecycle_policy(repositoryName="team/skserve")["lifecyclePolicyText"]
    assert json.loads(kept)["rules"][0]["selection"]["countNumber"] == 5
    assert registry.password(cloud, "")


def test_one_process_opens_ecr_and_says_what_it_holds(moto: Moto) -> None:
    uri = make_image(moto, "held")
    words = [sys.executable, "-m", "deployment.registry", "open", "skserve"]
    given: dict[str, Any] = {"cwd": ROOT, "env": moto.environ, "capture_output": True, "text": True}

    held = subprocess.run([*words, "held"], **given, check=False)
    assert held.returncode == 0, held.stderr
    missing = subprocess.run([*words, "missing"], **given, check=False)

    host, digest = held.stdout.splitlines()
    assert host == uri.split("/")[0]
    assert digest.startswith("sha256:")
    assert "docker login" not in held.stderr
    # Nothing is held under this tag, so Docker is logged in, and here no such host answers.
    assert missing.returncode == 1
    assert "+ docker login --username AWS" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_nothing_listens_is_a_sentence() -> None:
    with pytest.raises(Exception, match="cannot be reached"):
        registry.verify("localhost:1/skserve:x", "amd64", None)


def test_an_index_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    kind = "application/vnd.oci.image.index.v1+json"
    monkeypatch.setattr(registry, "_get", lambda url, accept: (index, kind))

    with pytest.raises(Refused, match="image.index"):
        registry.verify("localhost:1/skserve:x", "amd64", None)
