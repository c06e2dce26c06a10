"""The settings: every environment variable the program reads, its default, its unit, its reason.

`Config.from_env` is the only reader of the environment, and `Machine.read` the only reader of what
the kernel lets this container use. The README's table is made from the fields below, and a test
keeps the two equal. An empty string means unset. A value that does not parse is a `StartError`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from skserve.errors import StartError

MIB = 1 << 20

# Read by OpenMP and the BLAS libraries when they are loaded, so set before numpy is imported.
NATIVE_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    parse.__doc__ = f"a whole number from {low:,} to {high:,}"
    return parse


def _seconds(text: str) -> float:
    """a number of seconds above 0"""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def _choice(*words: str, **meanings: Any) -> Callable[[str], Any]:
    meanings = {word.lower(): word for word in words} | meanings

    def parse(text: str) -> Any:
        return meanings[text.lower()]

    parse.__doc__ = "one of " + ", ".join(meanings)
    return parse


_truth = _choice(**{"true": True, "1": True, "false": False, "0": False})


def _model_below(text: str) -> Path:
    """a folder"""
    return Path(text) / "model"


def _folder(text: str) -> Path:
    """a folder that is there"""
    if not Path(text).is_dir():
        raise ValueError
    return Path(text)


def _media_type(text: str) -> str:
    """a media type"""
    return text.split(";")[0].strip().lower()


def _words(text: str) -> tuple[str, ...]:
    """names separated by commas"""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _setting(name: str, default: object, parse: Callable[[str], Any], says: str, shown: str) -> Any:
    return field(
        default=default, metadata={"name": name, "parse": parse, "says": says, "shown": shown}
    )


@dataclass(frozen=True)
class Machine:
    """What this process may use: CPUs (a fraction under a quota) and bytes of memory."""

    cpus: float
    memory: int

    @classmethod
    def read(cls, root: Path = Path("/")) -> Machine:
        """Read cgroup v2 or v1 limits below `root`, the CPU affinity, and the memory fitted."""
        cgroup = root / "sys/fs/cgroup"
        cpus = float(len(os.sched_getaffinity(0)))
        quota = _numbers(cgroup / "cpu.max") or (
            _numbers(cgroup / "cpu/cpu.cfs_quota_us") + _numbers(cgroup / "cpu/cpu.cfs_period_us")
        )
        if len(quota) == 2 and quota[0] > 0:
            cpus = min(cpus, quota[0] / quota[1])
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = _numbers(cgroup / "memory.max") or _numbers(cgroup / "memory/memory.limit_in_bytes")
        return cls(cpus, min(memory, *limit) if limit else memory)

    @staticmethod
    def left(root: Path = Path("/")) -> int:
        """Return the bytes of memory that could still be taken now; the page cache is given up."""
        meminfo = _named(root / "proc/meminfo")
        left = [1024 * meminfo["MemAvailable:"]] if "MemAvailable:" in meminfo else []
        cgroup = root / "sys/fs/cgroup"
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
        ):
            numbers = _numbers(cgroup / limit), _numbers(cgroup / usage)
            if all(numbers):
                reclaimable = _named((cgroup / limit).parent / "memory.stat").get(cache, 0)
                left.append(numbers[0][0] - numbers[1][0] + reclaimable)
        return max(0, min(left, default=1 << 60))

    @staticmethod
    def oom_kills(root: Path = Path("/")) -> int:
        """Return how many processes of this container the kernel has killed for memory so far."""
        cgroup = root / "sys/fs/cgroup"
        return max(
            _named(path).get("oom_kill", 0)
            for path in (cgroup / "memory.events", cgroup / "memory/memory.oom_control")
        )


def _named(path: Path) -> dict[str, int]:
    """Return the numbers of a control file that has a name and a number on each line."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


_BATCH_PAYLOAD = 100  # MiB, the most that SageMaker sends of a file at a time

# What is different under batch transform, unless it was said otherwise. SageMaker's own limit to a
# call, an hour at most, comes before this one. Without a name, the answer is in the input's format.
_IN_BATCH: dict[str, object] = {"timeout": 3600.0, "max_payload_mb": _BATCH_PAYLOAD, "accept": ""}


def _numbers(path: Path) -> list[int]:
    """Return the whole numbers in a control file; none where it is absent or says `max`."""
    try:
        words = path.read_text().split()
    except OSError:
        return []
    return [int(word) for word in words] if "max" not in words else []


