"""Starts that must not succeed: the one sentence of each, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BROKEN = [
    (
        b"c__main__\nAboveTwo\n.",
        "model.joblib holds 'AboveTwo', which was defined in __main__, the notebook or script that "
        "saved it; put its definition into code/inference.py beside the model, or save the model "
        "again with it in a module of its own below code/.",
    ),
]


@pytest.mark.parametrize(("content", "sentence"), BROKEN)
def test_a_broken_model_stops_the_start_with_one_sentence(tmp_path, content, sentence):
    (tmp_path / "model.joblib").write_bytes(content)
    command = [sys.executable, "-m", "skserve", "serve", "--model-dir", str(tmp_path)]

    ended = subprocess.run(
        command, env=dict(os.environ, SKSERVE_USER="root"), capture_output=True, timeout=60
    )

    said = ended.stderr.decode()
    assert ended.returncode != 0
    assert sentence in said
    assert "Traceback" not in said
