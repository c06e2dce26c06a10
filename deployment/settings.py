"""`endpoint.toml`: what the endpoint should be, validated before any call.

`load` reads the file, lays the flags over it and returns a frozen `Settings`. Every fault is a
`Usage` that names the line, the key and the allowed values. What SageMaker refuses in combination
is the table in `combinations`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from deployment.errors import Usage

# Names share one rule: letters, digits and hyphens, at most 63, and no hyphen at either end.
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")]
S3Uri = Annotated[str, StringConstraints(pattern=r"^s3://[^/]+(/.*)?$", max_length=512)]
S3Prefix = Annotated[str, StringConstraints(pattern=r"^s3://[^/]+/(.+/)?$", max_length=512)]
InstanceType = Annotated[str, StringConstraints(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$")]
Seconds = Annotated[int, Field(ge=0, le=3600)]
EnvironmentKey = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=1024)
]
Short = Annotated[str, StringConstraints(max_length=1024)]
TrainValue = Annotated[str, StringConstraints(max_length=512)]
Channel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.\-_]{1,64}$")]
TagKey = Annotated[str, StringConstraints(min_length=1, max_length=128)]
TagValue = Annotated[str, StringConstraints(max_length=256)]


class Table(BaseModel):
    """A table of the file: unknown keys are faults, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Instance(Table):
    type: InstanceType = "ml.m5.large"
    count: int = Field(default=1, ge=1)
    volume_gb: int | None = Field(default=None, ge=1, le=512)


class Serverless(Table):
    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 2048
    concurrency: int = Field(default=5, ge=1, le=200)
    provisioned: int | None = Field(default=None, ge=1, le=200)


class Async(Table):
    output: S3Uri
    failure: S3Uri | None = None
    concurrency: int | None = Field(default=None, ge=1, le=1000)
    success_topic: str | None = None
    error_topic: str | None = None


class Vpc(Table):
    subnets: tuple[str, ...] = Field(min_length=1, max_length=16)
    security_groups: tuple[str, ...] = Field(min_length=1, max_length=5)


class Kms(Table):
    volume: str | None = None  # the instances' disks
    output: str | None = None  # async output, captured data and transform output
    bucket: str | None = None  # the uploaded archive


class Capture(Table):
    destination: S3Uri
    percent: int = Field(default=100, ge=0, le=100)
    what: tuple[Literal["input", "output"], ...] = ("input", "output")


class Scaling(Table):
    min: int = Field(default=1, ge=0)
    max: int = Field(ge=1)
    target: float = Field(gt=0)
    metric: Literal["invocations", "concurrency", "provisioned", "backlog"] | None = None
    scale_in_seconds: Seconds = 300
    scale_out_seconds: Seconds = 60


class Update(Table):
    policy: Literal["all-at-once", "canary", "linear", "rolling"] = "all-at-once"
    percent: int = Field(
        default=50, ge=5, le=100
    )  # canary: first share; linear: step; rolling: batch
    wait_seconds: Seconds = 60
    termination_seconds: Seconds = 0
    max_seconds: int | None = Field(default=None, ge=600, le=28800)
    alarms: tuple[str, ...] = Field(default=(), max_length=10)
    auto_rollback: bool | None = None
    error_rate: float | None = Field(
        default=None, gt=0, le=1
    )  # share of calls answered 5xx: makes an alarm
    latency_ms: float | None = Field(
        default=None, gt=0
    )  # mean time in the container: makes an alarm


class Models(Table):
    """Many models in one endpoint: every archive below `prefix` is one."""

    prefix: S3Prefix | None = None
    cache: bool = True  # off: each model is unloaded and deleted from disk after its call


class Shadow(Table):
    model: str
    code: str | None = None
    choose: str = ""
    image: str | None = None
    type: InstanceType | None = None
    count: int = Field(default=1, ge=1)
    percent: int = Field(default=100, ge=1, le=100)


class Smoke(Table):
    body: str
    content_type: str = "text/csv"
    accept: str = "text/csv"
    target: str | None = None  # of many models, the one that is called


class Train(Table):
    """A training job. Paths are relative to the file's folder, as everywhere."""

    channels: dict[Channel, str] = Field(default_factory=dict, max_length=19)
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    content_types: dict[Channel, str] = Field(default_factory=dict)
    program: str | None = None  # the script, in `code`; without one, nothing but hyperparameters
    code: str | None = None
    image: str = Field(default="", max_length=255)  # default: the endpoint's
    type: InstanceType = "ml.m5.large"
    count: int = Field(default=1, ge=1)
    volume_gb: int = Field(default=30, ge=1)
    max_seconds: int = Field(default=86400, ge=1, le=28 * 86400)
    spot: bool = False
    wait_seconds: int | None = Field(default=None, ge=1)
    checkpoints: S3Uri | None = None
    metrics: dict[str, str] = Field(default_factory=dict, max_length=40)  # name: regex
    output: S3Uri | None = None
    environment: dict[EnvironmentKey, TrainValue] = Field(default_factory=dict, max_length=100)
    encrypt_traffic: bool = False


class Startup(Table):
    download_seconds: int | None = Field(default=None, ge=60, le=3600)
    health_seconds: int | None = Field(default=None, ge=60, le=3600)


