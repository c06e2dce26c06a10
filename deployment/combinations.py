"""What SageMaker refuses in combination, as a table: each row a reason, and where it applies.

The facts are in the contract, sections 1.14, 1.15, 5.3, 7.3 and 7.4. `check` raises one `Refused`
that lists every row that applies, so a user mends the file once. `isolated` decides the default of
network isolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deployment.errors import Refused
from deployment.image_uri import of_account
from deployment.settings import Settings
from deployment.tables import Schedule

# Families with Arm CPUs (contract 7.1); every other one runs linux/amd64 images.
GRAVITON = frozenset({
    "m6g", "m6gd", "m8g", "c6g", "c6gd", "c6gn", "c7g", "c8g", "r6g", "r6gd", "r7gd", "r8g",
})  # fmt: skip
# Families whose disk is local NVMe, where VolumeSizeInGB is refused (contract 7.3).
NVME = frozenset({
    "m5d", "c5d", "r5d", "r6id", "m6gd", "c6gd", "r6gd", "r7gd", "g4dn", "g5", "g6", "g6e", "g7",
    "g7e", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300", "p6e-gb200", "trn1", "trn1n",
    "trn2", "dl1",
})  # fmt: skip
# Families that batch transform has (contract 7.10): no t2 and no Graviton.
TRANSFORM = frozenset({
    "m4", "m5", "m6i", "m7i", "c4", "c5", "c6i", "c7i", "r6i", "r7i", "p2", "p3", "g4dn", "g5",
    "g6", "g6e", "trn1", "inf2",
})  # fmt: skip
_ENVIRONMENT_BYTES = 32 * 1024


@dataclass(frozen=True)
class Rule:
    """`key` is the setting to change, `reason` why AWS refuses it, `applies` when it does."""

    key: str
    reason: str
    applies: Callable[[Settings], bool]


def family(instance_type: str | None) -> str:
    """Return `m5` for `ml.m5.large`, and nothing for None."""
    return instance_type.split(".")[1] if instance_type else ""


def architecture(instance_type: str | None) -> str:
    """Return the Docker architecture that this instance type (None: serverless) runs."""
    return "arm64" if family(instance_type) in GRAVITON else "amd64"


def smallest_fleet(settings: Settings) -> int:
    """Return the smallest number of instances that an update can meet."""
    fleet = settings.machines.count
    return max(fleet, settings.scaling.least) if settings.scaling else fleet


def _serverless(other: Callable[[Settings], object]) -> Callable[[Settings], bool]:
    return lambda s: s.serverless is not None and bool(other(s))


def _schedules(other: Callable[[Schedule], bool]) -> Callable[[Settings], bool]:
    return lambda s: s.scaling is not None and any(map(other, s.scaling.schedules.values()))


def _policy(*names: str) -> Callable[[Settings], bool]:
    return lambda s: s.update.policy in names


def shortest_update_seconds(settings: Settings) -> int:
    """Return the sum of the waits that the update policy asks for, in seconds."""
    update = settings.update
    steps = {
        "all-at-once": 1,
        "canary": 2,
        "linear": math.ceil(100 / update.percent),
        "rolling": math.ceil(100 / update.percent),
    }[update.policy]
    return steps * update.wait_seconds + update.termination_seconds


def _uncompressed(model: str) -> bool:
    return model.startswith("s3://") and not model.endswith(".tar.gz")


def _environment_bytes(environment: Mapping[str, str]) -> int:
    return sum(len(key.encode()) + len(value.encode()) for key, value in environment.items())


def _private_registry(image: str) -> bool:
    return bool(image) and not of_account(image) and ".dkr.ecr." not in image


def _metric_misfits(s: Settings) -> bool:
    if s.scaling is None or s.scaling.metric is None:
        return False
    fitting = {
        "serverless": {"provisioned"},
        "async": {"backlog"},
        "instance": {"invocations", "concurrency"},
    }
    return s.scaling.metric not in fitting[s.mode]


RULES = (
    Rule("serverless", "an endpoint is serverless or has instances, not both",
         _serverless(lambda s: s.instance)),
    Rule("async", "asynchronous endpoints run on instances, not serverless",
         _serverless(lambda s: s.async_)),
    Rule("vpc", "serverless endpoints cannot be in a VPC", _serverless(lambda s: s.vpc)),
    Rule("network_isolation", "serverless endpoints have no network isolation",
         _serverless(lambda s: s.network_isolation)),
    Rule("capture", "serverless endpoints have no data capture", _serverless(lambda s: s.capture)),
    Rule("shadow", "serverless endpoints have one variant only", _serverless(lambda s: s.shadow)),
    Rule("update.policy", "rolling updates are not available to serverless endpoints",
         _serverless(_policy("rolling"))),
    Rule("model", "serverless endpoints take a .tar.gz only, no uncompressed S3 model",
         _serverless(lambda s: _uncompressed(s.model))),
    Rule("image", "serverless endpoints take images from ECR only, not from another registry",
         _serverless(lambda s: _private_registry(s.image))),
    Rule("serverless.provisioned", "provisioned concurrency cannot exceed serverless.concurrency",
         _serverless(lambda s: (s.serverless and s.serverless.provisioned or 0)
                     > (s.serverless.concurrency if s.serverless else 0))),
    Rule("scaling", "a serverless endpoint scales by itself; only provisioned concurrency is "
         "scaled, so set serverless.provisioned",
         _serverless(lambda s: s.scaling and s.serverless and not s.serverless.provisioned)),
    Rule("scaling.target", "for provisioned concurrency it is a share of use, between 0 and 1",
         _serverless(lambda s: s.scaling and s.scaling.target > 1)),
    Rule("scaling.min", "it is more than the max, here or in a schedule",
         lambda s: s.scaling is not None and s.scaling.crossed),
    Rule("scaling.min", "only an asynchronous endpoint scales to zero; others need at least 1",
         lambda s: s.scaling is not None and s.scaling.least < 1 and s.mode != "async"),
    Rule("scaling.schedules", "a schedule changes min, max or both",
         _schedules(lambda one: one.min is None and one.max is None)),
    Rule("scaling.schedules", "a time zone is named as in Europe/Zurich",
         _schedules(lambda one: not one.placed)),
    Rule("scaling.metric", "instances scale by 'invocations' or 'concurrency', serverless by "
         "'provisioned', asynchronous by 'backlog'", _metric_misfits),
    Rule("instance.volume_gb", "this family has local NVMe disks, whose size is fixed",
         lambda s: s.machines.volume_gb is not None and family(s.instance_type) in NVME),
    Rule("kms.volume", "this family's local disks are encrypted by their hardware, and AWS refuses "
         "a key for them; leave kms.volume out, or take another instance.type",
         lambda s: bool(s.kms.volume) and family(s.instance_type) in NVME),
    Rule("kms.volume", "shadow.type is of a family whose local disks are encrypted by their "
         "hardware, and AWS refuses a key for them",
         lambda s: bool(s.kms.volume) and s.shadow is not None and family(s.shadow.type) in NVME),
    Rule("instance.type", "there is no ml.t3 for hosting; the smallest are ml.t2.medium, "
         "ml.m5.large and ml.c5.large", lambda s: family(s.instance_type) == "t3"),
    Rule("instance.fallbacks", "the image runs on one kind of CPU, and these types have two",
         lambda s: len(set(map(architecture, (s.machines.type, *s.machines.fallbacks)))) > 1),
    Rule("variants", "serverless endpoints have one variant only",
         _serverless(lambda s: s.variants)),
    Rule("variants", "an endpoint has a shadow or several variants, not both",
         lambda s: bool(s.variants) and s.shadow is not None),
    Rule("variants", "an endpoint of many models has one variant here",
         lambda s: bool(s.variants) and s.models is not None),
    Rule("variants", "rolling updates need a single variant; use another update.policy",
         lambda s: bool(s.variants) and s.update.policy == "rolling"),
    Rule("variants", "AllTraffic is the name of the endpoint's own model",
         lambda s: "AllTraffic" in s.variants),
    Rule("shadow", "rolling updates need a single variant; use another update.policy",
         lambda s: s.shadow is not None and s.update.policy == "rolling"),
    Rule("update.policy", "with one instance a share of the fleet is no whole instance; "
         "set instance.count to 2 or more, or use 'all-at-once'",
         lambda s: s.update.policy != "all-at-once" and s.mode != "serverless"
         and smallest_fleet(s) < 2),
    Rule("update.percent", "a canary is at most 50 percent of the fleet",
         lambda s: s.update.policy == "canary" and s.update.percent > 50),
    Rule("update.percent", "a linear step is 10 to 50 percent of the fleet",
         lambda s: s.update.policy == "linear" and not 10 <= s.update.percent <= 50),
    Rule("update.percent", "a rolling batch is 5 to 50 percent of the fleet",
         lambda s: s.update.policy == "rolling" and not 5 <= s.update.percent <= 50),
    Rule("update.termination_seconds", "a rolling update keeps no old fleet to wait for",
         lambda s: s.update.policy == "rolling" and s.update.termination_seconds > 0),
    Rule("update.auto_rollback", "without alarms nothing can roll back; name some in "
         "update.alarms, or set update.error_rate or update.latency_ms",
         lambda s: bool(s.update.auto_rollback) and not watched(s)),
    Rule("update.alarms", "an update watches at most 10 alarms, ours included",
         lambda s: len(s.update.alarms) + made_alarms(s) > 10),
    Rule("update.max_seconds", "it must be longer than the waits of the policy together",
         lambda s: s.update.max_seconds is not None
         and s.update.max_seconds <= shortest_update_seconds(s)),
    Rule("update.policy", "endpoints on ml.inf1 are updated all at once only",
         lambda s: family(s.instance_type) == "inf1" and s.update.policy != "all-at-once"),
    Rule("network_isolation", "the code is fetched from S3 at start-up "
         "(SAGEMAKER_SUBMIT_DIRECTORY), which isolation forbids",
         lambda s: bool(s.network_isolation) and _fetches(s)),
    Rule("environment", "all of it together may have 32 KB; put large values into the archive",
         lambda s: _environment_bytes(s.environment) > _ENVIRONMENT_BYTES),
    Rule("tags", "keys that begin with aws: are AWS's own",
         lambda s: any(key.lower().startswith("aws:") for key in s.tags)),
    Rule("models", "an endpoint has one model or many; leave out model, code and choose here, and "
         "give them to add-model",
         lambda s: s.models is not None and bool(s.model or s.code or s.choose)),
    Rule("model_package", "it is the model and its code; leave out model, code, choose, [models]",
         lambda s: bool(s.model_package) and bool(s.model or s.code or s.choose or s.models)),
    Rule("models", "serverless endpoints have one model", _serverless(lambda s: s.models)),
    Rule("models", "asynchronous endpoints have one model",
         lambda s: s.models is not None and s.async_ is not None),
    Rule("shadow", "a shadow of many models is not planned here",
         lambda s: s.models is not None and s.shadow is not None),
    Rule("smoke.target", "it names the one of many models that is called, and is for [models] only",
         lambda s: s.smoke is not None and (s.models is None) != (s.smoke.target is None)),
    Rule("code", "a model that lies in S3 already cannot be packed again; put the code into its "
         "archive", lambda s: bool(s.code) and s.model.startswith("s3://")),
)  # fmt: skip


def watched(settings: Settings) -> bool:
    """Say whether any alarm watches an update."""
    return bool(settings.update.alarms) or made_alarms(settings) > 0


def made_alarms(settings: Settings) -> int:
    """Return how many alarms we make ourselves."""
    return sum(
        value is not None for value in (settings.update.error_rate, settings.update.latency_ms)
    )


def _fetches(settings: Settings) -> bool:
    return settings.environment.get("SAGEMAKER_SUBMIT_DIRECTORY", "").startswith("s3://")


def check(settings: Settings, place: Callable[[str], str] = lambda key: "") -> None:
    """Raise `Refused` with every reason that applies; `place` says where a key was set."""
    faults = [
        f"{place(rule.key)}{rule.key}: {rule.reason}" for rule in RULES if rule.applies(settings)
    ]
    if faults:
        raise Refused("\n".join(faults))


def isolated(settings: Settings, needs_network: str) -> bool:
    """Decide on network isolation: as asked, else on where nothing needs the network.

    Raises `Refused` where it is asked for and the archive says that it needs the network.
    """
    if settings.network_isolation and needs_network:
        raise Refused(
            f"network_isolation: {needs_network}",
            "put wheels into the code folder's wheels/, or set network_isolation = false",
        )
    if settings.network_isolation is not None:
        return settings.network_isolation
    return settings.mode != "serverless" and not needs_network and not _fetches(settings)
