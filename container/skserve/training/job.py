"""The training job as SageMaker mounts it below /opt/ml, whose files are all read here."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from skserve.config import TrainingSettings
from skserve.errors import StartError

log = logging.getLogger("skserve")

# SageMaker shows the first 1,024 characters of the failure file as the job's FailureReason.
MESSAGE_LIMIT = 1000

# Hyperparameters that are the platform's, and so no arguments of the script.
_CONTROL = ("sagemaker_", "_tuning_objective_metric", "default_user_module_name")

_HOST = "algo-1"  # who runs where no resourceconfig.json says it


@dataclass(frozen=True)
class Job:
    """One run of `train`: what was asked for, and where everything lies.

    `hyperparameters` are the user's, decoded; `control` are those named `sagemaker_...`.
    `model_dir` is where this host puts a model: a scratch folder on hosts that are to write none.
    """

    base: Path
    model_dir: Path
    hyperparameters: Mapping[str, Any]
    control: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Any]]  # inputdataconfig.json, by channel
    resources: Mapping[str, Any]  # resourceconfig.json
    log_level: int
    cpus: int

    @classmethod
    def read(cls, config: TrainingSettings) -> Job:
        """Read the job's files. Raises StartError, naming the file."""
        base = config.base_dir
        folder = base / "input" / "config"
        given = {
            name: _decoded(value) for name, value in _json(folder / "hyperparameters.json").items()
        }
        control = {name: value for name, value in given.items() if name.startswith(_CONTROL)}
        resources = _resources(folder / "resourceconfig.json")
        first = resources["current_host"] == sorted(resources["hosts"])[0]
        writes = first or config.model_hosts == "all"
        return cls(
            base=base,
            model_dir=config.model_dir if writes else Path("/tmp/skserve-model"),
            hyperparameters={name: given[name] for name in given if name not in control},
            control=control,
            inputs=_inputs(base, folder),
            resources=resources,
            log_level=_level(control, config),
            cpus=max(1, int(config.machine.cpus)),
        )

    @classmethod
    def placeholder(cls, config: TrainingSettings) -> Job:
        """Return the job of files that cannot be read: enough to say so."""
        return cls(config.base_dir, config.model_dir, {}, {}, {}, {}, config.log_level, 1)

    @property
    def hosts(self) -> list[str]:
        """All hosts, sorted: the first one writes the model."""
        return sorted(self.resources["hosts"])

    @property
    def host(self) -> str:
        """This host."""
        return str(self.resources["current_host"])

    @property
    def first(self) -> bool:
        """Whether this host is the one that writes the model."""
        return self.host == self.hosts[0]

    @property
    def code(self) -> Path:
        """Where the user's code runs."""
        return self.base / "code"

    @property
    def output(self) -> Path:
        """The folder for reports and plots, which becomes output.tar.gz."""
        return self.base / "output" / "data"

    @property
    def failure(self) -> Path:
        """The file that tells SageMaker why the job failed."""
        return self.base / "output" / "failure"

    def channel(self, name: str) -> Path:
        """Return the folder of a channel, whether or not it exists."""
        return self.base / "input" / "data" / name

    def prepare(self) -> None:
        """Make the folders that are written, and see now, not after the fit, that they can be."""
        try:
            for folder in (self.model_dir, self.output):
                folder.mkdir(parents=True, exist_ok=True)
                with TemporaryFile(dir=folder):
                    pass
        except OSError as error:
            raise StartError(
                f"{folder} cannot be written ({error.strerror}); mount {self.base} "
                f"writable for user {os.geteuid()}."
            ) from error

    def clear_failure(self) -> None:
        """Take an earlier run's failure away: what says why comes first, and it would stay."""
        try:
            self.failure.unlink(missing_ok=True)
        except OSError as error:
            raise StartError(
                f"{self.failure} cannot be removed ({error.strerror}); it is an earlier run's."
            ) from error

    def write_failure(self, message: str, details: str = "") -> None:
        """Say why the job failed: on stderr, and in the failure file unless a script wrote it."""
        said = " ".join(message.split())
        said = said if len(said) <= MESSAGE_LIMIT else said[: MESSAGE_LIMIT - 3] + "..."
        print(f"skserve: {said}", file=sys.stderr, flush=True)
        try:
            if self.failure.exists() and self.failure.stat().st_size:
                return
            self.failure.parent.mkdir(parents=True, exist_ok=True)
            text = f"{said}\n\n{details}" if details else f"{said}\n"
            self.failure.write_text(text, "utf-8", errors="replace")
        except OSError as error:
            log.warning("%s cannot be written: %s", self.failure, error.strerror)


def _json(path: Path) -> dict[str, Any]:
    """Read one of SageMaker's files; an absent or empty one is an empty object."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{path} cannot be read: {error}.") from error
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise StartError(f"{path} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise StartError(f"{path} holds {type(found).__name__}, expected one JSON object.")
    return found


def _decoded(value: Any) -> Any:
    """Decode a hyperparameter: SDKs encode values as JSON, people write plain text."""
    try:
        return json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return value


def _resources(path: Path) -> dict[str, Any]:
    """Return resourceconfig.json; where a local run has none, there is one host."""
    found = {"current_host": _HOST, "hosts": [_HOST]} | _json(path)
    hosts = found["hosts"]
    known = isinstance(hosts, list) and all(isinstance(host, str) for host in hosts)
    if known and found["current_host"] in hosts:
        return found
    raise StartError(
        f"{path} has current_host {found['current_host']!r} and hosts {hosts!r}; expected a list "
        "of hosts, and one of them."
    )


def _inputs(base: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Return inputdataconfig.json; where a local run has none, the folders are the channels."""
    path = folder / "inputdataconfig.json"
    if path.exists():
        found = _json(path).items()
        return {name: told if isinstance(told, dict) else {} for name, told in found}
    data = base / "input" / "data"
    return {one.name: {} for one in sorted(data.glob("*")) if one.is_dir()}


def _level(control: Mapping[str, Any], config: TrainingSettings) -> int:
    level = control.get("sagemaker_container_log_level", config.log_level)
    if isinstance(level, int):
        return level
    raise StartError(
        f"The hyperparameter sagemaker_container_log_level is {level!r}; expected a number, "
        "20 for information."
    )
