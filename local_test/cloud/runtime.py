"""InvokeEndpoint: a call on its way to a container and back, with SageMaker's limits and errors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import urllib3

from .calls import LIMIT, SERVERLESS_LIMIT, Call, Reply
from .endpoint import Endpoint
from .errors import ApiError, not_modelled
from .fleet import Variant
from .instance import CallError, Instance
from .launcher import LOGS
from .metrics import Metrics
from .multi_model import ModelAnsweredError, Models
from .services import ACCOUNT, Services

SECONDS = 60.0
_MESSAGE_LIMIT = 2048
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the "
    "latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
)
_BROKEN = "The connection to container primary was closed before it answered."
_TOO_LARGE = "The response of container primary is larger than {limit} bytes."
# Fields of a call that would need what is not modelled.
_REFUSED = {
    "Target-Container-Hostname": "a target container",
    "Inference-Component": "an inference component",
    "Session-Id": "a stateful session",
    "Enable-Explanations": "an explainer",
}


class Runtime:
    """Routes calls to instances, and counts them."""

    def __init__(
        self, find: Callable[[str], Endpoint | None], metrics: Metrics, models: Models,
        services: Services, captured: Callable[[Endpoint, Variant, Call, Reply], None],
    ) -> None:  # fmt: skip
        self._find, self._metrics, self._models = find, metrics, models
        self._services, self._captured = services, captured
        self._copies = ThreadPoolExecutor(16, "shadow")

    def endpoint(self, name: str) -> Endpoint:
        """Return an endpoint that takes calls, or refuse as SageMaker does."""
        endpoint = self._find(name)
        if endpoint is None or endpoint.status in ("Creating", "Failed", "Deleting"):
            raise ApiError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        return endpoint

    def invoke(self, endpoint: Endpoint, call: Call, seconds: float = SECONDS) -> Reply:
        """Return the container's good answer with its whole body. Raises `ApiError`."""
        with self._sent(endpoint, call, seconds, stream=False) as reply:
            reply.body = b"".join(reply.parts)
        return reply

    def stream(self, endpoint: Endpoint, call: Call) -> Sent:
        """Return the container's good answer while it still comes: a context manager."""
        return self._sent(endpoint, call, SECONDS, stream=True)

    def _sent(self, endpoint: Endpoint, call: Call, seconds: float, stream: bool) -> Sent:
        for name, what in _REFUSED.items():
            if call.headers.get(name):
                raise not_modelled(what)
        return Sent(self, endpoint, call, seconds, stream)

    # ---- used by Sent

    def routed(self, endpoint: Endpoint, call: Call, deadline: float) -> Any:
        target = call.headers.get("Target-Variant", "")

        def wanted(variant: Variant) -> None:
            _check(variant, call)
            if variant.serverless:
                if variant.desired and sum(i.outstanding for i in variant.instances) >= int(
                    variant.serverless["MaxConcurrency"]
                ):
                    raise ApiError("ThrottlingException", "Rate exceeded", 429)
                variant.desired = 1  # a cold start, if it slept

        return endpoint.taken(target, deadline, wanted)

    def path(self, variant: Variant, instance: Instance, call: Call) -> str:
        target = call.headers.get("Target-Model", "")
        return self._models.path(variant, instance, target) if target else "/invocations"

    def model_error(
        self, endpoint: Endpoint, variant: Variant, instance: Instance, status: int, text: str
    ) -> ApiError:
        """Return the ModelError of a call that failed in the container; status 0 for no answer."""
        group = LOGS.format(endpoint=endpoint.name)
        region = self._services.region
        side = "client" if 400 <= status < 500 else "server"
        text = text[:_MESSAGE_LIMIT]
        message = (
            f'Received {side} error ({status}) from primary with message "{text}". See '
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:"
            f"group={group} in account {ACCOUNT} for more information."
        )
        stream = f"{variant.name}/{instance.name}"
        arn = f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{group}:log-stream:{stream}"
        kind = "CLIENT_ERROR_FROM_MODEL" if side == "client" else "INTERNAL_FAILURE_FROM_MODEL"
        return ApiError(
            "ModelError", message, 424, OriginalStatusCode=status, OriginalMessage=text,
            LogStreamArn=arn, ErrorCode=kind,
        )  # fmt: skip

    def finished(
        self, endpoint: Endpoint, variant: Variant, instance: Instance, call: Call, status: int,
        model_seconds: float, seconds: float,
    ) -> None:  # fmt: skip
        """Count a call that has ended, and do what follows it."""
        dimensions = {"EndpointName": endpoint.name, "VariantName": variant.name,
                      "EndpointConfigName": variant.config}  # fmt: skip
        self._metrics.call(dimensions, status, model_seconds, seconds)
        each = 1.0 / max(1, len(variant.serving))
        whole = {key: dimensions[key] for key in ("EndpointName", "VariantName")}
        self._metrics.count({"InvocationsPerInstance": (each, "None")}, whole)
        if target := call.headers.get("Target-Model"):
            self._models.called(variant, instance, target)

    def answered(self, endpoint: Endpoint, variant: Variant, call: Call, reply: Reply) -> None:
        """Capture what is to be captured, and send the shadow its copy."""
        self._captured(endpoint, variant, call, reply)
        for shadow in endpoint.fleets[-1].shadows if endpoint.fleets else ():
            share = shadow.weight / (variant.weight or 1.0)
            if random.random() < share and (instance := shadow.next()):
                self._copies.submit(self._copy, endpoint, shadow, instance, call)

    def _copy(self, endpoint: Endpoint, shadow: Variant, instance: Instance, call: Call) -> None:
        start, status = time.monotonic(), 0
        with suppress(CallError, TimeoutError):  # a shadow's failure is a number and nothing else
            status = instance.call(
                "POST", "/invocations", call.body, call.to_container(), SECONDS
            ).status
        passed = time.monotonic() - start
        self.finished(endpoint, shadow, instance, Call(b""), status, passed, passed)


