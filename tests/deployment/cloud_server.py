"""The local cloud as a process, with scripted instances and jobs in place of containers.

Endpoints, models, configs, tags, calls and refusals are those of `make cloud`. What is scripted is
how an instance starts, what it answers, and how a job goes, so that a test needs no container and
no second. Tests steer it over HTTP: `POST /_test/set` (what comes next), `POST /_test/fault`,
`GET /_test/calls`, `PUT /_test/blob/...`. Run as: python cloud_server.py PORT
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import urllib3
from moto.s3.models import FakeBucket, s3_backends
from werkzeug.serving import run_simple

from local_test.cloud.cloud import Cloud
from local_test.cloud.errors import ApiError, StartError
from local_test.cloud.fleet import Variant
from local_test.cloud.instance import Instance, instance_id
from local_test.cloud.jobs import Jobs, Stopped
from local_test.cloud.launcher import kinds
from local_test.cloud.server import Handler, Operation
from local_test.cloud.services import ACCOUNT, split_uri
from local_test.cloud.speed import Speed
from local_test.cloud.training import TrainingJobs
from local_test.cloud.transform_jobs import TransformJobs

# What the next operations do. `outcomes` is a queue, consumed by CreateEndpoint and UpdateEndpoint
# (ok, failed, rolled-back, rollback-failed) and by jobs (ok, failed, stopped).
# `looks` is how many looks a transition lasts.
NEXT: dict[str, Any] = {}
FAULTS: list[dict[str, Any]] = []
CALLS: list[str] = []
# The calls of JSON protocols that change something, with their arguments.
SENT: list[tuple[str, Any]] = []
HEADERS: dict[str, str] = {}  # of the last invocation
LOCK = threading.Lock()
CLOUD: list[ScriptedCloud] = []
REGION = "eu-west-1"
_TRAINING = ("Starting", "Downloading", "Training", "Uploading")


def reset() -> None:
    NEXT.clear()
    NEXT.update(
        outcomes=[],
        looks=1,
        answer="1\n",
        lose_lines=0,
        async_fails=False,
        prices=["0.115"],
        quota=4.0,
        telemetry="Stopped",
    )
    FAULTS.clear()
    CALLS.clear()
    SENT.clear()
    for ended in CLOUD:
        ended.end()
    CLOUD[:] = [ScriptedCloud()]


class Looks:
    """Describe calls by name of what they look at, and who waits for some."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._condition = threading.Condition()
        self.ended = False

    def add(self, name: str) -> None:
        with self._condition:
            self._seen[name] = self._seen.get(name, 0) + 1
            self._condition.notify_all()

    def wait(self, name: str, looks: int, over: Callable[[], bool] = lambda: False) -> None:
        """Wait for so many looks from now on."""
        with self._condition:
            wanted = self._seen.get(name, 0) + looks
            while self._seen.get(name, 0) < wanted and not over() and not self.ended:
                self._condition.wait(0.05)


