"""Batch transform jobs: objects of S3 through containers of the model, and back to S3."""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from .batch_files import LINES, Job, Options, Plan
from .batch_server import Failed, Server
from .catalogue import Given
from .engine import Container, EngineError, Mount, Spec
from .errors import StartError, invalid, not_modelled
from .filters import Filter, FilterError
from .instance import instance_id
from .jobs import Jobs, Stopped
from .launcher import memory_mb

_STRATEGIES = {"SingleRecord": "SINGLE_RECORD", "MultiRecord": "MULTI_RECORD"}
_NOT_READY = "AlgorithmError: the container did not pass the ping health check. See the job logs."
_FAILED = "ClientError: See job logs for more information"


class TransformJobs(Jobs):
    """CreateTransformJob and its sisters."""

    noun, table, group = "TransformJob", "transform_jobs", "/aws/sagemaker/TransformJobs"

    def check(self, given: Given) -> None:
        model = self._catalogue.get("models", given["ModelName"], "model")
        if model["PrimaryContainer"].get("ModelDataSource"):
            raise invalid("ModelDataSource is not supported by batch transform.")
        source = given["TransformInput"]
        if source.get("SplitType", "None") not in ("None", "Line"):
            raise not_modelled(f"SplitType {source['SplitType']}")
        if given.get("DataCaptureConfig"):
            raise not_modelled("CreateTransformJob with DataCaptureConfig")
        processing = given.get("DataProcessing", {})
        for key in ("InputFilter", "OutputFilter"):
            try:
                Filter(processing.get(key, "$"))
            except FilterError as error:
                raise invalid(str(error)) from error
        concurrent, payload = given.get("MaxConcurrentTransforms", 0), given.get("MaxPayloadInMB")
        if concurrent * (payload or 0) > 100:
            raise invalid("MaxConcurrentTransforms * MaxPayloadInMB must not exceed 100.")
        if processing.get("JoinSource") == "Input" and not {
            source.get("ContentType"),
            given["TransformOutput"].get("Accept"),
        } <= {*LINES, "application/json"}:
            raise invalid("JoinSource needs ContentType and Accept of CSV, JSON or JSON Lines.")

    def run(self, record: dict[str, Any], containers: list[Container]) -> None:
        record["TransformStartTime"] = time.time()
        uris = list(self._inputs(record["TransformInput"]["DataSource"]["S3DataSource"]))
        if not uris:
            raise StartError("ClientError: no objects were found below the S3 URI of the input.")
        count = record["TransformResources"]["InstanceCount"]
        with ThreadPoolExecutor(count) as instances:
            parts = [
                instances.submit(self._instance, record, uris[number::count], containers)
                for number in range(count)
            ]
            failures = [error for part in parts if (error := part.exception()) is not None]
        if self.stopping(record).is_set():
            raise Stopped
        if failures:
            raise failures[0]

    def finished(self, record: dict[str, Any], status: str) -> None:
        record["TransformEndTime"] = time.time()

    def _inputs(self, source: Mapping[str, Any]) -> Iterator[str]:
        """Yield the URIs of the objects: those below a prefix, or those of a manifest."""
        if source["S3DataType"] != "ManifestFile":
            yield from (uri for uri in self._services.keys(source["S3Uri"]) if uri[-1] != "/")
            return
        content = self._services.read(source["S3Uri"])
        if content is None:
            raise StartError(f"ClientError: the manifest {source['S3Uri']} does not exist.")
        first, *rest = json.loads(content)
        yield from (first["prefix"] + key for key in rest)

    def _instance(
        self, record: dict[str, Any], uris: list[str], containers: list[Container]
    ) -> None:
        """Serve the model in a container of its own, and put objects through it."""
        name = f"{record['TransformJobName']}/{instance_id()}-{int(time.time())}"
        log = self.logger(f"{name}/data-log")
        with tempfile.TemporaryDirectory(prefix="skserve-transform-") as folder:
            try:
                container = self._started(record)
                containers.append(container)
                follower = self.followed(container, self.logger(name))
                timeout = _client(record).get("InvocationsTimeoutInSeconds", 600)
                server = Server("http://{}:{}".format(*container.address()), timeout)
                self._until_ready(server, container)
                failed = self._through(record, server, uris, Path(folder), log)
                container.stop(30)
                follower.join(5)
            except EngineError as error:
                raise StartError(_NOT_READY) from error
        if failed:
            raise StartError(_FAILED)

    def _started(self, record: dict[str, Any]) -> Container:
        assert self._engine is not None
        model = self._catalogue.get("models", record["ModelName"], "model")
        definition = model["PrimaryContainer"]
        isolated = model["EnableNetworkIsolation"]
        environment = self._launcher.environment(definition, isolated) | _environment(record)
        folder = self._artifacts.of_container(definition)
        resources = {"InstanceType": record["TransformResources"]["InstanceType"]}
        return self._engine.start(Spec(
            image=self._images.on_engine(definition["Image"]), words=("serve",),
            environment=environment, isolated=isolated, memory_mb=memory_mb(resources),
            mounts=() if folder is None else (Mount(folder, "/opt/ml/model"),),
        ))  # fmt: skip

    def _until_ready(self, server: Server, container: Container) -> None:
        deadline = time.monotonic() + self._launcher.startup_seconds
        while time.monotonic() < deadline and container.ended() is None:
            with suppress(Failed):
                server.wait(1.0)
                return
        raise StartError(_NOT_READY)

    def _through(
        self, record: dict[str, Any], server: Server, uris: list[str], folder: Path, log: Any
    ) -> int:
        """Transform objects; returns how many failed, each of which is told in the log."""
        options = _options(record)
        plan = Plan.of(server, options)
        log(f"MaxConcurrentTransforms={plan.concurrent}, MaxPayloadInMB={plan.payload >> 20}, "
            f"BatchStrategy={'SINGLE_RECORD' if plan.single else 'MULTI_RECORD'}")  # fmt: skip
        failed = 0
        for uri in uris:
            if self.stopping(record).is_set():
                break
            target = folder / "out"
            try:
                source = self._fetched(record, uri, folder)
                Job(server, plan, options, source.stat().st_size).transform(source, target)
                self._services.write(self._output(record, uri), target.read_bytes())
            except (Failed, LookupError, OSError) as error:
                failed += 1
                text = str(error).replace(f"{folder / 'in'}: ", "ClientError: ")
                for line in text.splitlines():
                    log(f"{uri.removeprefix('s3://')}: {line}")
        return failed

    def _fetched(self, record: Mapping[str, Any], uri: str, folder: Path) -> Path:
        content = self._services.read(uri)
        if content is None:
            raise Failed(f"the object {uri} does not exist")
        if record["TransformInput"].get("CompressionType") == "Gzip":
            content = gzip.decompress(content)
        path = folder / "in"
        path.write_bytes(content)
        return path

    def _output(self, record: Mapping[str, Any], uri: str) -> str:
        """Return <S3OutputPath>/<the key's part below the input's prefix>.out."""
        prefix = record["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        name = uri.removeprefix(prefix[: prefix.rfind("/") + 1])
        return f"{record['TransformOutput']['S3OutputPath'].rstrip('/')}/{name}.out"


def _client(record: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = record.get("ModelClientConfig", {})
    return found


def _options(record: Mapping[str, Any]) -> Options:
    source, processing = record["TransformInput"], record.get("DataProcessing", {})
    return Options(
        content_type=source.get("ContentType") or "application/octet-stream",
        accept=record["TransformOutput"].get("Accept") or "*/*",
        lines=source.get("SplitType", "None") == "Line",
        assemble=record["TransformOutput"].get("AssembleWith", "None") == "Line",
        join=processing.get("JoinSource", "None") == "Input",
        single=record.get("BatchStrategy") == "SingleRecord",
        payload_mb=record.get("MaxPayloadInMB"),
        concurrent=record.get("MaxConcurrentTransforms") or None,
        retries=_client(record).get("InvocationsMaxRetries", 3),
        input_filter=processing.get("InputFilter", "$"),
        output_filter=processing.get("OutputFilter", "$"),
    )


def _environment(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that tell a container of its job: only what the request set."""
    given = {
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": record.get("MaxPayloadInMB"),
        "SAGEMAKER_BATCH_STRATEGY": _STRATEGIES.get(record.get("BatchStrategy", "")),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": record.get("MaxConcurrentTransforms") or None,
    }
    told = {key: str(value) for key, value in given.items() if value is not None}
    return {"SAGEMAKER_BATCH": "true", **told, **record.get("Environment", {})}
