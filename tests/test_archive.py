"""What can be learned of a model directory without running it."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skserve import archive

X = np.random.default_rng(0).normal(size=(5000, 30))


def fitted() -> object:
    """A pipeline whose data is long enough to cross the scan's chunks."""
    return make_pipeline(StandardScaler(), NearestNeighbors()).fit(X)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 1), ("bz2", 1), ("xz", 1), ("lzma", 1)])
def test_the_version_is_found_in_every_compression_of_joblib(tmp_path, compress):
    path = tmp_path / "model.joblib"
    joblib.dump(fitted(), path, compress=compress)

    assert archive.pickled_with(path) == sklearn.__version__


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_version_is_found_in_every_protocol(tmp_path, protocol):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(LinearRegression().fit(X[:, :2], X[:, 2]), protocol))

    assert archive.pickled_with(path) == sklearn.__version__


def test_the_version_is_found_in_a_skops_file(tmp_path):
    path = tmp_path / "model.skops"
    skops.io.dump(fitted(), path)

    assert archive.pickled_with(path) == sklearn.__version__


def test_the_outermost_estimators_version_wins(tmp_path):
    path = tmp_path / "model.joblib"
    inner = pickle.dumps({"_sklearn_version": "0.24.2"})
    outer = pickle.dumps({"_sklearn_version": "1.3.2"})
    path.write_bytes(inner + outer)

    assert archive.pickled_with(path) == "1.3.2"


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04N.", b"x\x9c", b"\x1f\x8b", b"PK\x03\x04", b"_sklearn_version"]
)
def test_a_file_without_a_version_says_nothing(tmp_path, content):
    path = tmp_path / "model.joblib"
    path.write_bytes(content)

    assert archive.pickled_with(path) is None


def test_scanning_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "model.joblib"
    path.write_bytes(pickle.dumps([Evil(), {"_sklearn_version": "1.9.0"}]))

    assert archive.pickled_with(path) == "1.9.0"
    assert not (tmp_path / "ran").exists()


def test_hidden_files_and_folders_are_no_models(tmp_path):
    for name in ("b.joblib", "._b.joblib", "a.PKL", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.joblib").mkdir()

    assert [path.name for path in archive.find_models(tmp_path)] == ["a.PKL", "b.joblib"]


def tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for member in members:
            file.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, 1 if kind == tarfile.REGTYPE else 0
    return info


def test_an_archive_is_unpacked(tmp_path):
    path = tar(tmp_path / "a.tar.gz", member("code/inference.py"))

    archive.extract(path, tmp_path / "out")

    assert (tmp_path / "out/code/inference.py").read_bytes() == b"x"


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard", tarfile.LNKTYPE, "../../etc/passwd"),
        member("device", tarfile.CHRTYPE),
    ],
    ids=lambda info: info.name,
)
def test_an_archive_cannot_reach_outside(tmp_path, bad):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = tar(inner / "a.tar.gz", member("fine"), bad)

    with pytest.raises(ValueError, match=r"a\.tar\.gz"):
        archive.extract(path, inner / "deep" / "out")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["inner"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00broken"])
def test_what_is_no_archive_is_said(tmp_path, content):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="cannot be unpacked"):
        archive.extract(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "bound", "defined"),
    [
        ("def model_fn(folder): ...", True, True),
        ("async def model_fn(folder): ...", True, True),
        ("class model_fn: ...", True, True),
        ("model_fn = functools.partial(load, 1)", True, True),
        ("load, model_fn = make()", True, True),
        ("try:\n    import fast\nexcept ImportError:\n    def model_fn(folder): ...", True, True),
        ("from serving import model_fn", True, False),
        ("from serving import load as model_fn", True, False),
        ("from serving import model_fn as load", False, False),
        ("def load():\n    def model_fn(folder): ...", False, False),
        ("class Loader:\n    def model_fn(self): ...", False, False),
        ("model_fn(1)", False, False),
        ("def model_fn(:", False, False),
        ("\0", False, False),
    ],
)
def test_whether_a_script_binds_a_function_is_told_by_its_text(source, bound, defined):
    assert archive.binds(source.encode(), "model_fn") == bound
    assert archive.binds(source.encode(), "model_fn", imported=False) == defined