class ScriptedInstance(Instance):
    """Answers what the test said."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name, self.outstanding, self.alive, self.missed = instance_id(), 0, True, 0
        self.called, self.loaded, self.lock = time.monotonic(), {}, threading.Lock()

    def ping(self) -> bool:
        return True

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None,
        timeout: float = 60.0, stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        content, status = NEXT["answer"].encode(), 400 if NEXT["async_fails"] else 200
        return urllib3.HTTPResponse(
            io.BytesIO(content), {"Content-Type": "text/csv"}, status, preload_content=not stream
        )

    def stop(self) -> None:
        self.alive = False


class ScriptedTransform(TransformJobs):
    def run(self, record: dict[str, Any], containers: list[Any]) -> None:
        cloud = CLOUD[-1]
        outcome = cloud.outcome()
        cloud.looks.wait(record["TransformJobName"], NEXT["looks"])
        if outcome == "stopped":
            raise Stopped
        if outcome == "failed":
            lines = ("rows.csv: Bad HTTP status received from algorithm: 400", "Row 1 is short")
            self._services.log(self.group, f"{record['TransformJobName']}/1/data-log", lines)
            raise StartError("ClientError: See job logs for more information")
        joined = record.get("DataProcessing", {}).get("JoinSource") == "Input"
        for uri in self._inputs(record["TransformInput"]["DataSource"]["S3DataSource"]):
            lines = (self._services.read(uri) or b"").splitlines()[NEXT["lose_lines"] :]
            answers = [line + b",1" if joined else b"1" for line in lines]
            self._services.write(self._output(record, uri), b"".join(a + b"\n" for a in answers))


class ScriptedTraining(TrainingJobs):
    """Goes through its states, logs two lines, and leaves a model."""

    def run(self, record: dict[str, Any], containers: list[Any]) -> None:
        cloud, name = CLOUD[-1], record["TrainingJobName"]
        outcome = cloud.outcome()
        for step in _TRAINING:
            self._secondary(record, step)
            if step == _TRAINING[1]:
                lines = ("fitting", "validation_accuracy=0.97;")
                self._services.log(self.group, f"{name}/algo-1-1", lines)
            cloud.looks.wait(name, NEXT["looks"], self.stopping(record).is_set)
        if outcome == "failed":
            raise StartError("AlgorithmError: train.py failed: ValueError: no wine")
        base = record["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        model = f"{base}/{name}/output/model.tar.gz"
        self._services.write(model, NEXT["answer"].encode())
        record["ModelArtifacts"] = {"S3ModelArtifacts": model}
        if self.stopping(record).is_set():
            raise Stopped


class ScriptedCloud(Cloud):
    """A cloud without containers whose endpoints go as the test said."""

    job_kinds: tuple[type[Jobs], ...] = (ScriptedTransform, ScriptedTraining)

    def __init__(self) -> None:
        self.looks = Looks()
        self._script: dict[str, str] = {}
        self._kept = tempfile.TemporaryDirectory(prefix="skserve-cloud-")
        super().__init__(Path(self._kept.name), REGION, Speed(), None)
        for jobs in self.jobs:
            jobs._engine = self  # type: ignore[assignment]  # they run without one here
        self.endpoints.check_change = self._check_change  # type: ignore[method-assign]
        self._really = type(self.endpoints).check_change
        write = self.services.write

        def written(uri: str, content: bytes) -> None:
            storage = s3_backends[ACCOUNT]["aws"]
            if split_uri(uri)[0] not in storage.buckets:
                name = split_uri(uri)[0]  # moto itself refuses the tests' short names
                storage.buckets[name] = FakeBucket(name, ACCOUNT, REGION)
            write(uri, content)

        self.services.write = written  # type: ignore[method-assign]
        self._thread(lambda: self.queues.run(self._ended, self.endpoints.all), "queues")

    def end(self) -> None:
        """Let every thread of this cloud end."""
        self._ended.set()
        self.looks.ended = True
        self._kept.cleanup()

    def outcome(self) -> str:
        """Take the next outcome."""
        return str(NEXT["outcomes"].pop(0)) if NEXT["outcomes"] else "ok"

    def launch(self, variant: Variant) -> Instance:
        outcome = self._script.get(variant.endpoint, "ok")
        if variant.config in self._script:  # the way back of a rollback that fails
            raise StartError("No capacity")
        self.looks.wait(variant.endpoint, NEXT["looks"])
        if outcome in ("ok", "") or self.looks.ended:
            return ScriptedInstance(kinds(variant.spec)[0])
        endpoint = self.endpoints.find(variant.endpoint)
        assert endpoint is not None
        if outcome == "rolled-back":
            raise StartError("Alarm wine-errors fired")
        if outcome == "rollback-failed":
            self._script[endpoint.record["EndpointConfigName"]] = outcome
            for fleet in endpoint.fleets[:-1]:
                for instance in (one for old in fleet.all for one in old.instances):
                    instance.alive = False
            raise StartError("An instance did not start.")
        reason = (
            f"The primary container for production variant {variant.name} did not pass the ping "
            "health check."
        )
        stream = f"{variant.name}/{instance_id()}"
        self.services.log(f"/aws/sagemaker/Endpoints/{variant.endpoint}", stream, ["no sklearn"])
        endpoint.set("Failed", reason)
        raise SystemExit  # ends the deployment's thread where it stands

    def _operations(self) -> dict[str, Operation]:
        known = super()._operations()
        for name in ("CreateEndpoint", "UpdateEndpoint"):
            known[name] = self._with_outcome(known[name])
        for noun in ("Endpoint", "TransformJob", "TrainingJob"):
            known[f"Describe{noun}"] = self._looked(known[f"Describe{noun}"], f"{noun}Name")
        return known

    def _with_outcome(self, operation: Operation) -> Operation:
        def carried_out(given: Mapping[str, Any]) -> dict[str, Any]:
            queue = list(NEXT["outcomes"])
            self._script = {given["EndpointName"]: self.outcome()}
            try:
                return operation(given)
            except ApiError:
                NEXT["outcomes"] = queue
                raise

        return carried_out

    def _looked(self, operation: Operation, key: str) -> Operation:
        def looked(given: Mapping[str, Any]) -> dict[str, Any]:
            answer = operation(given)
            self.looks.add(given[key])
            return answer

        return looked

    def _check_change(self, endpoint: Any, old: Any, new: Any) -> None:
        # Tests update to the config that serves, to see a change that no caller asked for.
        serving, endpoint.record["EndpointConfigName"] = endpoint.record["EndpointConfigName"], ""
        try:
            self._really(self.endpoints, endpoint, old, new)
        finally:
            endpoint.record["EndpointConfigName"] = serving


# ---- the steering wheel and the faults


CHANGING = ("Create", "Update", "Delete", "Put", "Register", "Deregister", "AddTags", "Stop")


def operation_of(environ: dict[str, Any], body: bytes) -> str:
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    path = environ["PATH_INFO"]
    if target:
        return target.split(".")[-1]
    if path.endswith("/invocations"):
        return "InvokeEndpoint"
    if "/operation/" in path:  # Smithy's RPC protocols name it in the path
        return path.rsplit("/", 1)[-1]
    action = parse_qs(body.decode("latin-1")).get("Action")
    return action[0] if action else f"{environ['REQUEST_METHOD']} {path}"


def steered(inner: Callable[..., Any]) -> Callable[..., Any]:
    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path.startswith("/_test/"):
            return _steer(environ, start, path.removeprefix("/_test/"), method)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = b""
        if length and length < 1 << 20 and method == "POST":
            body = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(body)
        operation = operation_of(environ, body)
        with LOCK:
            CALLS.append(operation)
            if operation == "InvokeEndpoint":
                HEADERS.clear()
                HEADERS.update({key[5:].replace("_", "-").title(): value for key, value
                                in environ.items() if key.startswith("HTTP_X_AMZN_")})  # fmt: skip
            if "HTTP_X_AMZ_TARGET" in environ and operation.startswith(CHANGING):
                SENT.append((operation, json.loads(body)))
            fault = next((f for f in FAULTS if f["operation"] in (operation, "*")), None)
            if fault is not None:
                fault["skip"] = fault.get("skip", 0) - 1
                if fault["skip"] < 0:
                    fault["times"] -= 1
                    if fault["times"] <= 0:
                        FAULTS.remove(fault)
                    if not fault.get("after"):
                        return _fail(environ, start, fault)
                    list(inner(environ, lambda *a: None))  # it happens, and the answer is lost
                    return _fail(environ, start, fault)
        if operation in ANSWERS:
            return _answer(start, ANSWERS[operation]())
        return inner(environ, start)

    return application


def _answer(start: Callable[..., Any], value: Any) -> list[bytes]:
    start("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps(value).encode()]


def products() -> dict[str, Any]:
    """The Price List's answer, in the shape that its service model and examples give."""
    return {"PriceList": [json.dumps({
        "product": {"attributes": {"instanceName": "ml.m5.large", "component": "Hosting"}},
        "terms": {"OnDemand": {"a": {"priceDimensions": {"b": {
            "unit": "Hrs", "pricePerUnit": {"USD": price}}}}}},
    }) for price in NEXT["prices"]]}  # fmt: skip


