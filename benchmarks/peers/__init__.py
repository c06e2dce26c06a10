"""The other servers, each with the setting that serves it best here, and two workers.

A peer lives in an environment of its own below the cache, installed from its lock
`requirements/NAME.txt` beside this file. Files named `*_app.py` run inside it, with this folder on
their path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import environment
from benchmarks.peers import mlcc
from benchmarks.servers import Failed, Server, Setup, free_port

HERE = Path(__file__).parent
Command = list[str | Path]


def _environ(**more: str) -> Callable[[Setup], dict[str, str]]:
    def environ(setup: Setup) -> dict[str, str]:
        return {
            "PYTHONPATH": str(HERE),
            "BENCH_MODEL": str(setup.case.file),
            "BENCH_PORT": str(setup.port),
            "HOME": str(setup.scratch),
            **more,
        }

    return environ


def _app(name: str) -> Callable[[Setup], Command]:
    return lambda setup: [setup.python, HERE / f"{name}_app.py"]


def _fastapi(setup: Setup) -> Command:
    """uvloop and httptools are installed, so uvicorn takes them. No line per request."""
    app = "pandas_app:app" if setup.case.named else "fastapi_app:app"
    options = ["--host", "127.0.0.1", "--port", str(setup.port), "--workers", str(setup.workers)]
    return [
        setup.python,
        *["-m", "uvicorn", app, "--no-access-log", "--log-level", "warning"],
        *options,
    ]


def _prepare_aws(setup: Setup) -> None:
    """Lay out /opt/ml: the model, and the script in a folder that the library may write to."""
    (setup.scratch / "model").symlink_to(setup.case.folder / "model")
    (setup.scratch / "submitted").mkdir()
    shutil.copy(HERE / "inference.py", setup.scratch / "submitted")


def _aws_environ(setup: Setup) -> dict[str, str]:
    return _environ()(setup) | {
        "SAGEMAKER_BASE_DIR": str(setup.scratch),
        "SAGEMAKER_SUBMIT_DIRECTORY": str(setup.scratch / "submitted"),
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_MODEL_SERVER_WORKERS": str(setup.workers),
        "SAGEMAKER_BIND_TO_PORT": str(setup.port),
        # It installs the script with pip at each start: without a network, which takes longer.
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_INDEX": "1",
    }


def _prepare_mms(setup: Setup, **more: object) -> None:
    """Write a model archive as a folder, and the ports."""
    archive = setup.scratch / "store" / "model"
    (archive / "MAR-INF").mkdir(parents=True)
    shutil.copy(HERE / "mms_app.py", archive)
    model = {"modelName": "model", "handler": "mms_app:handle"}
    manifest = {"runtime": "python", "model": model, "modelServerVersion": "1.1"}
    (archive / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    lines = {
        "inference_address": f"http://127.0.0.1:{setup.port}",
        "management_address": f"http://127.0.0.1:{free_port()}",
        "default_workers_per_model": setup.workers,
        "max_request_size": 100 << 20,
        "max_response_size": 100 << 20,
        **more,
    }
    config = "".join(f"{name}={value}\n" for name, value in lines.items())
    (setup.scratch / "config.properties").write_text(config)


def _prepare_mms_many(setup: Setup) -> None:
    """As in AWS's images: one port for everything, and a worker for each model."""
    address = f"http://127.0.0.1:{setup.port}"
    _prepare_mms(setup, management_address=address, default_workers_per_model=1)


def _mms(setup: Setup) -> Command:
    return [*_mms_empty(setup), "--models", "model=model"]


def _mms_empty(setup: Setup) -> Command:
    options: Command = ["--model-store", setup.scratch / "store"]
    options += ["--mms-config", setup.scratch / "config.properties"]
    return [setup.python.parent / "multi-model-server", "--start", "--foreground", *options]


def _prepare_mlserver(setup: Setup) -> None:
    # Its pool of processes costs more than it gains where a prediction takes microseconds.
    pool = 0 if setup.case.name == "iris" else setup.workers
    settings = {
        "host": "127.0.0.1",
        "http_port": setup.port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": pool,
        "debug": False,
    }
    model = {"name": "model", "implementation": "mlserver_app.Runtime"}
    (setup.scratch / "settings.json").write_text(json.dumps(settings))
    (setup.scratch / "model-settings.json").write_text(json.dumps(model))