class Settings(Table):
    """The whole file. Paths are relative to `folder`, the folder of the file."""

    name: Name
    model: str = ""
    models: Models | None = None
    code: str | None = None
    choose: str = ""
    image: str = Field(default="", max_length=255)
    role: str = ""
    region: str | None = None
    profile: str | None = None
    bucket: str | None = None
    prefix: str = "skserve"
    keep: int = Field(default=3, ge=1)
    network_isolation: bool | None = None
    instance: Instance | None = None
    serverless: Serverless | None = None
    async_: Async | None = Field(default=None, alias="async")
    environment: dict[EnvironmentKey, Short] = Field(default_factory=dict, max_length=100)
    vpc: Vpc | None = None
    kms: Kms = Kms()
    tags: dict[TagKey, TagValue] = Field(default_factory=dict, max_length=48)
    capture: Capture | None = None
    scaling: Scaling | None = None
    update: Update = Update()
    shadow: Shadow | None = None
    smoke: Smoke | None = None
    startup: Startup = Startup()
    train: Train | None = None
    folder: Path = Field(Path(), exclude=True)

    @property
    def mode(self) -> Literal["serverless", "async", "instance"]:
        """How the endpoint is paid and called."""
        if self.serverless is not None:
            return "serverless"
        return "async" if self.async_ is not None else "instance"

    @property
    def home(self) -> str:
        """The endpoint's own folder in its bucket."""
        return f"{self.prefix.strip('/')}/{self.name}".lstrip("/")

    def bucket_in(self, region: str, account: str) -> str:
        """Return the bucket; the default is the one that SageMaker's own SDK takes."""
        return self.bucket or f"sagemaker-{region}-{account}"

    @property
    def machines(self) -> Instance:
        """The instance table, or its defaults where the file has none."""
        return self.instance or Instance()

    @property
    def instance_type(self) -> str | None:
        """The instance type, or None for serverless."""
        return None if self.serverless is not None else self.machines.type


def load(path: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """Read `path` (it may be None: flags only) and lay `overrides`, a nested mapping, over it."""
    text = ""
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Usage(f"{path} cannot be read: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Usage(f"{path} is not TOML: {error}") from error
    folder = path.parent if path is not None else Path()
    merged = _overlay(content, overrides)
    try:
        return Settings.model_validate(merged | {"folder": folder})
    except ValidationError as error:
        raise Usage(_told(error, text, path, overrides)) from error


# A flag that names one way to run the endpoint drops the other that the file may name.
_EXCLUDES = {"serverless": ("instance", "async"), "instance": ("serverless",)}


def _overlay(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for key, value in overrides.items():
        for other in _EXCLUDES.get(key, ()):
            if other not in overrides:
                merged.pop(other, None)
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _overlay(below, value)
        else:
            merged[key] = value
    return merged


def _told(
    error: ValidationError, text: str, path: Path | None, overrides: Mapping[str, Any]
) -> str:
    lines = []
    for fault in error.errors():
        keys = [str(part) for part in fault["loc"] if part != "[key]"]
        origin = where(text, keys, path, overrides)
        told = fault["msg"].replace("Input should be", "should be")
        if fault["type"] == "extra_forbidden":
            told = _unknown(keys)
        elif fault["type"] == "missing":
            told = "is missing"
        elif fault["type"] == "string_pattern_mismatch":
            told = f"{fault['input']!r} does not fit {fault['ctx']['pattern']}"
        else:
            told += f", not {fault['input']!r}"
        lines.append(f"{origin}: {'.'.join(keys)}: {told}")
    return "\n".join(lines)


def _unknown(keys: list[str]) -> str:
    """Say which keys are known beside an unknown one, the nearest first."""
    table: type[BaseModel] | None = Settings
    for key in keys[:-1]:
        table = _table_of(table, key)
    if table is None:
        return "unknown key"
    known = [field.alias or name for name, field in table.model_fields.items() if name != "folder"]
    near = difflib.get_close_matches(keys[-1], known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown key; {hint}known here: {', '.join(known)}"


def _table_of(table: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    for name, field in table.model_fields.items() if table else ():
        if key in (name, field.alias):
            kinds = getattr(field.annotation, "__args__", (field.annotation,))
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    return kind
    return None


def where(text: str, keys: list[str], path: Path | None, overrides: Mapping[str, Any]) -> str:
    """Say where a key was given: `endpoint.toml:7`, or the flags."""
    below: Any = overrides
    for key in keys:
        below = below.get(key) if isinstance(below, Mapping) else None
    if below is not None or path is None:
        return "flags"
    line = line_of(text, keys)
    return f"{path.name}:{line}" if line else path.name


def line_of(text: str, keys: list[str]) -> int | None:
    """Return the line, from 1, that sets `keys`, or the nearest table above it."""
    table: list[str] = []
    best: tuple[int, int] | None = None  # how many keys match, and the line
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = [part.strip("\"' ") for part in header[1].split(".")]
            here = table
        elif setting := re.match(r"\s*([\w\-.\"' :/]+?)\s*=", line):
            here = table + [part.strip("\"' ") for part in setting[1].split(".")]
        else:
            continue
        if here == keys[: len(here)] and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None