def quotas() -> dict[str, Any]:
    name = "ml.m5.large for endpoint usage"
    return {"Quotas": [{"QuotaName": name, "Value": NEXT["quota"]}]}


# Services that moto has not, or not for SageMaker.
ANSWERS = {
    "GetProducts": products,
    "ListServiceQuotas": quotas,
    "POST /GetTelemetryEnrichmentStatus": lambda: {"Status": NEXT["telemetry"]},
}


def _fail(environ: dict[str, Any], start: Callable[..., Any], fault: dict[str, Any]) -> list[bytes]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    environ["wsgi.input"].read(length) if not fault.get("after") else None
    code, text = fault["code"], fault.get("message", "")
    status = f"{fault.get('status', 400)} Fault"
    if environ.get("HTTP_X_AMZ_TARGET") or environ["PATH_INFO"].endswith("invocations"):
        body = json.dumps({"__type": code, "message": text, "Message": text,
                           **fault.get("extra", {})}).encode()  # fmt: skip
        start(status, [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-errortype", code)])
        return [body]
    start(status, [("Content-Type", "text/xml")])
    return [f"<ErrorResponse><Error><Code>{code}</Code><Message>{text}</Message></Error>"
            f"<RequestId>x</RequestId></ErrorResponse>".encode()]  # fmt: skip


def _steer(
    environ: dict[str, Any], start: Callable[..., Any], path: str, method: str
) -> list[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    answer: bytes = b"{}"
    if path == "reset":
        reset()
    elif path == "set":
        NEXT.update(json.loads(body))
    elif path == "fault":
        FAULTS.append({"times": 1, **json.loads(body)})
    elif path == "calls":
        answer = json.dumps(CALLS).encode()
    elif path == "headers":
        answer = json.dumps(HEADERS).encode()
    elif path == "sent":
        answer = json.dumps(SENT).encode()
    elif path.startswith("blob/") and method == "PUT":
        CLOUD[-1].store.images[path.removeprefix("blob/")] = {"config": body.decode()}
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def main() -> None:
    reset()
    run_simple("127.0.0.1", int(sys.argv[1]), steered(lambda *given: CLOUD[-1].front(*given)),
               threaded=True, request_handler=Handler)  # fmt: skip


if __name__ == "__main__":
    main()