def _mlserver(setup: Setup) -> Command:
    return [setup.python.parent / "mlserver", "start", setup.scratch]


def _v2(rows: np.ndarray) -> bytes:
    tensor = {"name": "rows", "shape": list(rows.shape), "datatype": "FP64"}
    return json.dumps({"inputs": [tensor | {"data": rows.ravel().tolist()}]}).encode()


def _v2_answer(answer: Any) -> np.ndarray:
    output = answer["outputs"][0]
    return np.reshape(output["data"], output["shape"])


def _prepare_mlflow(setup: Setup) -> None:
    command = [setup.python, HERE / "mlflow_app.py", setup.scratch / "saved"]
    environ = {**os.environ, **_environ()(setup)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"the model could not be saved for MLflow:\n{done.stderr[-1500:]}")


def _mlflow(setup: Setup) -> Command:
    options = ["--port", str(setup.port), "--workers", str(setup.workers)]
    return [
        setup.python.parent / "mlflow",
        *("models", "serve", "--env-manager", "local", "--host", "127.0.0.1"),
        *("--model-uri", setup.scratch / "saved"),
        *options,
    ]


def _bentoml(setup: Setup) -> Command:
    options = ["--host", "127.0.0.1", "--port", str(setup.port)]
    return [setup.python.parent / "bentoml", "serve", "bentoml_app:Service", *options]


def _named(key: str) -> Callable[[np.ndarray], bytes]:
    return lambda rows: json.dumps({key: rows.tolist()}).encode()


def _below(key: str) -> Callable[[Any], np.ndarray]:
    return lambda answer: np.asarray(answer[key])


PEERS = {
    one.name: one
    for one in (
        Server(
            "aws", _app("aws"), _aws_environ, needs=("nginx",), prepare=_prepare_aws, named=True
        ),
        Server(
            "mlcc",
            mlcc.start,
            mlcc.environ,
            read=_below("predictions"),
            needs=("npm",),
            prepare=mlcc.prepare,
            named=True,
        ),
        Server(
            "mms",
            _mms,
            _environ(),
            path="/predictions/model",
            needs=("java",),
            prepare=_prepare_mms,
        ),
        Server(
            "mlserver",
            _mlserver,
            _environ(),
            path="/v2/models/model/infer",
            ask=_v2,
            read=_v2_answer,
            prepare=_prepare_mlserver,
        ),
        Server(
            "mlflow",
            _mlflow,
            _environ(MLFLOW_DISABLE_TELEMETRY="true", UVICORN_ACCESS_LOG="false"),
            ask=_named("inputs"),
            read=_below("predictions"),
            prepare=_prepare_mlflow,
        ),
        Server(
            "bentoml",
            _bentoml,
            _environ(BENTOML_DO_NOT_TRACK="True"),
            path="/predict",
            ask=_named("rows"),
        ),
        Server(
            "litserve",
            _app("litserve"),
            _environ(),
            path="/predict",
            ask=_named("input"),
            read=_below("output"),
        ),
        Server(
            "kserve",
            lambda setup: [*_app("kserve")(setup), "--configure_logging", "false"],
            _environ(),
            path="/v1/models/model:predict",
            ask=_named("instances"),
            read=_below("predictions"),
        ),
        Server("fastapi", _fastapi, _environ(), named=True),
    )
}


# Those that load models while they run, as SageMaker's multi-model contract has it.
MANY = {
    "mms": Server(
        "mms-many",
        _mms_empty,
        _environ(),
        path="/models/m0/invoke",
        needs=("java",),
        prepare=_prepare_mms_many,
        url=lambda case: "model",
    )
}


def install(name: str, cache: Path) -> Path:
    """Return the Python of a peer's environment, installing it once. Raises Failed."""
    return environment(cache / "peers" / name, HERE / "requirements" / f"{name}.txt")
