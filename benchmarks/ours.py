"""Our own server in the configurations that are measured, and the floor under it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.servers import ROOT, Server, Setup

QUIET = {"SAGEMAKER_CONTAINER_LOG_LEVEL": "30"}  # no line per request
UNCOUNTED = {"SKSERVE_METRICS": "off"}
PAGELESS = {"SKSERVE_PAGE": "off"}


def _serve(setup: Setup) -> list[str | Path]:
    return [setup.python, "-m", "skserve", "serve"]


def _empty(setup: Setup) -> list[str]:
    return [sys.executable, "-m", "benchmarks.empty", "serve"]


def _environ(setup: Setup) -> dict[str, str]:
    return {
        "PYTHONPATH": f"{ROOT / 'container'}:{ROOT}",
        "SAGEMAKER_BASE_DIR": str(setup.case.folder),
        "SAGEMAKER_BIND_TO_PORT": str(setup.port),
        "SAGEMAKER_MODEL_SERVER_WORKERS": str(setup.workers),
        "SKSERVE_USER": "root",  # the model may lie where only root can read it
    }


def _quiet(setup: Setup) -> Mapping[str, str]:
    return _environ(setup) | QUIET


def _uncounted(setup: Setup) -> Mapping[str, str]:
    return _environ(setup) | UNCOUNTED


def _silent(setup: Setup) -> Mapping[str, str]:
    return _environ(setup) | QUIET | UNCOUNTED


def _pageless(setup: Setup) -> Mapping[str, str]:
    return _environ(setup) | PAGELESS


def _many(setup: Setup) -> Mapping[str, str]:
    root = {"SKSERVE_MODEL_ROOT": str(setup.case.folder)}
    return _environ(setup) | {"SAGEMAKER_MULTI_MODEL": "true"} | root


def read(answer: Any) -> np.ndarray:
    """Turn an answer into numbers; a neighbours index names its distances and indices."""
    if isinstance(answer[0], dict):
        return np.array([one["distances"] + one["indices"] for one in answer])
    return np.asarray(answer)


OURS = {
    one.name: one
    for one in (
        Server("skserve", _serve, _environ, read=read),
        Server("skserve-quiet", _serve, _quiet, read=read),
        Server("skserve-no-metrics", _serve, _uncounted, read=read),
        Server("skserve-silent", _serve, _silent, read=read),
        Server("skserve-no-page", _serve, _pageless, read=read),
        Server(
            "skserve-many",
            _serve,
            _many,
            path="/models/m0/invoke",
            url=lambda case: str(case.folder / "model"),
        ),
        Server("empty-flask", _empty, _quiet, answers=False),
    )
}
PYTHON = Path(sys.executable)
