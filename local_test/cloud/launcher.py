"""Starting an instance: its model data, its container as on SageMaker, and its first ping."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .artifacts import Artifacts
from .engine import Container, Engine, EngineError, Mount, Spec
from .errors import StartError
from .faults import Faults
from .fleet import Variant
from .images import Images
from .instance import Instance, instance_id
from .services import Services
from .speed import Speed

LOGS = "/aws/sagemaker/Endpoints/{endpoint}"
_PING_FAILED = (
    "The primary container for production variant {variant} did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)
_STARTUP_SECONDS = 480  # SageMaker's own limit
_SERVERLESS_USER = "10001:10001"  # serverless containers run as any user
_GIB_OF_CPU = {"c": 2, "m": 4, "t": 4, "r": 8}  # by the family's first letter
_UNKNOWN = "ml.unknown.unknown"
_CPUS = {"medium": 1, "large": 2, "xlarge": 4}


def memory_mb(spec: Mapping[str, Any]) -> int | None:
    """Return what a variant's container may use: of serverless as configured, else by its type."""
    if "ServerlessConfig" in spec:
        return int(spec["ServerlessConfig"]["MemorySizeInMB"])
    _, family, size = kinds(spec)[0].split(".")
    if size == "medium" and family.startswith("t"):
        return 4096
    number = size.removesuffix("xlarge")
    cpus = 4 * int(number) if number.isdigit() else _CPUS.get(size)
    gib = _GIB_OF_CPU.get(family[0])
    return cpus * gib * 1024 if cpus and gib else None


def kinds(spec: Mapping[str, Any]) -> list[str]:
    """Return the instance types that a variant may run on, in the order of its pools."""
    pools = sorted(spec.get("InstancePools", ()), key=lambda pool: int(pool["Priority"]))
    return [pool["InstanceType"] for pool in pools] or [spec.get("InstanceType", _UNKNOWN)]


class Launcher:
    """Starts and finds again the instances of variants."""

    def __init__(
        self, engine: Engine | None, services: Services, artifacts: Artifacts, images: Images,
        faults: Faults, speed: Speed, folder: Path, url: Callable[[], str],
    ) -> None:  # fmt: skip
        self._engine, self._services, self._artifacts = engine, services, artifacts
        self._images, self._faults, self._speed = images, faults, speed
        self._folder, self._url = folder, url
        self.ended: Callable[[], None] = lambda: None  # called when a container has ended

    @property
    def startup_seconds(self) -> float:
        """How long a container may take to its first good ping."""
        return self._speed.startup(_STARTUP_SECONDS)

    def launch(self, variant: Variant) -> Instance:
        """Start an instance and return it once it is healthy. Raises `StartError`."""
        kind = self._provisioned(variant)
        if self._engine is None:
            raise StartError("This local cloud was started with --no-containers.")
        name = instance_id()
        try:
            container = self._engine.start(self._spec(variant, name, kind))
            instance = self._made(variant, name, container)
        except EngineError as error:
            raise StartError(f"The container for {variant.name} cannot start: {error}") from error
        self._until_healthy(variant, instance)
        return instance

    def _provisioned(self, variant: Variant) -> str:
        """Return the first type with capacity, of the variant's pools. Raises `StartError`."""
        *before, last = kinds(variant.spec)
        for kind in before:
            with suppress(StartError):
                self._faults.before_start(variant.endpoint)
                return kind
        self._faults.before_start(variant.endpoint)
        return last

    def adopt(self, variant: Variant, container: Container) -> Instance | None:
        """Return a container of an earlier process as an instance, None if it does not serve."""
        try:
            name = container.labels["skserve.cloud.instance"]
            instance = self._made(variant, name, container, int(time.time()))
        except EngineError:
            return None
        return instance if instance.ping() else None

    def _made(self, variant: Variant, name: str, container: Container, since: int = 0) -> Instance:
        group = LOGS.format(endpoint=variant.endpoint)
        stream = f"{variant.name}/{name}"
        try:
            instance = Instance(name, container)
        except EngineError:
            # It has ended already: what it printed says why.
            container.follow(lambda line: self._services.log(group, stream, [line]))
            container.remove()
            raise StartError(_PING_FAILED.format(variant=variant.name)) from None
        instance.follow(
            lambda line: self._services.log(group, stream, [line]), lambda: self.ended(), since
        )
        return instance

    def _until_healthy(self, variant: Variant, instance: Instance) -> None:
        limit = variant.spec.get("ContainerStartupHealthCheckTimeoutInSeconds", _STARTUP_SECONDS)
        deadline = time.monotonic() + self._speed.startup(limit)
        while instance.alive and time.monotonic() < deadline:
            if instance.ping():
                return
            time.sleep(0.05)
        instance.container.kill()
        instance.stop()
        raise StartError(_PING_FAILED.format(variant=variant.name))

    def _spec(self, variant: Variant, name: str, kind: str) -> Spec:
        serverless = {"ServerlessConfig": variant.serverless} if variant.serverless else {}
        container, isolated = variant.container, variant.model.get("EnableNetworkIsolation", False)
        return Spec(
            image=self._images.on_engine(container["Image"]),
            words=("serve",),
            environment=self.environment(container, isolated, variant.many),
            mounts=tuple(self._mounts(variant, name)),
            labels={
                "skserve.cloud.endpoint": variant.endpoint,
                "skserve.cloud.config": variant.config,
                "skserve.cloud.variant": variant.name,
                "skserve.cloud.instance": name,
                "skserve.cloud.kind": kind,
            },
            user=_SERVERLESS_USER if variant.serverless else "",
            memory_mb=memory_mb({"InstanceType": kind, **serverless}),
            isolated=isolated,
        )

    def _mounts(self, variant: Variant, name: str) -> list[Mount]:
        if variant.many:
            return [Mount(self.models_folder(name), "/opt/ml/models")]
        folder = self._artifacts.of_container(variant.container)
        return [] if folder is None else [Mount(folder, "/opt/ml/model")]

    def models_folder(self, instance: str) -> Path:
        """Return the folder of an instance's many models."""
        folder = self._folder / "many" / instance
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        return folder

    def environment(
        self, container: Mapping[str, Any], isolated: bool, many: bool = False
    ) -> dict[str, str]:
        """Return a container's variables: the model's own, and the platform's."""
        given = dict(container.get("Environment", {}))
        if many:
            given["SAGEMAKER_MULTI_MODEL"] = "true"
        if not isolated:
            # The execution role's credentials, and the way back to this cloud.
            given |= {"AWS_ENDPOINT_URL": self._url(), "AWS_ACCESS_KEY_ID": "role",
                      "AWS_SECRET_ACCESS_KEY": "role"}  # fmt: skip
        return given
