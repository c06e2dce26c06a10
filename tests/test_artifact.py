"""Loading a model file, and the sentence that says why one does not load."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn.utils.fixes
import skops.io
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from skserve import archive
from skserve.config import Config
from skserve.errors import StartError
from skserve.inference import artifact
from skserve.inference.model import Model
from skserve.inference.versions import check_version

CONFIG = Config()
X = np.array([[0.0], [1.0], [2.0]])


@contextmanager
def reachable():
    """Make a folder that every user may reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_nobody():
    """Act without root's right to read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


class OldLinearRegression(LinearRegression):
    """Pickles itself the way scikit-learn 1.0 wrote a LinearRegression."""

    def __reduce__(self):
        state = {
            "fit_intercept": True,
            "normalize": "deprecated",
            "copy_X": True,
            "n_jobs": None,
            "positive": False,
            "n_features_in_": 1,
            "coef_": self.coef_,
            "_residues": 0.0,
            "rank_": 1,
            "singular_": self.singular_,
            "intercept_": self.intercept_,
            "_sklearn_version": "1.0",
        }
        return (LinearRegression.__new__, (LinearRegression,), state)


@pytest.fixture
def old(tmp_path):
    model = OldLinearRegression().fit(X, 2 * X[:, 0])
    (tmp_path / "model.joblib").write_bytes(pickle.dumps(model))
    return tmp_path


def test_an_old_linear_regression_predicts_though_it_cannot_be_printed(old, caplog):
    model = Model.load(old, CONFIG)

    assert model.estimator.predict(X).tolist() == pytest.approx([0, 2, 4])
    assert model.describe()["versions"]["saved_with_scikit-learn"] == "1.0"
    with pytest.raises(AttributeError):
        repr(model.estimator)
    assert "saved by scikit-learn 1.0" in caplog.text
    assert "--build-arg SKLEARN=1.0" in caplog.text


def test_the_version_policy_can_refuse_or_keep_silent(old, caplog):
    with pytest.raises(StartError, match=r"scikit-learn 1\.0 .*SKSERVE_VERSION_POLICY=error"):
        artifact.load(old, Config(version_policy="error"))
    artifact.load(old, Config(version_policy="off"))

    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_another_patch_release_is_the_same_version(tmp_path, caplog):
    check_version(tmp_path / "m", sklearn.__version__.rsplit(".", 1)[0] + ".99", "error")

    assert caplog.text == ""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a joblib or pickle file: it is empty"),
        (b"\x80\x04\x95", "not a whole joblib or pickle file"),
        (b"hello world, not a pickle", "m.joblib"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"csklearn.linear_model.base\nLinearRegression\n.", "another version of scikit-learn"),
        (b"csklearn.linear_model\nNoSuchThing\n.", "another version of scikit-learn"),
        (b"cimblearn.pipeline\nPipeline\n.", "needs the Python module 'imblearn"),
        (b"c__main__\nMyModel\n.", "'MyModel', which was defined in __main__"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "m.joblib").write_bytes(content)

    with pytest.raises(StartError, match=sentence) as raised:
        artifact.load(tmp_path, CONFIG)
    assert "\n" not in str(raised.value)


def test_a_moved_module_names_the_version_to_build_with(tmp_path):
    moved = (
        pickle.dumps({"_sklearn_version": "0.21.3"}, 2)[:-1] + b"csklearn.linear_model.base\nX\n."
    )
    (tmp_path / "m.joblib").write_bytes(moved)

    with pytest.raises(StartError, match=r"saved by scikit-learn 0\.21\.3 .*SKLEARN=0\.21"):
        artifact.load(tmp_path, CONFIG)


def test_the_one_model_is_chosen_and_others_are_named(tmp_path):
    with pytest.raises(StartError, match="holds no model .* it holds nothing"):
        artifact.choose(tmp_path, None)
    with pytest.raises(StartError, match="no model directory"):
        artifact.choose(tmp_path / "missing", None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.pkl").touch()
    with pytest.raises(StartError, match=r"Is model/m\.pkl the one\?"):
        artifact.choose(tmp_path, None)
    (tmp_path / "a.joblib").touch()
    assert artifact.choose(tmp_path, None).name == "a.joblib"
    (tmp_path / "b.pkl").touch()
    with pytest.raises(StartError, match=r"holds 2 models \(a\.joblib, b\.pkl\)"):
        artifact.choose(tmp_path, None)
    assert artifact.choose(tmp_path, "model/m.pkl").name == "m.pkl"
    with pytest.raises(StartError, match=r"names c\.joblib, but .* holds a\.joblib"):
        artifact.choose(tmp_path, "c.joblib")


@pytest.fixture
def folder():
    with reachable() as above:
        (above / "model").mkdir()
        yield above / "model"


def test_a_model_that_may_not_be_read_is_named(folder):
    joblib.dump(LinearRegression().fit(X, X[:, 0]), folder / "m.joblib")
    (folder / "m.joblib").chmod(0)
    with as_nobody(), pytest.raises(StartError, match=r"/m\.joblib cannot be read by user \d+"):
        artifact.load(folder, CONFIG)
    with as_nobody(), pytest.raises(StartError, match=r"/m\.joblib cannot be read by user \d+"):
        artifact.load(folder, Config(model_file="m.joblib"))

    folder.chmod(0)
    with as_nobody(), pytest.raises(StartError, match="/model cannot be read by user .*a[+]rX"):
        artifact.choose(folder, None)


MAIN = """
import sys, joblib
from sklearn.linear_model import LinearRegression
class Doubler(LinearRegression):
    def predict(self, X):
        return 2 * super().predict(X)
