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
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from deployment.errors import Usage
from deployment.tables import (
    FORMS,
    Access,
    Async,
    Capture,
    EnvironmentKey,
    Instance,
    Kms,
    Metrics,
    Models,
    Name,
    RoleName,
    Scaling,
    Serverless,
    Shadow,
    Short,
    Smoke,
    Startup,
    Table,
    TagKey,
    TagValue,
    Train,
    Update,
    Variant,
    Vpc,
)  # fmt: skip


class Settings(Table):
    """The whole file. Paths are relative to `folder`, the folder of the file."""

    name: Name
    model: str = ""
    model_package: str = ""  # a version of a registered model, or its group
    models: Models | None = None
    code: str | None = None
    choose: str = ""
    verify: bool = False  # the container checks the digest of its model's files before it loads
    image: str = Field(default="", max_length=255)
    image_credentials: str | None = None  # a Lambda function's ARN, for a registry of your own
    role: RoleName = ""
    permissions_boundary: str = ""
    access: Access = Access()
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
    metrics: Metrics | None = None
    shadow: Shadow | None = None
    weight: float = Field(default=1.0, ge=0)  # of this model, where [variants] has others
    variants: dict[Name, Variant] = Field(default_factory=dict, max_length=9)
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
    def count(self) -> int:
        """How many instances all variants together begin with."""
        return self.machines.count + sum(one.count for one in self.variants.values())

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
            reason = error.strerror if isinstance(error, OSError) else error
            raise Usage(f"{path} cannot be read: {reason}") from error
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


# A flag that names one way to run the endpoint drops the other that the file may name, and so does
# one that names a model.
_EXCLUDES = {
    "serverless": ("instance", "async"),
    "instance": ("serverless",),
    "model": ("model_package",),
    "model_package": ("model", "code", "choose", "models"),
}


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
            pattern = fault["ctx"]["pattern"]
            told = f"{fault['input']!r} is not {FORMS.get(pattern, f'of the form {pattern}')}"
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
