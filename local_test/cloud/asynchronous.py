"""InvokeEndpointAsync: a queue for each endpoint, from S3 to S3, worked off as instances can."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .calls import Call
from .endpoint import Endpoint
from .errors import ApiError
from .runtime import Runtime
from .services import Services

_log = logging.getLogger(__name__)
_PER_INSTANCE = 4  # calls at once where the config does not say; SageMaker chooses, too
_TTL_SECONDS = 21600
_TIMEOUT_SECONDS = 900
_INLINE_LIMIT = 128_000  # bytes
_LOOK = 0.05


@dataclass
class Job:
    """One asynchronous call."""

    call: Call
    input: str
    output: str
    failure: str
    inference_id: str
    timeout: float
    expires: float
    received: str = field(
        default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    )


class Queues:
    """The asynchronous calls of all endpoints."""

    def __init__(
        self, runtime: Runtime, services: Services, config: Callable[[Endpoint], Mapping[str, Any]]
    ) -> None:
        self._runtime, self._services, self._config = runtime, services, config
        self._waiting: dict[str, deque[Job]] = {}
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()

    def put(self, endpoint: Endpoint, call: Call) -> Job:
        """Queue a call and return it with the places of its answer."""
        config = self._config(endpoint)["OutputConfig"]
        job = self._job(endpoint, call, config)
        with self._lock:
            self._waiting.setdefault(endpoint.name, deque()).append(job)
        return job

    def _job(self, endpoint: Endpoint, call: Call, config: Mapping[str, Any]) -> Job:
        source, body = call.headers.get("InputLocation", ""), call.body
        if bool(source) == bool(body):
            raise ApiError("ValidationError", "Exactly one of InputLocation and Body is needed.")
        if len(body) > _INLINE_LIMIT:
            raise ApiError("ValidationError", f"Body is larger than {_INLINE_LIMIT} bytes.")
        name = str(uuid.uuid4())
        root = config.get("S3OutputPath") or "s3://missing"
        failures = config.get("S3FailurePath") or f"{root.rstrip('/')}/failures"
        extension = call.headers.get("S3OutputPathExtension", "").strip("/")
        folder = f"{root.rstrip('/')}/{extension}" if extension else root.rstrip("/")
        file = call.headers.get("Filename", name)
        return Job(
            call, source, f"{folder}/{file}.out",
            f"{failures.rstrip('/')}/{name}-error.out",
            call.headers.get("Inference-Id") or name,
            float(call.headers.get("InvocationTimeoutSeconds") or _TIMEOUT_SECONDS),
            time.monotonic() + float(call.headers.get("RequestTTLSeconds") or _TTL_SECONDS),
        )  # fmt: skip

    def backlog(self, name: str) -> int:
        """Return how many calls wait or run."""
        with self._lock:
            return len(self._waiting.get(name, ())) + self._running.get(name, 0)

    def serves(self, endpoint: Endpoint) -> bool:
        """Say whether the endpoint is asynchronous."""
        return bool(self._config(endpoint))

    def forget(self, name: str) -> None:
        """Drop what waits for an endpoint that is gone."""
        with self._lock:
            self._waiting.pop(name, None)

    def run(self, ended: threading.Event, endpoints: Callable[[], list[Endpoint]]) -> None:
        """Start what may run, until `ended`."""
        while not ended.wait(_LOOK):
            for endpoint in endpoints():
                while job := self._due(endpoint):
                    threading.Thread(target=self._work, args=(endpoint, job), daemon=True).start()

    def _due(self, endpoint: Endpoint) -> Job | None:
        """Take the next call that an instance is free for."""
        with self._lock:
            waiting = self._waiting.get(endpoint.name)
            if not waiting:
                return None
            config = self._config(endpoint).get("ClientConfig", {})
            each = config.get("MaxConcurrentInvocationsPerInstance", _PER_INSTANCE)
            instances = sum(len(variant.serving) for variant in endpoint.variants)
            running = self._running.get(endpoint.name, 0)
            if running >= each * instances and waiting[0].expires > time.monotonic():
                return None
            self._running[endpoint.name] = running + 1
            return waiting.popleft()

    def _work(self, endpoint: Endpoint, job: Job) -> None:
        try:
            self._answer(endpoint, job)
        except Exception as error:  # a defect of this cloud; the caller is told all the same
            _log.exception("an asynchronous call failed")
            self._failed(endpoint, job, f"InternalServerError: {error!r}")
        finally:
            with self._lock:
                self._running[endpoint.name] -= 1

    def _answer(self, endpoint: Endpoint, job: Job) -> None:
        try:
            if job.expires < time.monotonic():
                raise ApiError("RequestExpired", "The request was not processed within its "
                               "RequestTTLSeconds.")  # fmt: skip
            body = job.call.body if not job.input else self._services.read(job.input)
            if body is None:
                raise ApiError("ClientError", f"The object {job.input} does not exist.")
            call = Call(body, job.call.content_type, job.call.accept, job.call.headers)
            reply = self._runtime.invoke(endpoint, call, job.timeout)
            self._services.write(job.output, reply.body)
        except (ApiError, LookupError) as error:
            self._failed(endpoint, job, str(error))
            return
        self._told(endpoint, job, "Completed", {
            "responseParameters": {"contentType": reply.headers.get("Content-Type", ""),
                                   "outputLocation": job.output}})  # fmt: skip

    def _failed(self, endpoint: Endpoint, job: Job, reason: str) -> None:
        content = json.dumps({"inferenceId": job.inference_id, "failureReason": reason})
        lines = [f"{job.inference_id}: {reason}"]
        group = f"/aws/sagemaker/Endpoints/{endpoint.name}"
        try:
            self._services.write(job.failure, content.encode())
        except LookupError as error:
            lines.append(f"{job.inference_id}: {error}")
        self._services.log(group, f"{endpoint.variants[0].name}/data-log", lines)
        self._told(
            endpoint,
            job,
            "Failed",
            {"failureReason": reason, "responseParameters": {"outputLocation": job.failure}},
        )

    def _told(self, endpoint: Endpoint, job: Job, status: str, more: Mapping[str, Any]) -> None:
        config = self._config(endpoint)["OutputConfig"].get("NotificationConfig", {})
        topic = config.get("SuccessTopic" if status == "Completed" else "ErrorTopic")
        if topic:
            self._services.notify(topic, {
                "awsRegion": self._services.region, "eventTime": job.received,
                "receivedTime": job.received, "invocationStatus": status,
                "requestParameters": {"endpointName": endpoint.name, "inputLocation": job.input},
                "inferenceId": job.inference_id, "eventVersion": "1.0",
                "eventSource": "aws:sagemaker", "eventName": "InferenceResult", **more,
            })  # fmt: skip