@dataclass(frozen=True)
class Config:
    """Everything that may differ between two runs. Built by `from_env`, never changed."""

    port: int = _setting(
        "SAGEMAKER_BIND_TO_PORT", 8080, _whole(1, 65535), "Port to listen on.", "8080"
    )
    model_dir: Path = _setting(
        "SAGEMAKER_BASE_DIR",
        Path("/opt/ml/model"),
        _model_below,
        "Root of SageMaker's layout: the model is in `model` below it.",
        "/opt/ml",
    )
    program: str | None = _setting(
        "SAGEMAKER_PROGRAM", None, str, "The user's script, with or without `.py`.", "inference.py"
    )
    submit_directory: str | None = _setting(
        "SAGEMAKER_SUBMIT_DIRECTORY",
        None,
        str,
        "Where the user's code is: a folder, a tar.gz, `file://` or `s3://`.",
        "`code` in the model directory, then the model directory itself",
    )
    region: str | None = _setting(
        "SAGEMAKER_REGION",
        None,
        str,
        "Region for an `s3://` submit directory. `AWS_REGION` comes before it, "
        "`AWS_DEFAULT_REGION` after.",
        "",
    )
    s3_endpoint: str | None = _setting(
        "S3_ENDPOINT_URL", None, str, "Another S3 endpoint for the submit directory.", ""
    )
    workers: int | None = _setting(
        "SAGEMAKER_MODEL_SERVER_WORKERS",
        None,
        _whole(1, 1024),
        "Worker processes. They share one copy of the model.",
        "the CPUs the container has, fewer where memory is short",
    )
    timeout: float = _setting(
        "SAGEMAKER_MODEL_SERVER_TIMEOUT",
        60.0,
        _seconds,
        "Seconds a request may take, waiting included; a 504 after that.",
        "60; in batch 3600",
    )
    accept: str = _setting(
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
        "application/json",
        _media_type,
        "Answer format where the caller names none, or `*/*`.",
        "application/json; in batch the input's own",
    )
    max_payload_mb: int = _setting(
        "SAGEMAKER_MAX_PAYLOAD_IN_MB",
        25,
        _whole(0, 2048),
        "Largest body in MiB; a 413 above. 0 is without a limit.",
        "25; in batch 100",
    )
    batch: bool = _setting(
        "SAGEMAKER_BATCH",
        False,
        _truth,
        "`true` under batch transform: one line out for each line in, see docs/60-batch.md.",
        "false",
    )
    batch_strategy: str = _setting(
        "SAGEMAKER_BATCH_STRATEGY",
        "MULTI_RECORD",
        _choice("MULTI_RECORD", "SINGLE_RECORD"),
        "What `/execution-parameters` says: `MULTI_RECORD` or `SINGLE_RECORD`.",
        "MULTI_RECORD",
    )
    concurrent_transforms: int = _setting(
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",
        0,
        _whole(0, 1000),
        "Calls at once that `/execution-parameters` asks for.",
        "the workers",
    )
    bad_record: str = _setting(
        "SKSERVE_BATCH_BAD_RECORD",
        "fail",
        _choice("fail", "placeholder"),
        "What one bad record does in batch: `fail` its mini-batch, or leave a `placeholder`.",
        "fail",
    )
    spool_dir: Path = _setting(
        "SKSERVE_SPOOL_DIR",
        Path("/tmp"),
        _folder,
        "Folder for the answers to large bodies until the whole body is read.",
        "/tmp",
    )
    spool_mb: int | None = _setting(
        "SKSERVE_SPOOL_MB",
        None,
        _whole(1, 1 << 20),
        "MiB that one answer may take there; a 413 above.",
        "half of what is free there; of a tmpfs at most an eighth of the memory",
    )
    log_level: int = _setting(
        "SAGEMAKER_CONTAINER_LOG_LEVEL",
        20,
        _whole(0, 50),
        "Python's logging level. 30 and above silences the line per request.",
        "20",
    )
    multi_model: bool = _setting(
        "SAGEMAKER_MULTI_MODEL",
        False,
        _truth,
        "`true` serves many models, loaded and unloaded while it runs, instead of one.",
        "false",
    )
    model_hosts: str = _setting(
        "SKSERVE_MODEL_HOSTS",
        "first",
        _choice("first", "all"),
        "Which hosts of a training job write the model: `first` or `all`.",
        "first",
    )
    model_file: str | None = _setting(
        "SKSERVE_MODEL_FILE",
        None,
        str,
        "The model, as a path inside the model directory.",
        "the one `.joblib`, `.pkl`, `.pickle` or `.skops` there",
    )
    method: str | None = _setting(
        "SKSERVE_METHOD",
        None,
        str,
        "Method that answers, such as `predict_proba`.",
        "`predict`, or what the model has instead",
    )
    accelerate: str = _setting(
        "SKSERVE_ACCELERATE",
        "auto",
        _choice("auto", "off", "require"),
        "Faster ways to the same answers: `auto`, `off`, or `require` (do not start without).",
        "auto",
    )
    version_policy: str = _setting(
        "SKSERVE_VERSION_POLICY",
        "warn",
        _choice("warn", "error", "off"),
        "A model saved by another scikit-learn minor: `warn`, `error` (do not start) or `off`.",
        "warn",
    )
    skops_trusted: tuple[str, ...] = _setting(
        "SKSERVE_SKOPS_TRUSTED",
        (),
        _words,
        "Types a `.skops` file may build beyond skops' own list, separated by commas.",
        "",
    )
    threads: int | None = _setting(
        "SKSERVE_THREADS",
        None,
        _whole(1, 256),
        "Predictions one worker runs at the same time.",
        "2, or 1 with a script, which may not be thread-safe",
    )
    queue: int = _setting(
        "SKSERVE_QUEUE",
        128,
        _whole(0, 1000),
        "Requests one worker lets wait for a thread; a 503 above.",
        "128",
    )
    batching: str = _setting(
        "SKSERVE_BATCHING",
        "auto",
        _choice("auto", "on", "off"),
        "Answer requests that wait at the same moment by one call: `auto` where scikit-learn's own "
        "classes answer each row by itself, `on` where you say so of your model or `predict_fn`.",
        "auto",
    )
    in_flight_mb: int | None = _setting(
        "SKSERVE_IN_FLIGHT_MB",
        None,
        _whole(1, 1 << 20),
        "MiB of bodies held at once over all workers; a 503 above.",
        "a sixteenth of the memory",
    )
    preload: bool = _setting(
        "SKSERVE_PRELOAD",
        True,
        _choice(on=True, off=False),
        "`off` loads the model in each worker instead of once before they fork.",
        "on",
    )
    user: str = _setting(
        "SKSERVE_USER",
        "nobody",
        str,
        "Who to become when started as root; `root` stays root.",
        "nobody",
    )
    model_root: Path | None = _setting(
        "SKSERVE_MODEL_ROOT",
        None,
        Path,
        "Folder below which the `url` of a model must lie in the multi-model mode.",
        "/opt/ml",
    )
    load_timeout: float = _setting(
        "SKSERVE_LOAD_TIMEOUT",
        300.0,
        _seconds,
        "Seconds that loading a model may take in the multi-model mode.",
        "300",
    )
    log_format: str = _setting(
        "SKSERVE_LOG_FORMAT",
        "text",
        _choice("text", "json"),
        "`text` or `json` lines.",
        "text",
    )
    native_threads: int | None = _setting(
        "OMP_NUM_THREADS",
        None,
        _whole(1, 1024),
        "Threads of OpenMP and BLAS in each worker.",
        "the CPUs, divided among workers and their threads",
    )
    machine: Machine = Machine(1.0, 1 << 30)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **given: object) -> Config:
        """Read the settings from `environ`; `given` holds what the command line said instead.

        Raises StartError, naming the variable, its value and what was expected.
        """
        values: dict[str, object] = {"machine": Machine.read()}
        for setting in settings():
            text = environ.get(setting.metadata["name"], "").strip()
            if not text:
                continue
            parse = setting.metadata["parse"]
            try:
                values[setting.name] = parse(text)
            except (ValueError, KeyError):
                raise StartError(
                    f"{setting.metadata['name']} is {text!r}; expected {parse.__doc__}."
                ) from None
        if values.get("batch"):
            values = _IN_BATCH | values
        regions = environ.get("AWS_REGION"), values.get("region"), environ.get("AWS_DEFAULT_REGION")
        values["region"] = next(filter(None, regions), None)
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)  # type: ignore[arg-type]

    @property
    def base_dir(self) -> Path:
        """The root of SageMaker's layout."""
        return self.model_dir.parent

    @property
    def models_below(self) -> Path:
        """The folder in which the models of the multi-model mode lie."""
        return self.model_root or self.base_dir

    @property
    def max_body(self) -> int:
        """Bytes in the largest body that is read."""
        return self.max_payload_mb * MIB or sys.maxsize - 1

    @property
    def max_whole(self) -> int:
        """Bytes in the largest body that is held whole, because it cannot be cut into chunks."""
        return (self.max_payload_mb or _BATCH_PAYLOAD) * MIB


def settings() -> tuple[Field[Any], ...]:
    """Return the fields that an environment variable sets, in the README's order."""
    return tuple(field for field in fields(Config) if field.metadata)
