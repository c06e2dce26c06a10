"""The tables of `endpoint.toml` below its top: one class each, with types and bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_NAME = r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$"
_URI, _PREFIX = r"^s3://[^/]+(/.*)?$", r"^s3://[^/]+/(.+/)?$"
_INSTANCE = r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$"
_ROLE = r"^(arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+|[\w+=,.@/-]*)$"
_WHEN = (
    r"^(cron\((\S+ ){5}\S+\)|rate\(\d+ (minute|hour|day)s?\)"
    r"|at\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\))$"
)
# What each pattern asks for, in words.
FORMS = {
    _NAME: "a name of at most 63 letters, digits and hyphens, with no hyphen at either end",
    _URI: "of the form s3://BUCKET/KEY",
    _PREFIX: "of the form s3://BUCKET/FOLDER/",
    _INSTANCE: "an instance type, such as ml.m5.large",
    _ROLE: "a role: its name, PATH/NAME, or arn:aws:iam::ACCOUNT:role/NAME",
    _WHEN: "a schedule: cron(MINUTES HOURS DAY MONTH WEEKDAY YEAR), rate(N days) or "
    "at(YYYY-MM-DDTHH:MM:SS)",
}
Name = Annotated[str, StringConstraints(pattern=_NAME)]
S3Uri = Annotated[str, StringConstraints(pattern=_URI, max_length=512)]
S3Prefix = Annotated[str, StringConstraints(pattern=_PREFIX, max_length=512)]
InstanceType = Annotated[str, StringConstraints(pattern=_INSTANCE)]
RoleName = Annotated[str, StringConstraints(pattern=_ROLE)]
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
    routing: Literal["least-outstanding", "random"] | None = None
    fallbacks: tuple[InstanceType, ...] = Field(default=(), max_length=4)  # where `type` runs out
    provision_seconds: int | None = Field(default=None, ge=300, le=3600)


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


class Access(Table):
    """What the role may use in S3 beside what the other settings name."""

    read: tuple[S3Uri, ...] = ()
    write: tuple[S3Uri, ...] = ()


class Kms(Table):
    volume: str | None = None  # the instances' disks
    output: str | None = None  # async output, captured data and transform output
    bucket: str | None = None  # the uploaded archive


class Capture(Table):
    destination: S3Uri
    percent: int = Field(default=100, ge=0, le=100)
    what: tuple[Literal["input", "output"], ...] = ("input", "output")


class Schedule(Table):
    """Bounds that scaling has from a time on, until another schedule changes them."""

    when: str = Field(pattern=_WHEN)
    timezone: str = "UTC"
    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=1)

    @property
    def placed(self) -> bool:
        """Whether there is such a time zone, as far as this machine knows any."""
        known = available_timezones()
        return not known or self.timezone in known


class Scaling(Table):
    min: int = Field(default=1, ge=0)
    max: int = Field(ge=1)
    target: float = Field(gt=0)
    metric: Literal["invocations", "concurrency", "provisioned", "backlog"] | None = None
    scale_in_seconds: Seconds = 300
    scale_out_seconds: Seconds = 60
    disable_scale_in: bool = False
    schedules: dict[Name, Schedule] = Field(default_factory=dict, max_length=20)

    @property
    def least(self) -> int:
        """The smallest count at any time."""
        return min([self.min, *(s.min for s in self.schedules.values() if s.min is not None)])

    @property
    def most(self) -> int:
        """The largest count at any time."""
        return max([self.max, *(s.max for s in self.schedules.values() if s.max is not None)])

    @property
    def crossed(self) -> bool:
        """Whether some bounds, those of a schedule included, are the wrong way round."""
        bounds = [(one.min, one.max) for one in self.schedules.values()]
        return any((self.min if low is None else low) > (self.max if high is None else high)
                   for low, high in [(None, None), *bounds])  # fmt: skip


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


class Metrics(Table):
    """What SageMaker scrapes from the container, and alarms on it."""

    detailed: bool = True
    seconds: Literal[10, 30, 60, 120, 180, 240, 300] = 60
    path: str = Field(
        default="/metrics", pattern=r"^(/[a-zA-Z0-9_\-]+(\.[a-zA-Z0-9_\-]+)*)+/?$", max_length=256
    )
    rejected_per_second: float | None = Field(default=None, ge=0)  # each makes an alarm
    queue_seconds: float | None = Field(default=None, gt=0)  # of 99 % of the calls


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


class Variant(Table):
    """Another model that answers a share of the calls: its weight among all weights."""

    model: str
    code: str | None = None
    choose: str = ""
    image: str | None = None
    type: InstanceType | None = None
    count: int = Field(default=1, ge=1)
    weight: float = Field(gt=0)


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
    register_: Name | None = Field(default=None, alias="register")  # the group of its versions
    approved: bool = False  # whether a version may be deployed without anyone's look


class Startup(Table):
    download_seconds: int | None = Field(default=None, ge=60, le=3600)
    health_seconds: int | None = Field(default=None, ge=60, le=3600)