class Sent:
    """One call to a container, counted when it is closed."""

    def __init__(
        self, runtime: Runtime, endpoint: Endpoint, call: Call, seconds: float, stream: bool
    ) -> None:
        self._runtime, self._endpoint, self._call = runtime, endpoint, call
        self._seconds, self._stream = seconds, stream
        self._start = time.monotonic()
        self._status, self._model_seconds = 0, 0.0
        self._held: Any = None

    def __enter__(self) -> Reply:
        deadline = self._start + self._seconds
        while True:
            try:
                self._held = self._runtime.routed(self._endpoint, self._call, deadline)
                self._variant, self._instance = self._held.__enter__()
            except LookupError as error:
                raise self._unroutable(str(error)) from error
            try:
                return self._send(deadline)
            except CallError as error:
                # The container has gone, and has seen nothing of the call: another one takes it.
                self._instance.alive = self._instance.alive and error.sent
                self._close(error.sent)
                if error.sent:
                    # The next call must not go where this one broke, if nothing answers there.
                    self._instance.alive = self._instance.alive and self._instance.ping()
                    raise self._failed(0, _BROKEN) from error
            except TimeoutError as error:
                self._close()
                raise self._failed(0, _TIMED_OUT) from error
            except BaseException:
                self._close()
                raise

    def __exit__(self, *_: object) -> None:
        self._close()

    def _send(self, deadline: float) -> Reply:
        runtime, variant, instance, call = (
            self._runtime, self._variant, self._instance, self._call)  # fmt: skip
        try:
            path = runtime.path(variant, instance, call)
        except ModelAnsweredError as error:
            self._status = error.status
            raise self._failed(error.status, error.body.decode("utf-8", "replace")) from error
        began = time.monotonic()
        left = max(0.1, deadline - began)
        answer = instance.call("POST", path, call.body, call.to_container(), left, stream=True)
        self._status = answer.status
        if not 200 <= answer.status < 300:
            text = answer.data.decode("utf-8", "replace")
            self._model_seconds = time.monotonic() - began
            raise self._failed(answer.status, text)
        reply = Reply(answer.status, answer.headers, self._parts(answer, began), variant.name)
        if not self._stream:
            body = b"".join(reply.parts)
            limit = _limit(variant)
            if len(body) > limit and self._seconds <= SECONDS:
                self._status = 500
                raise self._failed(0, _TOO_LARGE.format(limit=limit))
            reply.parts = iter((body,))
            reply.body = body
            runtime.answered(self._endpoint, variant, call, reply)
        return reply

    def _parts(self, answer: urllib3.BaseHTTPResponse, began: float) -> Iterator[bytes]:
        try:
            if self._stream:
                while part := answer.read1(1 << 16):
                    yield part
            else:
                yield from answer.stream(1 << 20)
        except urllib3.exceptions.ReadTimeoutError as error:
            self._status = 0
            raise TimeoutError(str(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._status = 0
            raise CallError(str(error)) from error
        finally:
            self._model_seconds = time.monotonic() - began
            answer.release_conn()

    def _close(self, count: bool = True) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        held.__exit__(None, None, None)
        if count:
            passed = time.monotonic() - self._start
            self._runtime.finished(self._endpoint, self._variant, self._instance, self._call,
                                   self._status, self._model_seconds, passed)  # fmt: skip

    def _failed(self, status: int, text: str) -> ApiError:
        return self._runtime.model_error(
            self._endpoint, self._variant, self._instance, status, text
        )

    def _unroutable(self, variant: str) -> ApiError:
        target = self._call.headers.get("Target-Variant")
        if target and all(one.name != target for one in self._endpoint.variants):
            return ApiError(
                "ValidationError",
                f"Variant {target} not found for endpoint {self._endpoint.name} of account "
                f"{ACCOUNT}.",
            )
        return ApiError("ServiceUnavailable", f"No instance of variant {variant} is healthy.", 503)


def _limit(variant: Variant) -> int:
    return SERVERLESS_LIMIT if variant.serverless else LIMIT


def _check(variant: Variant, call: Call) -> None:
    """Refuse a call that does not fit the variant, before anything is asked of it."""
    target = call.headers.get("Target-Model")
    if variant.many and not target:
        raise ApiError("ValidationError", "TargetModel is required for a multi-model endpoint.")
    if target and not variant.many:
        raise ApiError("ValidationError", "Invoke model with TargetModel is not supported for a "
                       "single-model endpoint.")  # fmt: skip
