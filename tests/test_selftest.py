"""The selftest run as a person would: on good models, on others, on a build that is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import zoo
from tests.conftest import ROOT


class Report(NamedTuple):
    """What a run printed and how it ended; `checks` by name."""

    status: int
    checks: dict[str, dict[str, str]]
    error: str

    def named(self, word: str) -> list[str]:
        return [name for name, check in self.checks.items() if check["word"] == word]


def selftest(model_dir: Path, *options: str | Path, path: str = "", **environ: str) -> Report:
    """Run it with loads that are short; `path` comes first where modules are looked for."""
    command = [sys.executable, "-m", "skserve", "selftest", "--json", "--seconds", "0.2"]
    container = str(ROOT / "container")
    full = {
        **os.environ,
        "SKSERVE_USER": "root",
        "PYTHONPATH": f"{path}:{container}" if path else container,
        **environ,
    }
    done = subprocess.run(
        [*command, "--model-dir", model_dir, *options],
        env=full,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    checks = {check["check"]: check for check in said.get("checks", [])}
    return Report(done.returncode, checks, said.get("start", "") + done.stderr)


def test_a_good_model_passes_every_check_alone_and_among_many(models):
    report = selftest(models("iris"), "--multi-model")

    assert (report.named("FAIL"), report.named("WARN"), report.status) == ([], [], 0)
    assert {"formats in", "one call", "multi-model", "model alone", "SIGTERM"} <= set(report.checks)
    assert "selftest: 1 of " in report.error  # its progress


# A build whose decoders of `kinds` turn the columns of a table by one.
SHIFTED = """
import numpy as np
from skserve.formats.catalogue import DECODERS

def shifting(read):
    def shifted(body, kind, schema):
        decoded = read(body, kind, schema)
        rows = decoded.table.rows
        if isinstance(rows, np.ndarray):
            rows = np.roll(rows, 1, axis=1)
        elif isinstance(rows, list):
            rows = [[row[-1], *row[:-1]] for row in rows]
        return decoded._replace(table=decoded.table._replace(rows=rows))
    return shifted

for name in {kinds}:
    DECODERS[name] = shifting(DECODERS[name])
"""


def wrong_build(folder: Path, kinds: str) -> str:
    """Write a module that Python runs before any program, and return the folder to look in."""
    (folder / "sitecustomize.py").write_text(SHIFTED.format(kinds=kinds))
    return str(folder)


def test_a_build_whose_csv_decoder_shifts_a_column_is_caught(models, tmp_path):
    report = selftest(models("iris"), path=wrong_build(tmp_path, "['text/csv']"))

    assert report.status == 1
    assert report.named("FAIL") == ["formats in"]
    assert report.checks["formats in"]["sentence"].startswith("text/csv: row 1 has ")


@pytest.mark.soak
def test_a_build_whose_decoders_all_shift_is_caught_by_the_model_alone(models, tmp_path):
    report = selftest(models("iris"), path=wrong_build(tmp_path, "list(DECODERS)"))

    assert report.status == 1
    assert "model alone" in report.named("FAIL")


def test_a_server_that_does_not_start_is_a_status_of_its_own(tmp_path):
    report = selftest(tmp_path)

    assert report.status == 2
    assert report.error.startswith(f"{tmp_path} holds no model (")


def test_sigterm_ends_the_server_too(models, tmp_path):
    folder = shutil.copytree(models("iris"), tmp_path / "alone")  # others serve that one
    process = subprocess.Popen(
        [sys.executable, "-m", "skserve", "selftest", "--model-dir", folder],
        env={**os.environ, "PYTHONPATH": str(ROOT / "container")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"selftest: starting the server\n"
    process.terminate()

    assert process.wait(30) == 128 + signal.SIGTERM
    process.stderr.close()
    assert [line for line in command_lines() if os.fsencode(folder) in line] == []


def command_lines() -> Iterator[bytes]:
    """Yield the command line of each process that runs."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


@pytest.mark.soak
@pytest.mark.parametrize("name", zoo.MODELS)
def test_every_model_of_the_zoo_passes(models, name):
    report = selftest(models(name))

    assert (report.named("FAIL"), report.named("WARN"), report.status) == ([], [], 0)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("example", "options", "warned"),
    [
        ("iris", [], []),
        ("wine", ["--rows", ROOT / "local_test/payloads/wine.csv"], []),
        ("regression", [], ["rows", "wrong bodies"]),
        ("regression", ["--rows", ROOT / "local_test/payloads/regression.json"], ["wrong bodies"]),
    ],
)
def test_every_example_passes(tmp_path, example, options, warned):
    train = ROOT / "examples" / example / "train.py"
    subprocess.run([sys.executable, train, tmp_path], check=True)

    report = selftest(tmp_path, *options)

    assert (report.status, report.named("FAIL")) == (0, [])
    assert set(report.named("WARN")) <= {*warned, "wrong media types"}


@pytest.mark.soak
def test_rows_and_expected_answers_of_the_user_are_compared(models, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b,c\n1,0,0\n0,1,2\n")
    (tmp_path / "right.json").write_text("[1, 210]")
    (tmp_path / "wrong.csv").write_text("1\n211\n")
    rows = ["--rows", tmp_path / "rows.csv", "--expect"]

    right = selftest(models("named"), *rows, tmp_path / "right.json")
    wrong = selftest(models("named"), *rows, tmp_path / "wrong.csv")

    assert (right.status, right.checks["expected answers"]["word"]) == (0, "PASS")
    assert (wrong.status, wrong.named("FAIL")) == (1, ["expected answers"])
    assert "row 2 has '2" in wrong.checks["expected answers"]["sentence"]


# Each is a script beside a model, or a setting; what it gives, and in which check.
SCRIPTS = {
    "slow": (
        "import time\ndef predict_fn(X, model):\n    time.sleep(11)\n    return model.predict(X)",
        "WARN",
        "one call",
        "One call takes 11.",
    ),
    "whole body": (
        "def predict_fn(X, model):\n    return X.mean(axis=0)[0] + X[:, 0]",
        "FAIL",
        "one row beside many",
        "Row 1 alone is answered otherwise than among 16",
    ),
    "no status": (
        "def input_fn(body, kind):\n    raise KeyError(kind)",
        "WARN",
        "wrong bodies",
        "faults are a 5xx",
    ),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_the_verdict_that_it_deserves(model_with_script, name):
    script, word, check, sentence = SCRIPTS[name]

    report = selftest(model_with_script(script))

    assert report.checks[check]["word"] == word
    assert sentence in report.checks[check]["sentence"]
    assert report.checks[check]["way_out"]
    assert report.named("FAIL") == ([check] if word == "FAIL" else [])
    assert report.status == (word == "FAIL")
