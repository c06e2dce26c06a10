"""The server that AWS's ml-container-creator generates for scikit-learn: Flask under gunicorn.

The tool is installed from npm and run once for each environment. What it generates is served as it
is, but for three things: where the model lies, the port, and two workers as everywhere here. For
named columns its `np.array(data)` is made a DataFrame, as a user of it has to do by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.servers import Failed, Setup

PACKAGE = "@aws/ml-container-creator@1.6.0"
ANSWERS: dict[str, Any] = {
    "deploymentConfig": "http-flask",
    "framework": "sklearn",
    "modelFormat": "joblib",
    "modelServer": "flask",
    "includeSampleModel": False,
    "instanceType": "ml.m5.large",
    "awsRegion": "us-east-1",
}


def prepare(setup: Setup) -> None:
    """Copy the generated server into the scratch folder, for this model."""
    code = setup.scratch / "code"
    generated = _generated(setup.python.parent.parent)
    shutil.copytree(generated / "flask", code)
    serve = (generated / "serve.py").read_text()
    model = str(setup.case.folder / "model")
    (code / "serve.py").write_text(_replaced(serve, "/opt/ml/model", model))
    handler = (generated / "model_handler.py").read_text()
    if setup.case.named:
        handler = _replaced(handler, "return np.array(data)", "return pd.DataFrame(data)")
        handler = _replaced(handler, "import joblib", "import joblib\nimport pandas as pd")
    (code / "model_handler.py").write_text(handler)


def _replaced(text: str, old: str, new: str) -> str:
    if old not in text:
        raise Failed(f"{PACKAGE} generates no {old!r} any more")
    return text.replace(old, new)


def start(setup: Setup) -> list[str | Path]:
    """Return what the image's start_server.py runs."""
    return [
        setup.python.parent / "gunicorn",
        *("--chdir", setup.scratch / "code", "--config", setup.scratch / "code/gunicorn_config.py"),
        *("--bind", f"127.0.0.1:{setup.port}", "--workers", str(setup.workers)),
        "wsgi:application",
    ]


def environ(setup: Setup) -> dict[str, str]:
    """Return what the image sets."""
    return {"PYTHONPATH": str(setup.scratch / "code"), "HOME": str(setup.scratch)}


def _generated(environment: Path) -> Path:
    """Return the code that the tool generates, installing the tool where it is not yet."""
    folder = environment / "generator"
    project = folder / "project"
    if not (project / "code" / "serve.py").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "answers.json").write_text(json.dumps(ANSWERS))
        quiet = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts")
        _run(folder, "npm", "install", "--prefix", str(folder), *quiet, PACKAGE)
        tool = folder / "node_modules" / ".bin" / "ml-container-creator"
        _run(folder, str(tool), "project", "--config", "answers.json", "--skip-prompts")
        # Without a sample model 1.6.0 leaves the handler empty: it is this part of its template.
        template = folder / "node_modules" / PACKAGE.rpartition("@")[0] / "templates" / "code"
        text = (template / "model_handler.py").read_text()
        part = text.partition("<% if (framework === 'sklearn') { %>")[2].partition("<% }")[0]
        handler = part.replace("<%= modelFormat %>", ANSWERS["modelFormat"])
        (project / "code" / "model_handler.py").write_text(handler)
    return project / "code"


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"HOME": str(folder)},  # it keeps notes of its own there
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout)[-800:]
        raise Failed(f"{' '.join(command[:2])} failed; Node.js and a registry are needed:\n{said}")
