"""moto's server as a process, plus what moto 5.2 lacks and our tests need.

Added: UpdateEndpoint; endpoint states that change from look to look; creations and updates that
fail or roll back; transform jobs that take a while and write output; training jobs that take a
while, log, leave a model and can be stopped; shadow variants in configs; image configs in ECR; and
faults, answered before moto sees the call. Tests steer it over HTTP: `POST /_test/set` (what comes
next), `POST /_test/fault`, `GET /_test/calls`, `PUT /_test/blob/...`.
Run as: python cloud_server.py PORT
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import botocore.session
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.responses import ActionResult
from moto.ecr.responses import ECRResponse
from moto.logs.models import logs_backends
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.s3.models import s3_backends
from moto.sagemaker import models
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.models import SageMakerRuntimeBackend
from werkzeug.serving import run_simple

# What the next operations do. `outcomes` is a queue, consumed by CreateEndpoint and UpdateEndpoint
# (ok, failed, rolled-back, rollback-failed) and by jobs (ok, failed, stopped).
# `looks` is how many looks a transition lasts.
NEXT: dict[str, Any] = {}
FAULTS: list[dict[str, Any]] = []
CALLS: list[str] = []
# The calls of JSON protocols that change something, with their arguments.
SENT: list[tuple[str, Any]] = []
HEADERS: dict[str, str] = {}  # of the last invocation
BLOBS: dict[str, bytes] = {}
LOCK = threading.Lock()


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


# ---- endpoints


def _begin(endpoint: Any, config: str, transition: str) -> None:
    outcome = NEXT["outcomes"].pop(0) if NEXT["outcomes"] else "ok"
    endpoint.endpoint_status = transition
    endpoint.looks_left, endpoint.outcome, endpoint.next_config = NEXT["looks"], outcome, config
    endpoint.failure_reason = None


def _look(endpoint: Any) -> None:
    """Let a transition go one look further, and end."""
    if endpoint.endpoint_status not in ("Creating", "Updating", "SystemUpdating", "RollingBack"):
        return
    if endpoint.looks_left > 0:
        endpoint.looks_left -= 1
        return
    if endpoint.outcome == "rolled-back" and endpoint.endpoint_status == "Updating":
        endpoint.endpoint_status, endpoint.looks_left = "RollingBack", 1
        return
    ends = {
        "ok": ("InService", endpoint.next_config, None),
        "failed": ("Failed", endpoint.next_config, "The primary container for production variant "
                   "AllTraffic did not pass the ping health check."),
        "rolled-back": ("InService", endpoint.endpoint_config_name, "Alarm wine-errors fired"),
        "rollback-failed": ("UpdateRollbackFailed", endpoint.endpoint_config_name, "No capacity"),
    }  # fmt: skip
    status, config, reason = ends[endpoint.outcome]
    endpoint.endpoint_status, endpoint.endpoint_config_name = status, config
    endpoint.failure_reason = reason


_create_endpoint = models.SageMakerModelBackend.create_endpoint


def create_endpoint(self: Any, endpoint_name: str, endpoint_config_name: str, tags: Any) -> Any:
    if endpoint_name in self.endpoints:
        raise ValidationError(message="Cannot create already existing endpoint")
    endpoint = _create_endpoint(self, endpoint_name, endpoint_config_name, tags)
    _begin(endpoint, endpoint_config_name, "Creating")
    return endpoint


_describe_endpoint = models.SageMakerModelBackend.describe_endpoint


def describe_endpoint(self: Any, endpoint_name: str) -> Any:
    endpoint = self.endpoints.get(endpoint_name)
    if endpoint is not None and endpoint.endpoint_status == "Deleting":
        endpoint.looks_left -= 1
        if endpoint.looks_left < 0:
            del self.endpoints[endpoint_name]
    elif endpoint is not None:
        _look(endpoint)
    answer = _describe_endpoint(self, endpoint_name)
    for key in ("LooksLeft", "Outcome", "NextConfig"):
        answer.pop(key, None)
    return answer


def delete_endpoint(self: Any, endpoint_name: str) -> None:
    endpoint = self.endpoints.get(endpoint_name)
    if endpoint is None:
        raise ValidationError(message=f'Could not find endpoint "{endpoint_name}".')
    if endpoint.endpoint_status in ("Creating", "Updating", "RollingBack"):
        raise ValidationError(message=f'Cannot delete in-progress endpoint "{endpoint_name}".')
    endpoint.endpoint_status, endpoint.looks_left = "Deleting", 1


def update_endpoint(self: Any) -> ActionResult:
    """UpdateEndpoint, with the refusals that the contract names in sections 7.4, 7.5 and 7.7."""
    backend = self.sagemaker_backend
    name, config = self._get_param("EndpointName"), self._get_param("EndpointConfigName")
    endpoint = backend.endpoints.get(name)
    if endpoint is None:
        raise ValidationError(message=f'Could not find endpoint "{name}".')
    if endpoint.endpoint_status not in ("InService", "UpdateRollbackFailed"):
        raise ValidationError(message=f'Cannot update in-progress endpoint "{name}".')
    new = backend.describe_endpoint_config(config)["ProductionVariants"]
    old = backend.endpoint_configs.get(endpoint.endpoint_config_name)
    types = [variant.get("InstanceType") for variant in new]
    if old is not None:
        before = [variant.get("InstanceType") for variant in old.production_variants]
        if types != before and None in types:
            raise ValidationError(message="Cannot update an instance endpoint to serverless.")
        targets = applicationautoscaling_backends[self.current_account][self.region].targets
        scaled = f"endpoint/{name}/variant/" in json.dumps(list(map(str, _resources(targets))))
        if types != before and scaled:
            raise ValidationError(message="The variant is registered with Application Auto Scaling")
    _begin(endpoint, config, "Updating")
    return ActionResult({"EndpointArn": endpoint.arn})


def _resources(targets: Any) -> Iterable[str]:
    for by_resource in targets.values():
        yield from by_resource


_create_config = SageMakerResponse.create_endpoint_config


def create_endpoint_config(self: Any) -> Any:
    name = self._get_param("EndpointConfigName")
    if name in self.sagemaker_backend.endpoint_configs:
        raise ValidationError(message="Cannot create already existing endpoint configuration")
    answer = _create_config(self)
    self.sagemaker_backend.endpoint_configs[name].metrics_config = self._get_param("MetricsConfig")
    shadow = self._get_param("ShadowProductionVariants")
    if shadow:
        self.sagemaker_backend.endpoint_configs[name].shadow_production_variants = shadow
    return answer


_create_model = SageMakerResponse.create_model


def create_model(self: Any) -> Any:
    answer = _create_model(self)
    made = self.sagemaker_backend._models[self._get_param("ModelName")]
    made.enable_network_isolation = self._get_param("EnableNetworkIsolation", False)
    return answer


def validate_instance_type(self: Any, instance_type: str) -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    if instance_type not in model.shape_for("ProductionVariantInstanceType").enum:
        raise ValidationError(message=f"Value '{instance_type}' at 'instanceType' is not known")


# ---- invocations


def invoke_endpoint(self: Any, endpoint_name: str, unique_repr: bytes) -> tuple[str, str, str, str]:
    return NEXT["answer"], "text/csv", "AllTraffic", ""


_invoke_async = SageMakerRuntimeBackend.invoke_endpoint_async


def invoke_endpoint_async(self: Any, endpoint_name: str, input_location: str) -> tuple[str, str]:
    results = [(NEXT["async_fails"], NEXT["answer"])]
    self.async_results_queue, self.async_results = results, {}
    return _invoke_async(self, endpoint_name, input_location)


# ---- batch transform

_ENDED = {"ok": "Completed", "failed": "Failed", "stopped": "Stopped"}

_create_job = models.SageMakerModelBackend.create_transform_job


def create_transform_job(self: Any, **given: Any) -> Any:
    if given["model_name"] not in self._models:
        raise ValidationError(message=f"Could not find model {given['model_name']!r}.")
    job = _create_job(self, **given)
    job.transform_job_status, job.looks_left = "InProgress", NEXT["looks"]
    job.outcome = NEXT["outcomes"].pop(0) if NEXT["outcomes"] else "ok"
    return job


_describe_job = models.SageMakerModelBackend.describe_transform_job


def describe_transform_job(self: Any, transform_job_name: str) -> Any:
    job = self.transform_jobs.get(transform_job_name)
    if job is not None and job.transform_job_status == "InProgress":
        job.looks_left -= 1
        if job.looks_left < 0:
            job.transform_job_status = _ENDED[job.outcome]
            if job.outcome == "ok":
                _write_output(self, job)
    answer = _describe_job(self, transform_job_name)
    for ours in ("LooksLeft", "Outcome"):
        answer.pop(ours, None)
    if answer["TransformJobStatus"] == "Failed":
        answer["FailureReason"] = "ClientError: rows.csv: 400 from the algorithm"
    return answer


def _write_output(self: Any, job: Any) -> None:
    """Answer each line of each object with a line, as the container promises to."""
    storage = s3_backends[self.account_id][self.partition]
    source = job.transform_input["DataSource"]["S3DataSource"]["S3Uri"]
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    output = job.transform_output["S3OutputPath"].removeprefix("s3://")
    out_bucket, _, out_prefix = output.partition("/")
    base = prefix[: prefix.rfind("/") + 1]
    for key in [key for key in storage.buckets[bucket].keys if key.startswith(prefix)]:
        content = storage.get_object(bucket, key).value
        lines = content.splitlines()[NEXT["lose_lines"] :]
        joined = job.data_processing and job.data_processing.get("JoinSource") == "Input"
        answers = [line + b",1" if joined else b"1" for line in lines]
        name = f"{out_prefix.rstrip('/')}/{key.removeprefix(base)}.out"
        storage.put_object(out_bucket, name, value=b"".join(a + b"\n" for a in answers))


# ---- training

_create_training = models.SageMakerModelBackend.create_training_job
_TRAINING = ("Starting", "Downloading", "Training", "Uploading")


def create_training_job(self: Any, **given: Any) -> Any:
    job = _create_training(self, **given)
    job.training_job_status, job.secondary_status = "InProgress", _TRAINING[0]
    job.looks, job.outcome = 0, NEXT["outcomes"].pop(0) if NEXT["outcomes"] else "ok"
    return job


_describe_training = models.SageMakerModelBackend.describe_training_job


def describe_training_job(self: Any, training_job_name: str) -> Any:
    """Let the job go one look further; it writes a log, and at its end a model."""
    job = self.training_jobs.get(training_job_name)
    if job is not None and job.training_job_status in ("InProgress", "Stopping"):
        job.looks += 1
        if job.looks == 2:
            _write_log(self, training_job_name)
        if job.looks < NEXT["looks"] * len(_TRAINING) and job.training_job_status == "InProgress":
            job.secondary_status = _TRAINING[min(job.looks // NEXT["looks"], 3)]
        else:
            stopping = job.training_job_status == "Stopping"
            job.training_job_status = "Stopped" if stopping else _ENDED[job.outcome]
            job.secondary_status = job.training_job_status
            _end_training(self, job)
    answer = _describe_training(self, training_job_name)
    for ours in ("Looks", "Outcome"):
        answer.pop(ours, None)
    if job is not None and job.training_job_status == "Failed":
        answer["FailureReason"] = "AlgorithmError: train.py failed: ValueError: no wine"
        answer.pop("ModelArtifacts", None)
    return answer


def stop_training_job(self: Any) -> ActionResult:
    name = self._get_param("TrainingJobName")
    self.sagemaker_backend.training_jobs[name].training_job_status = "Stopping"
    return ActionResult({})


def _write_log(self: Any, name: str) -> None:
    logs = logs_backends[self.account_id][self.region_name]
    group, stream = "/aws/sagemaker/TrainingJobs", f"{name}/algo-1-1"
    if group not in logs.groups:
        logs.create_log_group(group, {})
    logs.create_log_stream(group, stream)
    now = int(time.time() * 1000)
    events = [{"timestamp": now + at, "message": text}
              for at, text in enumerate(("fitting", "validation_accuracy=0.97;"))]  # fmt: skip
    logs.put_log_events(group, stream, events)


def _end_training(self: Any, job: Any) -> None:
    """Leave the model where the real service would."""
    if job.training_job_status == "Failed":
        return
    uri = job.model_artifacts["S3ModelArtifacts"].removeprefix("s3://")
    bucket, _, key = uri.partition("/")
    s3_backends[self.account_id][self.partition].put_object(
        bucket, key, value=NEXT["answer"].encode()
    )


# ---- ECR


def get_download_url_for_layer(self: Any) -> ActionResult:
    digest = self._get_param("layerDigest")
    host = self.headers.get("Host")
    return ActionResult(
        {"downloadUrl": f"http://{host}/_test/blob/{digest}", "layerDigest": digest}
    )


def extend() -> None:
    backend, responses = models.SageMakerModelBackend, SageMakerResponse
    for owner, function in (
        (backend, create_endpoint), (backend, describe_endpoint), (backend, delete_endpoint),
        (backend, create_transform_job), (backend, describe_transform_job),
        (backend, create_training_job), (backend, describe_training_job),
        (responses, stop_training_job), (responses, create_model),
        (responses, update_endpoint), (responses, create_endpoint_config),
        (models.FakeEndpointConfig, validate_instance_type),
        (SageMakerRuntimeBackend, invoke_endpoint),
        (SageMakerRuntimeBackend, invoke_endpoint_async),
        (ECRResponse, get_download_url_for_layer),
    ):  # fmt: skip
        setattr(owner, function.__name__, function)


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
        BLOBS[path.removeprefix("blob/")] = body
    elif path.startswith("blob/"):
        answer = BLOBS[path.removeprefix("blob/")]
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def main() -> None:
    reset()
    extend()
    application = steered(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True,
               request_handler=MotoRequestHandler)  # fmt: skip


if __name__ == "__main__":
    main()
