"""Training jobs: the training contract's folders, a container for each host, and what it leaves."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .catalogue import Given
from .engine import Container, Ended, EngineError, Mount, Spec
from .errors import ApiError, StartError, invalid, not_modelled
from .jobs import Jobs, Stopped
from .launcher import memory_mb

_STOP_SECONDS = 120
_DAY = 86400
_LOOK = 0.2


class TrainingJobs(Jobs):
    """CreateTrainingJob and its sisters."""

    noun, table, group = "TrainingJob", "training_jobs", "/aws/sagemaker/TrainingJobs"

    def check(self, given: Given) -> None:
        algorithm = given["AlgorithmSpecification"]
        if not algorithm.get("TrainingImage"):
            raise not_modelled("a training job of an AlgorithmName")
        if "InstanceType" not in given.get("ResourceConfig", {}):
            raise not_modelled("a training job without one InstanceType")
        for channel in given.get("InputDataConfig", ()):
            mode = channel.get("InputMode", algorithm["TrainingInputMode"])
            if mode == "Pipe":
                raise not_modelled("TrainingInputMode Pipe")
            if "S3DataSource" not in channel["DataSource"]:
                raise not_modelled("a channel outside S3")
        if given.get("EnableManagedSpotTraining") and (
            given["StoppingCondition"].get("MaxWaitTimeInSeconds", 0)
            < given["StoppingCondition"].get("MaxRuntimeInSeconds", _DAY)
        ):
            raise invalid("MaxWaitTimeInSeconds must be MaxRuntimeInSeconds at least.")
        if fault := self._services.role_fault(given["RoleArn"]):
            raise ApiError("ValidationException", fault)
        self._images.check({"Image": algorithm["TrainingImage"]})

    def run(self, record: dict[str, Any], containers: list[Container]) -> None:
        name = record["TrainingJobName"]
        record.pop("FinalMetricDataList", None)
        root = self._folder / "training" / name
        hosts = [f"algo-{n + 1}" for n in range(record["ResourceConfig"].get("InstanceCount", 1))]
        try:
            self._secondary(record, "Starting")
            self._secondary(record, "Downloading")
            record["TrainingStartTime"] = time.time()
            for host in hosts:
                self._laid_out(record, root / host, host, hosts)
            self._secondary(record, "Training")
            ended = self._trained(record, root, hosts, containers)
            self._secondary(record, "Uploading")
            self._uploaded(record, root, hosts, ended)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _secondary(self, record: dict[str, Any], status: str) -> None:
        record["SecondaryStatus"] = status
        now = time.time()
        steps = record.setdefault("SecondaryStatusTransitions", [])
        if steps:
            steps[-1].setdefault("EndTime", now)
        steps.append({"Status": status, "StartTime": now})
        self._store.changed()

    def finished(self, record: dict[str, Any], status: str) -> None:
        record["TrainingEndTime"] = time.time()
        if record.get("SecondaryStatus") != "MaxRuntimeExceeded":
            self._secondary(record, status)

    # ---- before

    def _laid_out(self, record: Mapping[str, Any], ml: Path, host: str, hosts: list[str]) -> None:
        """Write /opt/ml of one host."""
        config, data = ml / "input" / "config", ml / "input" / "data"
        for folder in (config, data, ml / "model", ml / "output" / "data", ml / "checkpoints"):
            folder.mkdir(parents=True)
        channels = {}
        for channel in record.get("InputDataConfig", ()):
            source = channel["DataSource"]["S3DataSource"]
            channels[channel["ChannelName"]] = {
                "TrainingInputMode": "File",
                "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            } | ({"ContentType": channel["ContentType"]} if channel.get("ContentType") else {})
            self._download(channel, data / channel["ChannelName"], hosts.index(host), len(hosts))
        kind = record["ResourceConfig"]["InstanceType"]
        groups = [{"instance_group_name": "homogeneousCluster", "instance_type": kind,
                   "hosts": hosts}]  # fmt: skip
        documents = {
            "hyperparameters.json": record.get("HyperParameters", {}),
            "inputdataconfig.json": channels,
            "resourceconfig.json": {
                "current_host": host, "hosts": hosts, "network_interface_name": "eth0",
                "current_instance_type": kind, "current_group_name": "homogeneousCluster",
                "instance_groups": groups,
            },
        }  # fmt: skip
        for name, document in documents.items():
            (config / name).write_text(json.dumps(document))
        if checkpoints := record.get("CheckpointConfig"):
            self._copy(checkpoints["S3Uri"].rstrip("/") + "/", ml / "checkpoints")

    def _download(self, channel: Mapping[str, Any], folder: Path, host: int, hosts: int) -> None:
        source = channel["DataSource"]["S3DataSource"]
        folder.mkdir()
        share = (
            (host, hosts) if source.get("S3DataDistributionType") == "ShardedByS3Key" else (0, 1)
        )
        if not self._copy(source["S3Uri"], folder, share):
            raise StartError(
                f"ClientError: Data download failed: No S3 objects found under S3 URL "
                f'"{source["S3Uri"]}" given in input data source. Please ensure that the bucket '
                "exists in the selected region, that objects exist under that S3 prefix."
            )

    def _copy(self, uri: str, folder: Path, share: tuple[int, int] = (0, 1)) -> int:
        """Copy the objects below a prefix, and return how many there are."""
        found = [one for one in self._services.keys(uri) if not one.endswith("/")]
        for one in found[share[0] :: share[1]]:
            path = folder / one.removeprefix(uri[: uri.rfind("/") + 1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._services.read(one) or b"")
        return len(found)

    # ---- meanwhile

    def _trained(
        self, record: dict[str, Any], root: Path, hosts: list[str], containers: list[Container]
    ) -> Ended:
        """Run a container for each host; returns how the worst of them ended."""
        metrics = Metrics(record["AlgorithmSpecification"].get("MetricDefinitions", ()))
        try:
            running = [self._started(record, root / host, host) for host in hosts]
        except EngineError as error:
            raise StartError(f"AlgorithmError: the container cannot start: {error}") from error
        containers += running
        followers = [
            self.followed(container, self.logger(
                f"{record['TrainingJobName']}/{host}-{int(time.time())}", metrics.read))
            for container, host in zip(running, hosts, strict=True)
        ]  # fmt: skip
        over = threading.Event()
        threading.Thread(
            target=self._stop_in_time, args=(record, running, over), daemon=True
        ).start()
        with ThreadPoolExecutor(len(running)) as waiters:
            ended = list(waiters.map(Container.wait, running))
        over.set()
        for follower in followers:
            follower.join(5)
        record["FinalMetricDataList"] = metrics.last()
        return max(ended, key=lambda one: abs(one.code))

    def _started(self, record: Mapping[str, Any], ml: Path, host: str) -> Container:
        assert self._engine is not None
        algorithm = record["AlgorithmSpecification"]
        isolated = record.get("EnableNetworkIsolation", False)
        environment = self._launcher.environment(record, isolated)
        environment |= {"TRAINING_JOB_NAME": record["TrainingJobName"],
                        "TRAINING_JOB_ARN": record["TrainingJobArn"]}  # fmt: skip
        # As root, as on SageMaker; but what is written must belong to who runs this cloud.
        user = f"{os.getuid()}:{os.getgid()}" if os.getuid() else ""
        return self._engine.start(Spec(
            image=self._images.on_engine(algorithm["TrainingImage"]),
            words=tuple(algorithm.get("ContainerArguments", ("train",))),
            entrypoint=tuple(algorithm.get("ContainerEntrypoint", ())),
            environment=environment, isolated=isolated, user=user, read_only=False, hostname=host,
            memory_mb=memory_mb(record["ResourceConfig"]),
            mounts=(Mount(ml, "/opt/ml", read_only=False),),
        ))  # fmt: skip

    def _stop_in_time(
        self, record: dict[str, Any], running: list[Container], over: threading.Event
    ) -> None:
        """Stop the containers when their owner or the time limit says so."""
        limit = record["StoppingCondition"].get("MaxRuntimeInSeconds", _DAY)
        deadline = time.monotonic() + limit
        while not over.wait(_LOOK):
            late = time.monotonic() > deadline
            if late:
                self._secondary(record, "MaxRuntimeExceeded")
                self.stopping(record).set()
            if self.stopping(record).is_set():
                with ThreadPoolExecutor(len(running)) as stoppers:
                    list(stoppers.map(lambda one: one.stop(_STOP_SECONDS), running))
                return

    # ---- afterwards

    def _uploaded(self, record: dict[str, Any], root: Path, hosts: list[str], ended: Ended) -> None:
        base = record["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        output = f"{base}/{record['TrainingJobName']}/output"
        stopped = self.stopping(record).is_set()
        try:
            if checkpoints := record.get("CheckpointConfig"):
                self._upload(root / hosts[0] / "checkpoints", checkpoints["S3Uri"].rstrip("/"))
            self._archive([root / host / "output" / "data" for host in hosts],
                          f"{output}/output.tar.gz")  # fmt: skip
            if ended.code and not stopped:
                raise StartError(_failure(root, hosts, ended))
            model = f"{output}/model.tar.gz"
            if self._archive([root / host / "model" for host in hosts], model):
                record["ModelArtifacts"] = {"S3ModelArtifacts": model}
        except LookupError as error:
            raise StartError(f"ClientError: Artifact upload failed: {error}") from error
        if stopped:
            raise Stopped

    def _archive(self, folders: list[Path], uri: str) -> bool:
        """Put what the hosts left into one archive; nothing is written of nothing."""
        if not any(any(folder.iterdir()) for folder in folders):
            return False
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as archive:
            for folder in folders:
                for path in sorted(folder.iterdir()):
                    archive.add(path, path.name)
        self._services.write(uri, content.getvalue())
        return True

    def _upload(self, folder: Path, uri: str) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._services.write(f"{uri}/{path.relative_to(folder)}", path.read_bytes())


class Metrics:
    """The last value of each metric that a regular expression finds in the log."""

    def __init__(self, definitions: Any) -> None:
        self._wanted = {one["Name"]: re.compile(one["Regex"]) for one in definitions}
        self._found: dict[str, dict[str, Any]] = {}

    def read(self, line: str) -> None:
        for name, pattern in self._wanted.items():
            for match in pattern.finditer(line):
                try:
                    value = float(match.group(1))
                except (ValueError, IndexError):
                    continue
                self._found[name] = {"MetricName": name, "Value": value, "Timestamp": time.time()}

    def last(self) -> list[dict[str, Any]]:
        return list(self._found.values())


def _failure(root: Path, hosts: list[str], ended: Ended) -> str:
    """Return the FailureReason: what a host wrote, or how it ended."""
    for host in hosts:
        path = root / host / "output" / "failure"
        if path.is_file():
            return f"AlgorithmError: {path.read_text(errors='replace')[:1000]}"
    if ended.out_of_memory:
        return f"AlgorithmError: OutOfMemory: killed by SIGKILL, exit code: {ended.code}"
    return f"AlgorithmError: , exit code: {ended.code}"
