"""model.tar.gz: the same input gives the same bytes, and what would fail later is refused now."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployment import package
from deployment.errors import Refused
from skserve import archive
from tests.deployment.conftest import save_model


def names(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tmp_path / "model.joblib")
    return tmp_path / "model.joblib"


def test_the_same_input_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    first = package.pack(model, tmp_path / "a.tar.gz")
    os.utime(model, (1, 1))
    model.chmod(0o600)
    second = package.pack(model, tmp_path / "b.tar.gz")

    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.digest == second.digest


CONTENTS = st.dictionaries(
    st.text("abcxyz-_", min_size=1, max_size=8).map(lambda name: f"{name}.txt"),
    st.binary(max_size=200), max_size=5,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=CONTENTS, other=CONTENTS)
def test_digests_are_equal_exactly_for_equal_content(
    files: dict[str, bytes], other: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("pack")
    packed = []
    for number, content in enumerate((files, other, files)):
        folder = base / str(number)
        folder.mkdir()
        save_model(folder / "model.joblib")
        for name, data in content.items():
            (folder / name).write_bytes(data)
        packed.append(package.pack(folder, base / f"{number}.tar.gz").digest)

    assert packed[0] == packed[2]
    assert (packed[0] == packed[1]) == (files == other)


def test_it_is_flat_and_carries_a_manifest(model: Path, tmp_path: Path) -> None:
    packed = package.pack(model, tmp_path / "a.tar.gz")

    assert names(packed.path) == ["model.joblib", archive.MANIFEST]
    assert packed.manifest["model"] == "model.joblib"
    assert packed.manifest["scikit_learn"] == packed.sklearn == "1.9.1"
    assert len(packed.manifest["sha256"]) == 64


def test_what_skserve_recorded_beside_the_model_is_repeated(model: Path, tmp_path: Path) -> None:
    record = {"numpy": "2.4.6", "python": "3.13.1", "feature_names": ["a", "b"], "secret": 1}
    (tmp_path / archive.RECORD).write_text(json.dumps(record))

    packed = package.pack(model, tmp_path / "a.tar.gz")

    assert packed.manifest["feature_names"] == ["a", "b"]
    assert "secret" not in packed.manifest


def test_litter_stays_out_and_links_are_followed(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "code" / "__pycache__").mkdir(parents=True)
    (folder / "code" / "__pycache__" / "x.pyc").write_bytes(b"")
    (folder / "code" / "inference.py").write_text("x = 1\n")
    for litter in ("._model.joblib", ".DS_Store"):
        (folder / litter).write_bytes(b"")
    (folder / "model.joblib").symlink_to(model)

    packed = package.pack(folder, tmp_path / "a.tar.gz")

    assert names(packed.path) == ["code/inference.py", "model.joblib", archive.MANIFEST]
    with tarfile.open(packed.path) as tar:
        assert all(member.isfile() for member in tar)


def test_a_link_to_a_folder_is_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data").symlink_to(tmp_path)

    with pytest.raises(Refused, match="link to a folder"):
        package.pack(folder, tmp_path / "a.tar.gz")


@pytest.mark.parametrize("count", [0, 2])
def test_none_or_two_models_are_refused_unless_chosen(count: int, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    for number in range(count):
        save_model(folder / f"{number}.joblib")

    with pytest.raises(Refused, match=f"it holds {count}"):
        package.pack(folder, tmp_path / "a.tar.gz")
    if count:
        assert package.pack(folder, tmp_path / "a.tar.gz", choice="1.joblib").manifest["model"]
    with pytest.raises(Refused, match="holds no 'x.joblib'"):
        package.pack(folder, tmp_path / "a.tar.gz", choice="x.joblib")


@pytest.mark.parametrize("text", ["def model_fn(folder): ...", "from mine import model_fn",
                                  "from mine import load as model_fn"])  # fmt: skip
def test_a_model_fn_makes_any_number_of_models_right(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text(text)

    assert "model" not in package.pack(folder, tmp_path / "a.tar.gz").manifest


def test_code_that_needs_the_network_is_noticed(model: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "inference.py").write_text("")
    assert package.pack(model, tmp_path / "a.tar.gz", code).needs_network == ""
    (code / "requirements.txt").write_text("nltk\n")
    assert "requirements.txt" in package.pack(model, tmp_path / "a.tar.gz", code).needs_network
    (code / "wheels").mkdir()
    (code / "wheels" / "nltk-1-py3-none-any.whl").write_bytes(b"")
    assert package.pack(model, tmp_path / "a.tar.gz", code).needs_network == ""


def by_hand(folder: Path, *words: str) -> Path:
    subprocess.run(["tar", *words], cwd=folder, check=True)
    return folder / "hand.tar.gz"


def test_an_archive_made_as_aws_shows_is_taken_as_it_is(model: Path) -> None:
    made = by_hand(model.parent, "-czf", "hand.tar.gz", "-C", ".", "./model.joblib")

    packed = package.pack(made, Path("unused"))

    assert packed.path == made
    assert packed.sklearn == "1.9.1"


def test_an_archive_with_a_folder_around_it_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "wrap").mkdir()
    save_model(tmp_path / "wrap" / "model.joblib")

    with pytest.raises(Refused, match="lies in one folder, 'wrap'") as caught:
        package.verify(by_hand(tmp_path, "-czf", "hand.tar.gz", "wrap"))
    assert "tar -C FOLDER" in caught.value.hint


def test_an_archive_with_a_link_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link.joblib").symlink_to(model)

    with pytest.raises(Refused, match="which is a link"):
        package.verify(by_hand(tmp_path, "-czf", "hand.tar.gz", "link.joblib"))


def test_an_archive_from_a_mac_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "._model.joblib").write_bytes(b"\0")

    with pytest.raises(Refused, match="which macOS adds"):
        package.verify(by_hand(tmp_path, "-czf", "hand.tar.gz", "._model.joblib", "model.joblib"))


def test_what_is_no_archive_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"not gzip")

    with pytest.raises(Refused, match=r"not a readable \.tar\.gz"):
        package.verify(path)


def test_a_model_changed_after_packing_is_noticed(model: Path, tmp_path: Path) -> None:
    packed = package.pack(model, tmp_path / "a.tar.gz")
    save_model(model, 9.0)
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(model, "model.joblib")
        text = json.dumps(dict(packed.manifest)).encode()
        member = tarfile.TarInfo(archive.MANIFEST)
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))

    with pytest.raises(Refused, match="not the file that its manifest describes"):
        package.verify(tmp_path / "b.tar.gz")


@pytest.mark.parametrize("name", ["model.onnx", "missing.joblib"])
def test_what_is_no_model_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")

    with pytest.raises(Refused):
        package.pack(tmp_path / name, tmp_path / "a.tar.gz")
