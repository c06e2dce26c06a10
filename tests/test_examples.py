"""The examples and the demo, run as a person would."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT, serving

README = (ROOT / "README.md").read_text()
PAYLOADS = ROOT / "local_test" / "payloads"


def test_the_demo_shows_both_stories():
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "container"), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    said = done.stdout
    assert "nearest to wine 0: 0 (0.0000), 20 (0.0531)" in said
    assert "npy out: shape (3, 2, 10)" in said
    assert "Row 1 has 2 values, expected 13" in said
    assert '{"progression": [206.1, 68.1]}' in said
    assert said.count("stopped with status 0") == 2
    assert done.stderr == ""


def predict(url: str, payload: str, accept: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "local_test" / "predict.sh"
    command = [script, PAYLOADS / payload, accept, url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_predict_sh_sends_every_payload(trained, tmp_path):
    with serving(trained("wine"), tmp_path / "log") as server:
        answers = {
            name: predict(server.url, name, "text/csv").stdout
            for name in ("wine.csv", "wine.json", "wine.jsonl", "wine.npy")
        }
        refused = predict(server.url, "regression.json", "text/csv")

    numbers = [np.loadtxt(text.splitlines(), delimiter=",") for text in answers.values()]
    for one in numbers[1:]:  # the last bits of a sum depend on where a row lies in memory
        np.testing.assert_allclose(one, numbers[0], rtol=1e-12)
    assert answers["wine.csv"].count("\n") == 2
    assert refused.returncode != 0
    assert "bad_request" in refused.stdout


def test_the_regressions_script_answers_its_payload(trained, tmp_path):
    with serving(trained("regression"), tmp_path / "log") as server:
        done = predict(server.url, "regression.json", "application/json")

    assert done.stdout == '{"progression": [206.1, 68.1]}'


FLOAT = re.compile(r"\d+\.\d{6,}(?:e-?\d+)?")  # a fitted probability, no version


def assert_shown(said: str, shown: str) -> None:
    """Compare an answer with README's, but for what the processor changes in an iterative fit."""
    start = shown.removesuffix(" ...")
    assert FLOAT.sub("#", said).startswith(FLOAT.sub("#", start))
    for one, other in zip(FLOAT.findall(said), FLOAT.findall(start), strict=False):
        assert float(one) == pytest.approx(float(other), abs=1e-3)


def test_the_readmes_calls_are_answered_as_shown(trained, tmp_path):
    (block,) = re.findall(r"## Call it\n.*?```\n(.*?)```", README, re.DOTALL)
    calls = re.findall(r"\$ (curl (?:.*\\\n)*.*)\n(.*)\n", block)
    with serving(trained("iris"), tmp_path / "log") as server:
        for command, shown in calls:
            typed = command.replace("localhost:8080", server.url)
            said = subprocess.run(typed, shell=True, capture_output=True, text=True, check=True)
            assert_shown(said.stdout, shown)

    assert len(calls) == 3


@pytest.mark.parametrize("script", ["predict.sh", "serve_local.sh"])
def test_a_wrong_argument_prints_the_usage(script):
    done = subprocess.run([ROOT / "local_test" / script, "no such file"], capture_output=True)

    assert done.returncode == 1
    assert b"usage: " in done.stderr


@pytest.mark.parametrize(
    ("options", "mounted"), [([], "--tmpfs /tmp -p"), (["--exec"], "--tmpfs /tmp:exec -p")]
)
def test_compiled_requirements_may_be_run_where_it_is_asked_for(tmp_path, options, mounted):
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    script = ROOT / "local_test" / "serve_local.sh"
    done = subprocess.run(
        [script, *options, tmp_path],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert mounted in done.stdout
