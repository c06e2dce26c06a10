"""A run that ends in the middle: what is left is said, and the next run takes it up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployment import apply_plan
from deployment.errors import Unreachable
from tests.deployment.conftest import (
    ROOT,
    Moto,
    Shell,
    make_image,
    make_role,
    save_model,
    settings_file,
)
from tests.deployment.test_story import MORE, leftovers

STEPS = 10  # of a first deployment with a test call, scaling and an alarm, the wait among them


def ctrl_c() -> Exception | KeyboardInterrupt:
    return KeyboardInterrupt()


def lost() -> Exception | KeyboardInterrupt:
    return Unreachable("sagemaker: no answer")


def broken(step: int, after: bool, fault: Callable[[], BaseException]) -> Callable[..., None]:
    """Make a step function that fails at step number `step`, before or after doing it."""
    done = 0

    def run(run: Any, what: Any) -> None:
        nonlocal done
        done += 1
        if done == step and not after:
            raise fault()
        REAL(run, what)
        if done == step:
            raise fault()

    return run


REAL = apply_plan._step


@pytest.mark.parametrize(
    ("after", "fault"),
    [
        pytest.param(True, ctrl_c, id="ctrl-c after"),
        pytest.param(False, ctrl_c, id="ctrl-c before", marks=pytest.mark.soak),
        pytest.param(False, lost, id="lost before", marks=pytest.mark.soak),
        pytest.param(True, lost, id="lost after", marks=pytest.mark.soak),
    ],
)
def test_whatever_step_a_run_ends_at_the_next_run_takes_it_up(
    after: bool, fault: Callable[[], BaseException], moto: Moto, shell: Shell, folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings_file(folder, make_image(moto), MORE)
    for step in range(1, STEPS + 1):
        moto.reset()
        make_role(moto)
        make_image(moto)
        with monkeypatch.context() as patch:
            patch.setattr(apply_plan, "_step", broken(step, after, fault))
            ended = shell.change(code=1)
        said = " ".join(ended.err.split())
        if "wine" in leftovers(moto):
            assert "it bills until" in said or "wine is" in said, (step, said)
        else:
            assert "removed again" in said or "nothing was left" in said, (step, said)
            assert leftovers(moto) == [], (step, said)
            assert moto.client("s3").list_buckets()["Buckets"] == [], (step, said)
        assert "NOT removed" not in said

        assert "in service" in shell.change().out, step
    moto.reset()
    make_role(moto)
    make_image(moto)
    with monkeypatch.context() as patch:
        patch.setattr(apply_plan, "_step", broken(STEPS + 1, after, fault))
        shell.change()  # there is no step after the last one, so the walk has met them all


@pytest.mark.parametrize(
    "same",
    [pytest.param(True, id="same", marks=pytest.mark.soak), pytest.param(False, id="different")],
)
def test_two_deployments_at_once_leave_one_endpoint_and_no_traceback(
    same: bool, moto: Moto, shell: Shell, folder: Path
) -> None:
    make_role(moto)
    settings_file(folder, make_image(moto))
    save_model(folder / "other.joblib", 7.0)
    moto.next(looks=3)
    models = ["model.joblib", "model.joblib" if same else "other.joblib"]
    words = [sys.executable, str(ROOT / "deploy.py"), "--poll", "0.05", "--model"]
    runs = [
        subprocess.Popen([*words, model], cwd=folder, env=moto.environ, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for model in models
    ]  # fmt: skip
    ended = [(*run.communicate(timeout=120), run.returncode) for run in runs]

    for _, err, code in ended:
        assert "Traceback" not in err
        assert code == 0 or "run the same command again" in err or "removed again" in err, err
    assert 0 in [code for *_, code in ended], ended
    assert "in service" in shell.change().out
    sagemaker = moto.client("sagemaker")
    found = sagemaker.describe_endpoint(EndpointName="wine")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=found["EndpointConfigName"])
    for variant in config["ProductionVariants"]:
        sagemaker.describe_model(ModelName=variant["ModelName"])
    shell.change("delete", "--yes")
    assert leftovers(moto) == []
