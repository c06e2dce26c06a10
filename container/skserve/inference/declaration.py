"""Reading what a file beside the model declares of its columns: `schema.json`, or `MLmodel`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skserve.archive import SCHEMA
from skserve.errors import StartError
from skserve.estimators.declared import Declared
from skserve.inference.artifact import readable

MLFLOW = "MLmodel"


@readable()
def read(directory: Path) -> Declared | None:
    """Return what is declared beside the model. Raises StartError for a file that is wrong."""
    schema, mlflow = directory / SCHEMA, directory / MLFLOW
    try:
        if schema.is_file():
            return Declared.of_schema(json.loads(schema.read_bytes()), SCHEMA)
        if mlflow.is_file():
            return Declared.of_mlflow(_yaml(mlflow), _example(directory), MLFLOW)
    except (ValueError, AttributeError) as error:
        name = SCHEMA if schema.is_file() else MLFLOW
        raise StartError(
            f"{name} beside the model cannot be used: {error}; docs/25-columns.md has its form."
        ) from error
    return None


def _yaml(path: Path) -> Any:
    import yaml  # 20 ms: only where a model was saved with MLflow

    try:
        return yaml.safe_load(path.read_bytes()) or {}
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _example(directory: Path) -> Any:
    """Return the body that MLflow keeps beside a model as an example."""
    for name in ("serving_input_example.json", "input_example.json"):
        if (directory / name).is_file():
            return json.loads((directory / name).read_bytes())
    return None
