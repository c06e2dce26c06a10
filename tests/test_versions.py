"""The fast paths under other scikit-learns than the one of this environment: `make soak`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

TESTS = sorted(str(path) for path in (ROOT / "tests").glob("test_accelerate*.py"))


@pytest.mark.soak
@pytest.mark.parametrize("sklearn", ["1.3", "1.5", "1.7"])
def test_the_fast_paths_hold_under_another_scikit_learn(sklearn, tmp_path):
    python = tmp_path / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    install = [python, "-m", "pip", "install", "--quiet"]
    lock = ROOT / "requirements" / f"serve-{sklearn}.txt"
    subprocess.run([*install, "--require-hashes", "-r", lock], check=True)
    subprocess.run([*install, "pytest", "hypothesis", "requests"], check=True)

    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "container")},
        check=False,
    )

    assert done.returncode == 0
