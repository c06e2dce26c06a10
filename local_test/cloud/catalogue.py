"""Models, endpoint configs and tags: what is described, never changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import invalid, not_modelled
from .images import Images
from .services import ACCOUNT, Services
from .store import Store

Given = Mapping[str, Any]
_DOWNLOAD = "Could not find model data at {uri}."


class Catalogue:
    """The calls for models, configs and tags."""

    def __init__(self, store: Store, services: Services, images: Images) -> None:
        self._store, self._services, self._images = store, services, images

    def operations(self) -> dict[str, Callable[[Given], dict[str, Any]]]:
        return {
            "CreateModel": self._create_model,
            "DescribeModel": lambda given: self.get("models", given["ModelName"], "model"),
            "DeleteModel": lambda given: self._delete("models", given["ModelName"], "model"),
            "CreateEndpointConfig": self._create_config,
            "DescribeEndpointConfig": lambda given: self.config(given["EndpointConfigName"]),
            "DeleteEndpointConfig": lambda given: self._delete(
                "configs", given["EndpointConfigName"], "endpoint configuration"
            ),
            "AddTags": self._add_tags,
            "ListTags": self._list_tags,
            "DeleteTags": self._delete_tags,
        }

    def arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self._services.region}:{ACCOUNT}:{kind}/{name.lower()}"

    def get(self, kind: str, name: str, noun: str) -> dict[str, Any]:
        """Return a record, or refuse as SageMaker does where there is none."""
        found: dict[str, Any] | None = self._store.tables[kind].get(name)
        if found is None:
            raise invalid(f'Could not find {noun} "{name}".')
        return found

    def config(self, name: str) -> dict[str, Any]:
        return self.get("configs", name, "endpoint configuration")

    def keep(self, kind: str, arn: str, name: str, record: dict[str, Any], given: Given) -> None:
        """Put a new record into its table, and its tags."""
        with self._store.lock:
            self._store.tables[kind][name] = record
            self._store.tables["tags"][arn] = {
                tag["Key"]: tag["Value"] for tag in given.get("Tags", ())
            }
        self._store.changed()

    def remove(self, kind: str, name: str, arn: str) -> None:
        with self._store.lock:
            self._store.tables[kind].pop(name, None)
            self._store.tables["tags"].pop(arn, None)
        self._store.changed()

    def _delete(self, kind: str, name: str, noun: str) -> dict[str, Any]:
        record = self.get(kind, name, noun)
        arn = record.get("ModelArn") or record["EndpointConfigArn"]
        self.remove(kind, name, arn)
        return {}

    def _create_model(self, given: Given) -> dict[str, Any]:
        name = given["ModelName"]
        if name in self._store.tables["models"]:
            raise invalid(f'Cannot create already existing model "{self.arn("model", name)}".')
        containers = given.get("Containers") or [given.get("PrimaryContainer") or {}]
        if len(containers) > 1:
            raise not_modelled("an inference pipeline of several containers")
        container = dict(containers[0])
        for field in ("AdditionalModelDataSources", "ImageConfig"):
            if container.get(field):
                raise not_modelled(f"CreateModel with {field}")
        if container.get("ModelPackageName"):
            container = self._of_package(container)
        if not container.get("Image"):
            raise invalid("Image or ModelPackageName must be specified for a container.")
        self._check_data(container)
        if fault := self._services.role_fault(given.get("ExecutionRoleArn", "")):
            raise invalid(fault)
        self._images.check(container)
        record = {key: value for key, value in given.items() if key not in ("Tags", "Containers")}
        arn = self.arn("model", name)
        record |= {"PrimaryContainer": container, "ModelArn": arn, "CreationTime": time.time()}
        record.setdefault("EnableNetworkIsolation", False)
        self.keep("models", arn, name, record, given)
        return {"ModelArn": arn}

    def _of_package(self, container: Given) -> dict[str, Any]:
        """Return a container with the image, data and variables of its model package."""
        arn = container["ModelPackageName"]
        found = self._services.model_package(arn)
        if found is None:
            raise invalid(f"ModelPackage {arn} does not exist.")
        if found.model_approval_status not in ("Approved", None):
            raise invalid(f"ModelPackage {arn} is not approved: {found.model_approval_status}.")
        held = (found.inference_specification or {}).get("Containers", [])
        if len(held) != 1:
            raise not_modelled("a model package of several containers")
        if "ModelDataSource" in held[0]:
            raise not_modelled("a model package with ModelDataSource")
        given = {key: held[0][key] for key in ("Image", "ModelDataUrl") if held[0].get(key)}
        variables = {**held[0].get("Environment", {}), **container.get("Environment", {})}
        return {**container, **given, **({"Environment": variables} if variables else {})}

    def _check_data(self, container: Mapping[str, Any]) -> None:
        source = container.get("ModelDataSource", {}).get("S3DataSource")
        uri = source["S3Uri"] if source else container.get("ModelDataUrl", "")
        if source and container.get("ModelDataUrl"):
            raise invalid("ModelDataUrl and ModelDataSource cannot be specified together.")
        if uri and not uri.startswith("s3://"):
            raise not_modelled("model data outside S3")
        many = container.get("Mode") == "MultiModel"
        if many and not uri.endswith("/"):
            raise invalid("ModelDataUrl of a multi-model container must be a prefix ending in /.")
        if not source and uri and not many and not uri.endswith(".tar.gz"):
            raise invalid(f"Invalid model data URL {uri}: it must end in .tar.gz.")
        prefix = source and source["S3DataType"] == "S3Prefix"
        if prefix and not (uri.endswith("/") and self._services.keys(uri)):
            raise invalid(_DOWNLOAD.format(uri=uri))

    def _create_config(self, given: Given) -> dict[str, Any]:
        name = given["EndpointConfigName"]
        arn = self.arn("endpoint-config", name)
        if name in self._store.tables["configs"]:
            raise invalid(f'Cannot create already existing endpoint configuration "{arn}".')
        for field in ("ExplainerConfig", "CrossRegionTrafficConfig"):
            if given.get(field):
                raise not_modelled(f"CreateEndpointConfig with {field}")
        shadows = given.get("ShadowProductionVariants", [])
        for variant in [*given["ProductionVariants"], *shadows]:
            self._check_variant(variant)
        if shadows and (len(shadows) > 1 or len(given["ProductionVariants"]) > 1):
            raise invalid("Exactly one shadow variant with one production variant is supported.")
        record = {key: value for key, value in given.items() if key != "Tags"}
        record |= {"EndpointConfigArn": arn, "CreationTime": time.time()}
        self.keep("configs", arn, name, record, given)
        return {"EndpointConfigArn": arn}

    def _check_variant(self, variant: Mapping[str, Any]) -> None:
        if "ModelName" not in variant:
            raise not_modelled("a variant without ModelName (inference components)")
        model = self.get("models", variant["ModelName"], "model")
        for field in ("ManagedInstanceScaling", "CoreDumpConfig"):
            if variant.get(field):
                raise not_modelled(f"a variant with {field}")
        pools = variant.get("InstancePools", ())
        if any(pool.get("ModelNameOverride") for pool in pools):
            raise not_modelled("an instance pool with a model of its own")
        if pools and (variant.get("InstanceType") or "ServerlessConfig" in variant):
            raise invalid(
                "InstancePools cannot be specified with InstanceType or ServerlessConfig."
            )
        if "ServerlessConfig" in variant:
            if "InstanceType" in variant:
                raise invalid("ServerlessConfig and InstanceType cannot be specified together.")
            if model["PrimaryContainer"].get("Mode") == "MultiModel":
                raise invalid("Serverless inference does not support multi-model endpoints.")
            if model["EnableNetworkIsolation"] or model.get("VpcConfig"):
                raise invalid("Serverless inference does not support network isolation or a VPC.")
        elif not (variant.get("InstanceType") or pools) or not variant.get("InitialInstanceCount"):
            raise invalid("InstanceType and InitialInstanceCount are required for a variant.")

    def _tags(self, arn: str) -> dict[str, str]:
        found: dict[str, str] | None = self._store.tables["tags"].get(arn)
        if found is None:
            raise invalid(f"Could not find the resource {arn}.")
        return found

    def _add_tags(self, given: Given) -> dict[str, Any]:
        held = self._tags(given["ResourceArn"])
        held |= {tag["Key"]: tag["Value"] for tag in given["Tags"]}
        self._store.changed()
        return {"Tags": _told(held)}

    def _list_tags(self, given: Given) -> dict[str, Any]:
        return {"Tags": _told(self._tags(given["ResourceArn"]))}

    def _delete_tags(self, given: Given) -> dict[str, Any]:
        held = self._tags(given["ResourceArn"])
        for key in given["TagKeys"]:
            held.pop(key, None)
        self._store.changed()
        return {}


def _told(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
