"""`make cloud` as a process, and what a test does with it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.conftest import free_port
from tests.deployment.conftest import ACCOUNT, REGION, ROOT

REPOSITORY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/skserve"
BUCKET = "cloud-models"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/skserve"
FLOWER = b"5.1,3.5,1.4,0.2"


@dataclass
class LocalCloud:
    """The process, its data folder, and clients for it."""

    folder: Path
    words: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    docker_port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    log: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start the process, and wait until it says that it runs."""
        command = [
            sys.executable,
            "-m",
            "local_test.cloud",
            "--folder",
            str(self.folder / "cloud"),
            "--port",
            str(self.port),
            "--docker-port",
            str(self.docker_port),
            *self.words,
        ]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=_without_aws(), text=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        ready = threading.Event()
        threading.Thread(target=self._read, args=(self.process, ready), daemon=True).start()
        assert ready.wait(60), "".join(self.log)
        assert self.process.poll() is None, "".join(self.log)

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if "until Ctrl-C" in line:
                    ready.set()
        ready.set()

    def kill(self) -> None:
        """End the process as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Press Ctrl-C, and wait for the end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(120) == 0, "".join(self.log)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What the exports say, for a program of its own."""
        return _without_aws() | {
            "AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
            "DOCKER_HOST": f"tcp://127.0.0.1:{self.docker_port}", "PYTHON": sys.executable,
            "AWS_EC2_METADATA_DISABLED": "true", "DOCKER_CONFIG": str(self.folder / "docker"),
        }  # fmt: skip

    def client(self, service: str) -> Any:
        return boto3.client(
            service, region_name=REGION, endpoint_url=self.url, aws_access_key_id="local",
            aws_secret_access_key="local", config=Config(retries={"total_max_attempts": 1}),
        )  # fmt: skip

    def deploy(self, folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `python deploy.py` in a folder."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "deploy.py"), *words], cwd=folder, env=self.environ,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.stdout}\n{done.stderr}"
        return done

    def fault(self, **fault: Any) -> None:
        request = urllib.request.Request(f"{self.url}/_cloud/faults", json.dumps(fault).encode())
        urllib.request.urlopen(request, timeout=10).close()

    def push(self, image: str) -> str:
        """Push an image that the engine has with the real docker command; its URI by digest."""
        self.client("ecr").create_repository(repositoryName="skserve")
        token = f"{ACCOUNT}-auth-token"
        login = ["docker", "login", "--username", "AWS", "--password-stdin", REPOSITORY]
        subprocess.run(login, env=self.environ, input=token, text=True, check=True,
                       capture_output=True)  # fmt: skip
        subprocess.run(["docker", "tag", image, f"{REPOSITORY}:test"], check=True)
        done = subprocess.run(["docker", "push", f"{REPOSITORY}:test"], env=self.environ,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = [line for line in done.stdout.splitlines() if "digest: " in line]
        return f"{REPOSITORY}@{line.split('digest: ')[1].split()[0]}"

    def account(self) -> None:
        """Make the bucket that models need; the role is there."""
        self.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )

    def model(self, name: str, image: str, content: bytes, **container: Any) -> None:
        self.client("s3").put_object(Bucket=BUCKET, Key=f"{name}.tar.gz", Body=content)
        given = {"Image": image, "ModelDataUrl": f"s3://{BUCKET}/{name}.tar.gz", **container}
        self.client("sagemaker").create_model(
            ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=given,
            EnableNetworkIsolation=True,
        )  # fmt: skip

    def config(self, name: str, model: str, count: int = 1, **more: Any) -> None:
        variant = {"VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.m5.large",
                   "InitialInstanceCount": count}  # fmt: skip
        self.client("sagemaker").create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[variant], **more
        )

    def endpoint(self, name: str, config: str) -> dict[str, Any]:
        """Create an endpoint, and describe it once it has settled."""
        self.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=config)
        return self.settled(name)

    def update(self, name: str, config: str, **more: Any) -> dict[str, Any]:
        self.client("sagemaker").update_endpoint(
            EndpointName=name, EndpointConfigName=config, **more
        )
        return self.settled(name)

    def settled(self, name: str, seconds: float = 240) -> dict[str, Any]:
        def look() -> Any:
            found = self.client("sagemaker").describe_endpoint(EndpointName=name)
            done = found["EndpointStatus"] in ("InService", "Failed", "UpdateRollbackFailed")
            return found if done else None

        return dict(until(look, seconds))

    def invoke(self, name: str, body: bytes = FLOWER, **more: Any) -> bytes:
        answer = self.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=name, Body=body, ContentType="text/csv", Accept="text/csv", **more
        )
        return bytes(answer["Body"].read())

    def logged(self, name: str) -> str:
        """Return all that the containers of an endpoint have printed."""
        group, logs = f"/aws/sagemaker/Endpoints/{name}", self.client("logs")
        found = logs.filter_log_events(logGroupName=group, limit=10_000)["events"]
        return "\n".join(event["message"] for event in found)

    def containers(self) -> list[str]:
        """Return the ids of this cloud's containers, as the engine knows them."""
        import hashlib

        identity = hashlib.sha256(str((self.folder / "cloud").resolve()).encode()).hexdigest()[:12]
        words = ["docker", "ps", "--all", "--quiet", "--filter", f"label=skserve.cloud={identity}"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


@contextmanager
def running(folder: Path, *words: str) -> Iterator[LocalCloud]:
    """Run a cloud for a while; nothing of it is left, whatever happens."""
    cloud = LocalCloud(folder, words)
    cloud.start()
    try:
        yield cloud
    finally:
        if cloud.process is not None and cloud.process.poll() is None:
            cloud.stop()
        left = cloud.containers()
        if left:
            subprocess.run(["docker", "rm", "--force", *left], capture_output=True, check=False)
        subprocess.run(["docker", "rmi", f"{REPOSITORY}:test"], capture_output=True, check=False)


class Caller(threading.Thread):
    """Calls an endpoint every 50 ms, and keeps what failed."""

    def __init__(self, cloud: LocalCloud, name: str) -> None:
        super().__init__(daemon=True)
        self._cloud, self._name, self._on = cloud, name, True
        self.calls, self.failures = 0, list[str]()

    def run(self) -> None:
        runtime = self._cloud.client("sagemaker-runtime")
        while self._on:
            began = time.monotonic()
            try:
                runtime.invoke_endpoint(
                    EndpointName=self._name, Body=FLOWER, ContentType="text/csv"
                )["Body"].read()
            except Exception as error:
                self.failures.append(str(error))
            self.calls += 1
            time.sleep(max(0.0, 0.05 - (time.monotonic() - began)))

    def taken(self) -> tuple[int, list[str]]:
        """Return calls and failures since the last time."""
        calls, self.calls = self.calls, 0
        failures, self.failures = self.failures, []
        return calls, failures

    def end(self) -> None:
        self._on = False
        self.join(70)


def archive(**files: bytes | Path) -> bytes:
    """Pack a model.tar.gz; `__` in a name is a dot, `___` a slash."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as packed:
        for name, value in files.items():
            path = name.replace("___", "/").replace("__", ".")
            data = value.read_bytes() if isinstance(value, Path) else value
            member = tarfile.TarInfo(path)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return content.getvalue()


def until(look: Callable[[], Any], seconds: float = 60) -> Any:
    """Return what `look` returns once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s")


def _without_aws() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    kept.pop("DOCKER_HOST", None)
    return kept