joblib.dump(Doubler().fit([[0.], [1.]], [0., 1.]), sys.argv[1])
"""


@pytest.fixture(scope="module")
def of_main(tmp_path_factory) -> Path:
    """Return a model whose class a script defined, as the script has saved it."""
    saved = tmp_path_factory.mktemp("main") / "m.joblib"
    subprocess.run([sys.executable, "-c", MAIN, str(saved)], check=True)
    return saved


@pytest.mark.parametrize("place", ["inference.py", "helpers.py"])
def test_a_class_pickled_from_main_is_found_in_the_users_code(of_main, tmp_path, place):
    shutil.copy(of_main, tmp_path)
    code = tmp_path / "code"
    code.mkdir()
    (code / "inference.py").write_text("")
    definition = MAIN.replace("import sys, joblib", "").split("joblib.dump")[0]
    (code / place).write_text(definition)
    (code / "train.py").write_text("raise SystemExit('a training script must not run')")

    model = Model.load(tmp_path, CONFIG)

    assert model.estimator.predict([[3.0]]).tolist() == pytest.approx([6.0])
    assert "__getattr__" not in vars(sys.modules["__main__"])
    sys.modules.pop("inference", None)
    sys.modules.pop("helpers", None)


def test_a_skops_file_builds_only_trusted_types(tmp_path):
    skops.io.dump(LinearRegression().fit(X, X[:, 0]), tmp_path / "m.skops")
    assert Model.load(tmp_path, CONFIG).handler.method == "predict"

    skops.io.dump({"path": OldLinearRegression}, tmp_path / "m.skops")
    with pytest.raises(StartError, match=r"wants to build .*OldLinearRegression"):
        artifact.load(tmp_path, CONFIG)


def test_what_cannot_answer_is_refused_at_the_start(tmp_path):
    joblib.dump({"a": 1}, tmp_path / "m.joblib")
    with pytest.raises(StartError, match=r"holds a dict, not a model \('a' is a int\); save"):
        Model.load(tmp_path, CONFIG)

    joblib.dump(LinearRegression().fit(X, X[:, 0]), tmp_path / "m.joblib")
    with pytest.raises(StartError, match="ACCEPT is 'text/html'; expected one of application/json"):
        Model.load(tmp_path, Config(accept="text/html"))
    with pytest.raises(StartError, match=r"SKSERVE_METHOD is transform, but LinearRegression has"):
        Model.load(tmp_path, Config(method="transform"))


def test_a_saved_model_can_be_mapped_and_says_what_saved_it(tmp_path):
    frame = pd.DataFrame(np.arange(8.0).reshape(4, 2), columns=["acid", "sugar"])
    path = artifact.save(NearestNeighbors().fit(frame), tmp_path, sample=[0.0, 1.0])

    loaded, saved = artifact.load(tmp_path, CONFIG)
    mapped = joblib.load(path, mmap_mode="r")
    manifest = json.loads((tmp_path / archive.MANIFEST).read_text())
    assert loaded.n_features_in_ == 2
    assert isinstance(mapped._fit_X, np.memmap)
    assert manifest["scikit_learn"] == saved == sklearn.__version__
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (manifest["feature_names"], manifest["sample"]) == (["acid", "sugar"], [0.0, 1.0])
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(
        ["model.joblib", archive.RECORD, archive.MANIFEST]
    )


@pytest.fixture
def neighbours(tmp_path, monkeypatch):
    """A model with an array that is large enough to map, and others that are not."""
    monkeypatch.setattr("skserve.inference.memory_mapped._MAPPED_FILE", 2**16)
    monkeypatch.setattr("skserve.inference.memory_mapped._MAPPED_ARRAY", 2**16)
    Y = np.random.default_rng(0).normal(size=(2000, 8))
    fitted = KNeighborsClassifier(algorithm="brute").fit(Y, Y[:, 0] > 0)
    joblib.dump(fitted, tmp_path / "m.joblib")
    return fitted


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_large_arrays_of_a_file_that_stays_are_mapped(neighbours, tmp_path, monkeypatch):
    monkeypatch.setattr("skserve.inference.memory_mapped._stays", lambda path: True)
    content = (tmp_path / "m.joblib").read_bytes()
    loaded, saved = artifact.load(tmp_path, CONFIG)

    assert mapped(tmp_path / "m.joblib")
    assert type(loaded._fit_X) is np.ndarray
    assert isinstance(loaded._fit_X.base, np.memmap)
    assert not isinstance(loaded._y.base, np.memmap)
    assert loaded._fit_X.flags.aligned
    assert saved == sklearn.__version__
    rows = np.random.default_rng(1).normal(size=(50, 8))
    assert loaded.predict_proba(rows).tolist() == neighbours.predict_proba(rows).tolist()

    loaded._fit_X *= 2
    assert (tmp_path / "m.joblib").read_bytes() == content
    assert artifact.load(tmp_path, CONFIG)[0]._fit_X.tolist() == neighbours._fit_X.tolist()


@pytest.mark.parametrize("compress", [0, 1, ("gzip", 1)])
def test_what_is_compressed_small_or_may_change_is_read(
    neighbours, tmp_path, monkeypatch, compress
):
    joblib.dump(neighbours, tmp_path / "m.joblib", compress=compress)
    assert not isinstance(artifact.load(tmp_path, CONFIG)[0]._fit_X.base, np.memmap)
    monkeypatch.setattr("skserve.inference.memory_mapped._stays", lambda path: True)
    if not compress:
        monkeypatch.setattr("skserve.inference.memory_mapped._MAPPED_FILE", 2**30)
    loaded, _ = artifact.load(tmp_path, CONFIG)

    assert not isinstance(loaded._fit_X.base, np.memmap)
    assert loaded._fit_X.tolist() == neighbours._fit_X.tolist()


def test_arrays_of_other_kinds_are_read_as_they_are(neighbours, tmp_path, monkeypatch):
    """Of another byte order, of objects, in the order of Fortran."""
    monkeypatch.setattr("skserve.inference.memory_mapped._stays", lambda path: True)
    X = np.arange(20_000.0).reshape(100, 200)
    things = [X.astype(">f8"), X.astype(object), np.asfortranarray(X), X[::2]]
    joblib.dump(things, tmp_path / "m.joblib")
    loaded = artifact._load_joblib(tmp_path / "m.joblib", CONFIG)

    for one, other in zip(loaded, things, strict=True):
        assert one.tolist() == other.tolist()
        assert (one.dtype.newbyteorder("="), one.flags.f_contiguous) == (
            other.dtype.newbyteorder("="),
            other.flags.f_contiguous,
        )
    assert [isinstance(one.base, np.memmap) for one in loaded] == [False, False, True, True]


def test_scikit_learn_is_imported_as_if_pandas_were_not_there_and_then_it_is(tmp_path):
    joblib.dump(LinearRegression().fit(X, X), tmp_path / "model.joblib")
    program = f"""
import sys
from pathlib import Path
from skserve.inference import artifact
from skserve.config import Config
artifact.import_scikit_learn()
artifact.load(Path({str(tmp_path)!r}), Config())
print("pandas" in sys.modules)
import pandas
print(pandas.Series([1]).sum())
"""
    said = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": "container"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.split() == ["False", "1"]


def test_nothing_in_scikit_learn_asks_its_fixes_for_pandas():
    """That is what makes it safe to let `sklearn.utils.fixes` believe that there is none."""
    for path in Path(sklearn.__file__).parent.rglob("*.py"):
        text = path.read_text()
        if "tests" in path.parts or "fixes" not in text or not re.search(r"\bpd\b", text):
            continue  # most name neither, and to parse them all takes seconds
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("fixes"):
                assert "pd" not in [alias.name for alias in node.names], path
            if isinstance(node, ast.Attribute) and node.attr == "pd":
                assert "fixes" not in ast.unparse(node.value), path
    fixes = ast.parse(Path(sklearn.utils.fixes.__file__).read_text())
    functions = [node for node in ast.walk(fixes) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        given = {arg.arg for arg in function.args.args}
        names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        assert "pd" not in names - given, function.name
