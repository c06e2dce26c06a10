"""The settings: every environment variable the program reads, its default, its unit, its reason.

They stand in groups by who reads them: a function takes the smallest group that has what it needs,
and a `Config` is all of them. `Config.from_env` is the only reader of the environment. The README's
table is made from the fields below and the texts under them, and a test keeps the two equal. An
empty string means unset. A value that does not parse is a `StartError`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from skserve.errors import StartError
from skserve.machine import Machine
from skserve.settings import (
    ADDRESS,
    BASE_FOLDER,
    DIGESTS,
    FOLDER,
    MEDIA_TYPE,
    OTHER_PATH,
    SECONDS,
    SWITCH,
    TEXT,
    TRUTH,
    WORDS,
    choice,
    setting,
    whole,
)

MIB = 1 << 20

# Read by OpenMP and the BLAS libraries when they are loaded, so set before numpy is imported.
NATIVE_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_BATCH_PAYLOAD = 100  # MiB, the most that SageMaker sends of a file at a time

# What is different under batch transform, unless it was said otherwise. SageMaker's own limit to a
# call, an hour at most, comes before this one. Without a name, the answer is in the input's format.
_IN_BATCH: dict[str, object] = {"timeout": 3600.0, "max_payload_mb": _BATCH_PAYLOAD, "accept": ""}


@dataclass(frozen=True)
class ProcessSettings:
    """What every process here may read."""

    model_dir: Path = setting(
        "SAGEMAKER_BASE_DIR", BASE_FOLDER, Path("/opt/ml/model"), shown="/opt/ml"
    )
    """Root of SageMaker's layout: the model is in `model` below it."""
    multi_model: bool = setting("SAGEMAKER_MULTI_MODEL", TRUTH, False)
    """`true` serves many models, loaded and unloaded while it runs, instead of one."""
    batch: bool = setting("SAGEMAKER_BATCH", TRUTH, False)
    """`true` under batch transform: one line out for each line in, see docs/60-batch.md."""
    user: str = setting("SKSERVE_USER", TEXT, "nobody")
    """Who to become when started as root; `root` stays root."""
    log_level: int = setting("SAGEMAKER_CONTAINER_LOG_LEVEL", whole(0, 50), 20)
    """Python's logging level. 30 and above silences the line per request."""
    log_format: str = setting("SKSERVE_LOG_FORMAT", choice("text", "json"), "text")
    """`text` or `json` lines."""
    log_values: bool = setting("SKSERVE_LOG_VALUES", TRUTH, False)
    """`true` lets the log quote what callers sent, in messages of errors and exceptions."""
    native_threads: int | None = setting(
        "OMP_NUM_THREADS",
        whole(1, 1024),
        shown="the CPUs, divided among workers and their threads",
    )
    """Threads of OpenMP and BLAS in each worker."""
    machine: Machine = Machine(1.0, 1 << 30)

    @property
    def base_dir(self) -> Path:
        """The root of SageMaker's layout."""
        return self.model_dir.parent


