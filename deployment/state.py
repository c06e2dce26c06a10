"""What is asked for and what exists, as plain values: the two inputs of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from deployment.package import Package
from deployment.settings import Settings

OWNER_TAG = "skserve:endpoint"  # on everything we make; its value is the endpoint's name
DEFAULTS_TAG = "skserve:defaults"  # on a config: which defaults it was made with
VARIANT = "AllTraffic"
SHADOW = "Shadow"
TRANSITIONAL = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})


@dataclass(frozen=True)
class Source:
    """Where a variant's model lies, or will lie once `package` is uploaded."""

    uri: str
    kind: Literal["archive", "object", "prefix", "many", "package"]
    identity: str  # changes when the content does: a digest of ours, or S3's ETag
    package: Package | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Target:
    """The settings with every name resolved: what the endpoint should be."""

    settings: Settings
    account: str
    region: str
    role: str
    bucket: str
    image: str
    source: Source
    isolated: bool
    shadow_image: str = ""
    shadow_source: Source | None = None
    others: tuple[tuple[str, Source], ...] = ()  # image and source of each of settings.variants
    captured: tuple[str, ...] = ("text/csv",)  # content types that are captured as CSV
    defaults: str = ""  # which defaults were taken, kept as a tag of the config

    @property
    def sources(self) -> list[Source]:
        """All models of the endpoint, production first."""
        shadow = [self.shadow_source] if self.shadow_source else []
        return [self.source, *shadow, *(source for _, source in self.others)]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as DescribeEndpoint tells it."""

    name: str
    arn: str
    status: str
    config: str
    reason: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    created: datetime | None = None
    instances: int = 0
    pending: str = ""  # the config that an update in progress leads to
    stage: str = ""  # of an update in progress: its variants' states and counts


@dataclass(frozen=True)
class Config:
    """An endpoint config of ours. `variants` maps a variant to its instance type or serverless."""

    name: str
    created: datetime
    models: tuple[str, ...]
    variants: Mapping[str, str]
    document: Mapping[str, Any] = field(default_factory=dict, compare=False)  # as AWS describes it

    tags: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def count(self) -> int | None:
        """How many instances the production variant begins with; None if it is not known."""
        variants = self.document.get("ProductionVariants") or [{}]
        count: int | None = variants[0].get("InitialInstanceCount")
        return count


@dataclass(frozen=True)
class Scaling:
    """The scalable target of the endpoint's variant, its policies and schedules, as requests."""

    target: Mapping[str, Any]
    policies: tuple[Mapping[str, Any], ...] = ()
    schedules: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class State:
    """What exists. `assumed` where nothing could be looked at, and so nothing is taken to exist."""

    assumed: bool = False
    bucket_exists: bool = False
    uploaded: frozenset[str] = frozenset()  # s3:// URIs
    endpoint: Endpoint | None = None
    current: Config | None = None  # the config in use, ours or not
    configs: tuple[Config, ...] = ()  # ours, newest first
    models: tuple[str, ...] = ()  # ours
    scaling: tuple[Scaling, ...] = ()
    alarms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # ours, as their requests
    model: Mapping[str, Any] = field(default_factory=dict)  # the model in use, as AWS describes it
