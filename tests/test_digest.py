"""The digest of a model's folder, and what it keeps from being read into Python."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from skserve import digest
from skserve.config import Config
from skserve.errors import StartError
from skserve.inference import source
from skserve.inference.model import Model
from tests.conftest import Server, serving, start
from tests.servers import children

SHELL = "find -L . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum -z | sha256sum"

NAMES = ["model.joblib", "code/inference.py", "code/a\nb\\.py", "code/ä.txt", "Z", "a b", "-", "co"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with files of unusual names, and one of each content twice."""
    for at, name in enumerate(NAMES):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content {at // 2}")
    return tmp_path / "tree"


def test_the_digest_is_what_a_shell_prints_for_the_folder(tree):
    (tree / "linked").symlink_to(tree.parent / "elsewhere")
    (tree.parent / "elsewhere").write_text("linked")

    printed = subprocess.run(SHELL, shell=True, cwd=tree, capture_output=True, check=True).stdout

    assert printed.decode().split()[0] == digest.of_folder(tree)


def test_modes_times_and_empty_folders_are_no_part_of_it(tree):
    before = digest.of_folder(tree)
    (tree / "Z").chmod(0o700)
    os.utime(tree / "Z", (1, 1))
    (tree / "empty").mkdir()

    assert digest.of_folder(tree) == before


TREES = st.dictionaries(st.text("ab/", max_size=4), st.binary(max_size=3), max_size=3)


@given(TREES, TREES)
def test_other_names_or_contents_have_another_digest(one, other):
    digests = [
        digest.of_files({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
        for files in (one, other)
    ]

    assert (digests[0] == digests[1]) == (one == other)


REFUSED: dict[str, Callable[[Path], Any]] = {
    "a link to a folder": lambda path: path.symlink_to("code"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_an_archive_cannot_hold_has_no_digest(tree, what):
    REFUSED[what](tree / "odd")

    with pytest.raises(ValueError, match="odd is neither a file nor a folder"):
        digest.of_folder(tree)


SCRIPT = "from pathlib import Path\nPath({ran!r}).touch()\ndef predict_fn(X, model): return [1]\n"


@pytest.fixture
def model(model_with_script: Callable[..., Path], tmp_path: Path) -> Path:
    """A model whose script makes the file `ran` when it is imported."""
    return model_with_script(SCRIPT.format(ran=str(tmp_path / "ran")))


def _append_a_line(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


# What is done to the folder after its digest was taken.
CHANGES: dict[str, Callable[[Path], Any]] = {
    "the model": lambda folder: (folder / "model.joblib").write_bytes(b"other"),
    "the script": lambda folder: _append_a_line(folder / "code/inference.py"),
    "a module more": lambda folder: (folder / "code/sitecustomize.py").touch(),
    "bytecode": lambda folder: shutil.copytree(folder / "code", folder / "code/__pycache__"),
    "requirements": lambda folder: (folder / "code/requirements.txt").write_text("evil"),
    "a schema": lambda folder: (folder / "schema.json").write_text("{}"),
    "a hidden file": lambda folder: (folder / ".hidden").touch(),
    "a file less": lambda folder: (folder / "model.joblib").unlink(),
    "another name": lambda folder: (folder / "model.joblib").rename(folder / "model.pkl"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_refused_before_its_code_runs(model, tmp_path, change):
    before = digest.of_folder(model)
    CHANGES[change](model)

    with pytest.raises(StartError) as refused:
        Model.load(model, Config(model_dir=model, model_sha256=(before,)))

    assert str(refused.value) == (
        f"The files in {model} have the digest {digest.of_folder(model)}, but SKSERVE_MODEL_SHA256 "
        f"is {before}: they are not those that were packed, or the setting is of another model."
    )
    assert not (tmp_path / "ran").exists()


# Settings that name a model or code which lies outside of the folder.
ELSEWHERE = [
    {"model_file": "../other/model.joblib"},
    {"model_file": "/other/model.joblib"},
    {"program": "../../other.py"},
    {"program": "/other.py"},
    {"submit_directory": "s3://bucket/code.tar.gz"},
    {"submit_directory": "/other"},
    {"submit_directory": "file:///other"},
    {"submit_directory": "{model}/code/../../other"},
    {"submit_directory": "file://{model}/code/%2e%2e/%2e%2e/other"},
]


@pytest.mark.parametrize("named", ELSEWHERE)
def test_what_lies_outside_of_the_folder_is_refused(model, named):
    [(field, where)] = named.items()
    given = {field: where.format(model=model)}

    with pytest.raises(StartError, match="so SKSERVE_MODEL_SHA256 does not cover it"):
        source.fetch(model, Config(model_sha256=(digest.of_folder(model),), **given))


INSIDE = [{}, {"model_file": "model.joblib"}, {"program": "inference"}]
INSIDE += [{"submit_directory": "{model}/code"}, {"submit_directory": "file://{model}/code"}]


@pytest.mark.parametrize("named", INSIDE)
def test_what_lies_inside_is_served(model, named):
    given = {field: where.format(model=model) for field, where in named.items()}
    allowed = ("0" * 64, digest.of_folder(model))

    found = source.fetch(model, Config(model_sha256=allowed, **given))

    assert found is not None
    assert (found.folder, found.program) == (model / "code", "inference.py")


def test_another_digest_stops_the_start_with_one_sentence(model, tmp_path):
    server = start(model, tmp_path / "log", SKSERVE_MODEL_SHA256="a" * 64)

    assert server.process.wait(60) == 1
    assert server.log.read_text() == (
        f"skserve: The files in {model} have the digest {digest.of_folder(model)}, but "
        f"SKSERVE_MODEL_SHA256 is {'a' * 64}: they are not those that were packed, or the setting "
        "is of another model.\n"
    )


def test_a_worker_that_reads_the_model_later_checks_it_again(model, tmp_path):
    environ = {"SKSERVE_PRELOAD": "off", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    known = digest.of_folder(model)
    with serving(model, tmp_path / "log", SKSERVE_MODEL_SHA256=known, **environ) as server:
        assert server.post("[[1, 2, 3, 4]]").json() == [1]
        assert digest.of_folder(model) == known  # no bytecode was written beside the script
        CHANGES["the script"](model)
        (tmp_path / "ran").unlink()
        os.kill(children(server)[0], signal.SIGKILL)

        assert server.process.wait(60) == 1
        assert "have the digest" in server.log.read_text()
    assert not (tmp_path / "ran").exists()


def _loaded(server: Server, name: str, url: Path) -> requests.Response:
    return requests.post(
        server.url + "/models", json={"model_name": name, "url": str(url)}, timeout=60
    )


def test_of_many_models_those_are_loaded_whose_digest_is_named(add, tmp_path):
    one, other = (add(tmp_path, name, f"# {name}") for name in ("one", "other"))
    environ = {
        "SAGEMAKER_MULTI_MODEL": "true",
        "SKSERVE_MODEL_ROOT": str(tmp_path),
        "SKSERVE_MODEL_SHA256": f"{'0' * 64}, {digest.of_folder(one).upper()}",
    }
    with serving(tmp_path, tmp_path / "log", **environ) as server:
        assert _loaded(server, "one", one).status_code == 200
        refused = _loaded(server, "other", other)

        assert refused.status_code == 400
        assert digest.of_folder(other) in refused.json()["message"]