@dataclass(frozen=True)
class HttpSettings(ProcessSettings):
    """What the server and its workers read."""

    port: int = setting("SAGEMAKER_BIND_TO_PORT", whole(1, 65535), 8080)
    """Port to listen on."""
    workers: int | None = setting(
        "SAGEMAKER_MODEL_SERVER_WORKERS",
        whole(1, 1024),
        shown="the CPUs the container has, fewer where memory is short",
    )
    """Worker processes. They share one copy of the model."""
    threads: int | None = setting(
        "SKSERVE_THREADS",
        whole(1, 256),
        shown="2, or 1 with a script, which may not be thread-safe",
    )
    """Predictions one worker runs at the same time."""
    queue: int = setting("SKSERVE_QUEUE", whole(0, 1000), 128)
    """Requests one worker lets wait for a thread; a 503 above."""
    queue_seconds: float | None = setting(
        "SKSERVE_QUEUE_SECONDS", SECONDS, shown="half the timeout; in batch no limit"
    )
    """Seconds a request may wait for a thread: what by the measured pace would wait longer is a 503
    at once."""
    timeout: float = setting(
        "SAGEMAKER_MODEL_SERVER_TIMEOUT", SECONDS, 60.0, shown="60; in batch 3600"
    )
    """Seconds a request may take, waiting included; a 504 after that."""
    max_payload_mb: int = setting(
        "SAGEMAKER_MAX_PAYLOAD_IN_MB", whole(0, 2048), 25, shown="25; in batch 100"
    )
    """Largest body in MiB; a 413 above. 0 is without a limit."""
    in_flight_mb: int | None = setting(
        "SKSERVE_IN_FLIGHT_MB", whole(1, 1 << 20), shown="a sixteenth of the memory"
    )
    """MiB of bodies, as tables with their answers, held at once over all workers; a 503 above."""
    batching: str = setting("SKSERVE_BATCHING", choice("auto", "on", "off"), "auto")
    """Answer requests that wait at the same moment by one call: `auto` where scikit-learn's own
    classes answer each row by itself, `on` where you say so of your model or `predict_fn`."""
    metrics: bool = setting("SKSERVE_METRICS", SWITCH, True, shown="on")
    """`off` counts nothing, and there is no `/metrics`."""
    metrics_path: str = setting("SKSERVE_METRICS_PATH", OTHER_PATH, "/metrics")
    """Where the metrics are."""
    metrics_columns: bool = setting("SKSERVE_METRICS_COLUMNS", TRUTH, False)
    """`true` counts missing, unseen and out of range cells by column too, of 50 at most."""
    preload: bool = setting("SKSERVE_PRELOAD", SWITCH, True, shown="on")
    """`off` loads the model in each worker instead of once before they fork."""
    page: bool = setting("SKSERVE_PAGE", SWITCH, True, shown="on")
    """`off` answers `GET /` with JSON to browsers too, instead of the page to try the model."""

    max_requests: int = setting("SKSERVE_MAX_REQUESTS", whole(0, 1 << 40), 0)
    """Requests after which a process is replaced, a tenth more or fewer; 0 is never."""

    @property
    def longest_wait(self) -> float:
        """Seconds that a request may wait for a thread, as far as that can be foreseen."""
        return self.queue_seconds or (math.inf if self.batch else self.timeout / 2)

    @property
    def in_flight(self) -> int:
        """Bytes of bodies, and of what is made of them, held at once over all workers."""
        return (self.in_flight_mb or self.machine.memory // MIB // 16) * MIB

    @property
    def max_body(self) -> int:
        """Bytes in the largest body that is read."""
        return self.max_payload_mb * MIB or sys.maxsize - 1

    @property
    def max_whole(self) -> int:
        """Bytes in the largest body that is held whole, because it cannot be cut into chunks."""
        return (self.max_payload_mb or _BATCH_PAYLOAD) * MIB


@dataclass(frozen=True)
class BatchSettings(ProcessSettings):
    """What large bodies and batch transform read."""

    batch_strategy: str = setting(
        "SAGEMAKER_BATCH_STRATEGY", choice("MULTI_RECORD", "SINGLE_RECORD"), "MULTI_RECORD"
    )
    """What `/execution-parameters` says: `MULTI_RECORD` or `SINGLE_RECORD`."""
    concurrent_transforms: int = setting(
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", whole(0, 1000), 0, shown="the workers"
    )
    """Calls at once that `/execution-parameters` asks for."""
    bad_record: str = setting("SKSERVE_BATCH_BAD_RECORD", choice("fail", "placeholder"), "fail")
    """What one bad record does in batch: `fail` its mini-batch, or leave a `placeholder`."""
    spool_dir: Path = setting("SKSERVE_SPOOL_DIR", FOLDER, Path("/tmp"))
    """Folder for the answers to large bodies until the whole body is read."""
    spool_mb: int | None = setting(
        "SKSERVE_SPOOL_MB",
        whole(1, 1 << 20),
        shown="half of what is free there; of a tmpfs at most an eighth of the memory",
    )
    """MiB that one answer may take there; a 413 above."""


@dataclass(frozen=True)
class ModelSettings(ProcessSettings):
    """What finds a model and its script, and makes their handler."""

    model_file: str | None = setting(
        "SKSERVE_MODEL_FILE", TEXT, shown="the one `.joblib`, `.pkl`, `.pickle` or `.skops` there"
    )
    """The model, as a path inside the model directory."""
    method: str | None = setting(
        "SKSERVE_METHOD", TEXT, shown="`predict`, or what the model has instead"
    )
    """Method that answers, such as `predict_proba`."""
    accept: str = setting(
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
        MEDIA_TYPE,
        "application/json",
        shown="application/json; in batch the input's own",
    )
    """Answer format where the caller names none, or `*/*`."""
    accelerate: str = setting("SKSERVE_ACCELERATE", choice("auto", "off", "require"), "auto")
    """Faster ways to the same answers: `auto`, `off`, or `require` (do not start without)."""
    libsvm_base: int = setting("SKSERVE_LIBSVM_BASE", whole(0, 1), 0)
    """Number of the first column in libsvm text, where `;base=` does not say."""
    version_policy: str = setting("SKSERVE_VERSION_POLICY", choice("warn", "error", "off"), "warn")
    """A model saved by another scikit-learn minor: `warn`, `error` (do not start) or `off`."""
    model_sha256: tuple[str, ...] = setting("SKSERVE_MODEL_SHA256", DIGESTS, ())
    """Digest of the whole model folder with its `code`, checked before anything in it is read into
    Python: docs/85-threats.md. Several allow one of several models."""
    skops_trusted: tuple[str, ...] = setting("SKSERVE_SKOPS_TRUSTED", WORDS, ())
    """Types a `.skops` file may build beyond skops' own list, separated by commas."""
    program: str | None = setting("SAGEMAKER_PROGRAM", TEXT, shown="inference.py")
    """The user's script, with or without `.py`."""
    submit_directory: str | None = setting(
        "SAGEMAKER_SUBMIT_DIRECTORY",
        TEXT,
        shown="`code` in the model directory, then the model directory itself",
    )
    """Where the user's code is: a folder, a tar.gz, `file://` or `s3://`."""
    region: str | None = setting("SAGEMAKER_REGION", TEXT)
    """Region for an `s3://` submit directory. `AWS_REGION` comes before it, `AWS_DEFAULT_REGION`
    after."""
    s3_endpoint: str | None = setting("S3_ENDPOINT_URL", ADDRESS)
    """Another S3 endpoint for the submit directory."""


@dataclass(frozen=True)
class MultiModelSettings(ProcessSettings):
    """What only the multi-model mode reads."""

    model_root: Path | None = setting("SKSERVE_MODEL_ROOT", FOLDER, shown="/opt/ml")
    """Folder below which the `url` of a model must lie in the multi-model mode."""
    load_timeout: float = setting("SKSERVE_LOAD_TIMEOUT", SECONDS, 300.0)
    """Seconds that loading a model may take in the multi-model mode."""

    @property
    def models_below(self) -> Path:
        """The folder in which the models of the multi-model mode lie."""
        return self.model_root or self.base_dir


@dataclass(frozen=True)
class TrainingSettings(ModelSettings):
    """What a training job reads: the settings of the model and its script too."""

    model_hosts: str = setting("SKSERVE_MODEL_HOSTS", choice("first", "all"), "first")
    """Which hosts of a training job write the model: `first` or `all`."""


@dataclass(frozen=True)
class Config(HttpSettings, BatchSettings, MultiModelSettings, TrainingSettings):
    """Everything that may differ between two runs. Built by `from_env`, never changed."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **given: object) -> Config:
        """Read the settings from `environ`; `given` holds what the command line said instead.

        Raises StartError, naming the variable, its value and what was expected.
        """
        values: dict[str, object] = {"machine": Machine.read()}
        for one in settings():
            name, kind = one.metadata["name"], one.metadata["kind"]
            text = environ.get(name, "").strip()
            if not text:
                continue
            try:
                values[one.name] = kind.parse(text)
            except (ValueError, KeyError):
                raise StartError(f"{name} is {text!r}; expected {kind.expected}.") from None
        if values.get("batch"):
            values = _IN_BATCH | values
        regions = environ.get("AWS_REGION"), values.get("region"), environ.get("AWS_DEFAULT_REGION")
        values["region"] = next(filter(None, regions), None)
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)  # type: ignore[arg-type]


def settings() -> tuple[Field[Any], ...]:
    """Return the fields that an environment variable sets."""
    return tuple(field for field in fields(Config) if field.metadata)
