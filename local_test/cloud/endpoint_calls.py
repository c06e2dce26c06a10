"""The calls for endpoints, and all endpoints that there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .catalogue import Catalogue, Given
from .endpoint import IN_PROGRESS, Endpoint
from .errors import invalid
from .fleet import Fleet, Variant
from .images import Images
from .instance import Instance
from .rollout import Deployer, Policy
from .services import Services
from .store import Store

_MISSING = 'Could not find endpoint "{arn}".'


class Endpoints:
    """Endpoints by name, and what may be asked of them."""

    def __init__(
        self, store: Store, catalogue: Catalogue, images: Images, services: Services,
        deployer: Deployer,
    ) -> None:  # fmt: skip
        self._store, self._catalogue, self._images = store, catalogue, images
        self._services, self._deployer = services, deployer
        self._known: dict[str, Endpoint] = {}
        self.gone: Callable[[str], None] = lambda name: (
            None
        )  # called with the name of a deleted one

    def operations(self) -> dict[str, Callable[[Given], dict[str, Any]]]:
        return {
            "CreateEndpoint": self._create,
            "DescribeEndpoint": self._describe,
            "UpdateEndpoint": self._update,
            "UpdateEndpointWeightsAndCapacities": self._rescale,
            "DeleteEndpoint": self._delete,
        }

    def find(self, name: str) -> Endpoint | None:
        return self._known.get(name)

    def all(self) -> list[Endpoint]:
        return list(self._known.values())

    def config(self, endpoint: Endpoint) -> Mapping[str, Any]:
        """Return the config that serves, {} where it was deleted."""
        name = endpoint.record["EndpointConfigName"]
        found: Mapping[str, Any] = self._store.tables["configs"].get(name, {})
        return found

    def _existing(self, name: str) -> Endpoint:
        endpoint = self._known.get(name)
        if endpoint is None:
            raise invalid(_MISSING.format(arn=self._catalogue.arn("endpoint", name)))
        return endpoint

    def _changeable(self, name: str) -> Endpoint:
        endpoint = self._existing(name)
        if endpoint.status in IN_PROGRESS:
            raise invalid(f'Cannot update in-progress endpoint "{endpoint.record["EndpointArn"]}".')
        if endpoint.status == "Failed":
            raise invalid(f'Cannot update failed endpoint "{endpoint.record["EndpointArn"]}".')
        return endpoint

    def _create(self, given: Given) -> dict[str, Any]:
        name, config = given["EndpointName"], given["EndpointConfigName"]
        arn = self._catalogue.arn("endpoint", name)
        with self._store.lock:
            if any(known.lower() == name.lower() for known in self._known):
                raise invalid(f'Cannot create already existing endpoint "{arn}".')
            fleet = self.fleet(name, config)
            now = time.time()
            record = {
                "EndpointName": name, "EndpointArn": arn, "EndpointConfigName": config,
                "EndpointStatus": "Creating", "CreationTime": now, "LastModifiedTime": now,
            }  # fmt: skip
            if given.get("DeploymentConfig"):
                record["LastDeploymentConfig"] = given["DeploymentConfig"]
            endpoint = self._known[name] = Endpoint(record, self._store.changed)
            self._catalogue.keep("endpoints", arn, name, record, given)
        self._deployer.create(endpoint, fleet)
        return {"EndpointArn": arn}

    def fleet(self, endpoint: str, config_name: str) -> Fleet:
        """Return a fleet without instances, as a config wants it."""
        config = self._catalogue.config(config_name)

        def variants(specs: Iterable[Mapping[str, Any]]) -> list[Variant]:
            return [
                Variant.of(endpoint, config_name, spec,
                           self._catalogue.get("models", spec["ModelName"], "model"))
                for spec in specs
            ]  # fmt: skip

        shadows = variants(config.get("ShadowProductionVariants", ()))
        return Fleet(config_name, variants(config["ProductionVariants"]), shadows)

    def _describe(self, given: Given) -> dict[str, Any]:
        endpoint = self._existing(given["EndpointName"])
        with endpoint.condition:
            return endpoint.describe(self.config(endpoint), self._images.resolved)

    def _update(self, given: Given) -> dict[str, Any]:
        with self._store.lock:
            endpoint = self._changeable(given["EndpointName"])
            config = given["EndpointConfigName"]
            new = self.fleet(endpoint.name, config)
            old = endpoint.fleets[-1]
            self.check_change(endpoint, old, new)
            if given.get("RetainAllVariantProperties"):
                excluding = given.get("ExcludeRetainedVariantProperties", ())
                excluded = {one["VariantPropertyType"] for one in excluding}
                _retain(old, new, excluded)
            wanted = given.get("DeploymentConfig")
            if wanted is None and given.get("RetainDeploymentConfig"):
                wanted = endpoint.record.get("LastDeploymentConfig")
            policy = Policy.of(wanted, sum(one.desired for one in new.variants))
            for alarm in policy.alarms:
                if not self._services.has_alarm(alarm):
                    raise invalid(f"The CloudWatch alarm {alarm} does not exist.")
            if wanted is not None:
                endpoint.record["LastDeploymentConfig"] = wanted
            self._deployer.update(endpoint, new, policy)
        return {"EndpointArn": endpoint.record["EndpointArn"]}

    def check_change(self, endpoint: Endpoint, old: Fleet, new: Fleet) -> None:
        """Refuse the changes that SageMaker refuses."""
        if new.config == endpoint.record["EndpointConfigName"] and endpoint.status == "InService":
            raise invalid(f'Endpoint "{endpoint.name}" uses the config "{new.config}" already.')
        before = {one.name: one for one in old.variants}
        scaled = {target.resource_id for target in self._services.targets()}
        for variant in new.variants:
            earlier = before.get(variant.name)
            if earlier is None:
                continue
            if variant.serverless and not earlier.serverless:
                raise invalid("Cannot update an instance endpoint to serverless.")
            changed = variant.spec.get("InstanceType") != earlier.spec.get("InstanceType")
            if changed and f"endpoint/{endpoint.name}/variant/{variant.name}" in scaled:
                raise invalid(
                    f"The variant {variant.name} is registered with Application Auto Scaling: its "
                    "instance type cannot be changed until it is deregistered."
                )

    def _rescale(self, given: Given) -> dict[str, Any]:
        endpoint = self._changeable(given["EndpointName"])
        wanted = {one["VariantName"]: one for one in given["DesiredWeightsAndCapacities"]}
        known = {one.name for one in endpoint.variants}
        if unknown := sorted(set(wanted) - known):
            raise invalid(f"The variant {unknown[0]} does not exist in {endpoint.name}.")
        self._deployer.rescale(endpoint, wanted)
        return {"EndpointArn": endpoint.record["EndpointArn"]}

    def _delete(self, given: Given) -> dict[str, Any]:
        endpoint = self._existing(given["EndpointName"])
        if endpoint.status in IN_PROGRESS:
            raise invalid(f'Cannot delete in-progress endpoint "{endpoint.record["EndpointArn"]}".')

        def gone() -> None:
            self._catalogue.remove("endpoints", endpoint.name, endpoint.record["EndpointArn"])
            self._known.pop(endpoint.name, None)
            self.gone(endpoint.name)

        self._services.forget_targets(endpoint.name)
        self._deployer.delete(endpoint, gone)
        return {}

    def kill(self, name: str) -> None:
        """Kill one container of an endpoint, as a fault."""
        for variant in self._existing(name).variants:
            for instance in variant.serving[:1]:
                instance.container.kill()
                return
        raise invalid(f"{name} has no container that runs.")

    def resume(self, adopt: Callable[[Variant], list[Instance]]) -> None:
        """Take up the endpoints of an earlier process with the containers that still run."""
        for name, record in list(self._store.tables["endpoints"].items()):
            endpoint = self._known[name] = Endpoint(record, self._store.changed)
            if endpoint.status == "Failed":
                continue
            fleet = self.fleet(name, record["EndpointConfigName"])
            endpoint.fleets = [fleet]
            for variant in fleet.all:
                kept = record.get("Variants", {}).get(variant.name, {})
                variant.desired = kept.get("desired", variant.desired)
                variant.weight = kept.get("weight", variant.weight)
                variant.instances = adopt(variant)[: variant.desired]
            if endpoint.status == "Creating":
                self._deployer.create(endpoint, fleet)
                continue
            fleet.share = 1.0
            reason = None
            if endpoint.status in ("Updating", "RollingBack"):
                reason = "The update was interrupted by the end of the local cloud's process."
                record.pop("Update", None)
            if endpoint.status == "Deleting":
                self._finish_delete(endpoint)
            else:
                endpoint.set("InService", reason)

    def _finish_delete(self, endpoint: Endpoint) -> None:
        endpoint.record["EndpointStatus"] = "InService"
        self._delete({"EndpointName": endpoint.name})


def _retain(old: Fleet, new: Fleet, excluded: set[str]) -> None:
    """Keep counts and weights of the variants that serve."""
    for variant in new.variants:
        earlier = old.variant(variant.name)
        if earlier is not None and "DesiredInstanceCount" not in excluded:
            variant.desired = earlier.desired
        if earlier is not None and "DesiredWeight" not in excluded:
            variant.weight = earlier.weight
