"""The front: who answers a request, this cloud or moto, and what is refused."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.wsgi import LimitedStream

from . import shapes
from .errors import ApiError, invalid, not_modelled
from .faults import Faults
from .refused import CHECKS
from .store import Store
from .web import Answer, Web, failed

Operation = Callable[[Mapping[str, Any]], dict[str, Any]]
Start = Callable[[str, list[tuple[str, str]]], Any]
# What moto keeps for SageMaker, and answers from what it was given.
MOTO_SAGEMAKER = ("ModelPackage",)
# moto's services that stand as they are; any other is refused.
MOTO_SERVICES = frozenset(
    ("s3", "iam", "sts", "ecr", "logs", "monitoring", "cloudwatch", "sns", "sqs", "kms", "ec2",
     "application-autoscaling", "tagging", "resource-groups-tagging-api")
)  # fmt: skip
REGIONAL = (MOTO_SERVICES | {"sagemaker"}) - {"s3", "iam", "sts"}
_log = logging.getLogger(__name__)
_READS = ("Describe", "List", "Get", "Head", "BatchGet", "Search")
_BODY_LIMIT = 1 << 20  # bytes of a body that is read to know its operation


class Handler(MotoRequestHandler):
    """HTTP/1.1, so that streams are chunked, and no line for each request."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: calls are counted, and containers have logs of their own."""


class Front:
    """The WSGI application of a cloud."""

    def __init__(
        self, region: str, operations: Mapping[str, Operation], web: Web, faults: Faults,
        store: Store, own: Mapping[str, Callable[[Mapping[str, Any], bytes], Answer]],
    ) -> None:  # fmt: skip
        self._region, self._operations, self._web = region, operations, web
        self._faults, self._store, self._own = faults, store, own
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if "wsgi.input_terminated" not in environ:
            size = int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"] = LimitedStream(environ["wsgi.input"], size)
        try:
            return self._answered(environ, start)
        except ApiError as error:
            # What a refused call still sends is read, or its connection could not be used again.
            environ["wsgi.input"].read()
            return _sent(failed(error), start)
        except Exception as error:  # a defect of this cloud; it says so, and goes on
            _log.exception("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            sentence = f"the local cloud failed: {error!r}; its own output has the traceback"
            return _sent(failed(ApiError("InternalFailure", sentence, 500)), start)

    def _answered(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        for prefix, answer in self._own.items():
            if path.startswith(prefix):
                return _sent(answer(environ, _read(environ)), start)
        service, region = _scope(environ)
        operation = _operation(environ)
        after = False
        if fault := self._faults.before_call(operation):
            error, after = fault
            if not after:
                raise error
        if service in REGIONAL:
            self._check_region(region)
        if self._web.serves(path):
            answered = self._web.answer(environ)
        elif service == "sagemaker" and not self._is_motos(operation):
            answered = self._sagemaker(operation, environ)
        else:
            return self._by_moto(environ, start, service, operation, error if after else None)
        if after:
            raise error
        return _sent(answered, start)

    def _sagemaker(self, operation: str, environ: dict[str, Any]) -> Answer:
        known = shapes.service_model("sagemaker").operation_names
        if operation not in known:
            raise ApiError("UnknownOperationException", f"{operation} is not an operation")
        if operation not in self._operations:
            raise not_modelled(f"SageMaker's {operation}")
        given = json.loads(_read(environ) or b"{}")
        shapes.check("sagemaker", operation, given)
        answer = self._operations[operation](given)
        content = json.dumps(answer).encode()
        headers = [("Content-Type", "application/x-amz-json-1.1"),
                   ("Content-Length", str(len(content)))]  # fmt: skip
        return "200 OK", headers, [content]

    def _is_motos(self, operation: str) -> bool:
        return any(noun in operation for noun in MOTO_SAGEMAKER)

    def _check_region(self, region: str) -> None:
        if region and region != self._region:
            raise invalid(
                f"This local cloud is in {self._region} and the call is for {region}: set "
                f"AWS_DEFAULT_REGION={self._region}, or start it with --region {region}."
            )

    def _by_moto(
        self, environ: dict[str, Any], start: Start, service: str, operation: str,
        lost: ApiError | None,
    ) -> Iterable[bytes]:  # fmt: skip
        if service and service not in MOTO_SERVICES | {"sagemaker"}:
            raise not_modelled(f"the service {service}")
        if check := CHECKS.get(operation):
            body = _read(environ)
            environ["wsgi.input"] = io.BytesIO(body)
            check(_given(environ, body))
        answer = self._moto(environ, (lambda *_: None) if lost else start)
        if not operation.startswith(_READS):
            self._store.changed(_BACKENDS.get(service, service or "s3"))
        if lost:
            list(answer)
            raise lost
        return answer  # type: ignore[no-any-return]


_BACKENDS = {"monitoring": "cloudwatch", "application-autoscaling": "applicationautoscaling"}


def _scope(environ: Mapping[str, Any]) -> tuple[str, str]:
    """Return service and region that a request was signed for, "" where it is not signed."""
    parts = environ.get("HTTP_AUTHORIZATION", "").split("Credential=")[-1].split(",")[0].split("/")
    return (parts[3].lower(), parts[2]) if len(parts) >= 5 else ("", "")


def _operation(environ: dict[str, Any]) -> str:
    """Return the name of the operation that a request asks for."""
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if target := environ.get("HTTP_X_AMZ_TARGET", ""):
        return str(target).rsplit(".", 1)[-1]
    if path.startswith("/endpoints/"):
        return _RUNTIME.get(str(path).rsplit("/", 1)[-1], str(path))
    if "/operation/" in path:  # Smithy's RPC protocols name it in the path
        return str(path.rsplit("/", 1)[-1])
    form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
    if method == "POST" and form and int(environ.get("CONTENT_LENGTH") or 0) < _BODY_LIMIT:
        body = _read(environ)
        environ["wsgi.input"] = io.BytesIO(body)
        if action := parse_qs(body.decode("latin-1")).get("Action"):
            return action[0]
    return f"{method.capitalize()} {path}"


def _given(environ: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Return the fields of a request: of a form, only what stands at the top."""
    if "HTTP_X_AMZ_TARGET" in environ:
        found: dict[str, Any] = json.loads(body or b"{}")
        return found
    form = parse_qs(body.decode("latin-1"))
    return {key.partition(".")[0]: values[0] for key, values in form.items()}


_RUNTIME = {
    "invocations": "InvokeEndpoint",
    "invocations-response-stream": "InvokeEndpointWithResponseStream",
    "async-invocations": "InvokeEndpointAsync",
}


def _read(environ: Mapping[str, Any]) -> bytes:
    content: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return content


def _sent(answer: Answer, start: Start) -> Iterable[bytes]:
    status, headers, body = answer
    start(status, headers)
    return body
