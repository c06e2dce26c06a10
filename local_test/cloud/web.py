"""The runtime API over HTTP: InvokeEndpoint and its two sisters, as WSGI."""

from __future__ import annotations

import binascii
import json
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from .asynchronous import Queues
from .calls import LIMIT, SERVERLESS_LIMIT, Call, Reply, too_large
from .endpoint import Endpoint
from .errors import ApiError
from .instance import CallError
from .runtime import Runtime

Answer = tuple[str, list[tuple[str, str]], Iterable[bytes]]
_PREFIX = "HTTP_X_AMZN_SAGEMAKER_"
_NAMED = {name.upper().replace("-", "_"): name for name in (
    "Custom-Attributes", "Target-Model", "Target-Variant", "Target-Container-Hostname",
    "Inference-Id", "Enable-Explanations", "Inference-Component", "Session-Id", "InputLocation",
    "RequestTTLSeconds", "InvocationTimeoutSeconds", "S3OutputPathExtension", "Filename",
)}  # fmt: skip
_TO_CALLER = ("Custom-Attributes", "New-Session-Id", "Closed-Session-Id")
_HARD_LIMIT = 1 << 30  # bytes: more is not even read


def failed(error: ApiError) -> Answer:
    """Return an error as the JSON and REST-JSON protocols tell it."""
    body = {"__type": error.code, "message": error.message, "Message": error.message, **error.extra}
    content = json.dumps(body).encode()
    headers = [
        ("Content-Type", "application/x-amz-json-1.1"),
        ("x-amzn-errortype", error.code),
        ("x-amzn-RequestId", str(uuid.uuid4())),
        ("Content-Length", str(len(content))),
    ]
    return f"{error.status} Error", headers, [content]


class Web:
    """Answers the paths below /endpoints/."""

    def __init__(
        self, runtime: Runtime, queues: Queues, config: Callable[[Endpoint], Mapping[str, Any]]
    ) -> None:
        self._runtime, self._queues, self._config = runtime, queues, config
        self._operations: Mapping[str, Callable[[Endpoint, Call], Answer]] = {
            "invocations": self._invoke,
            "invocations-response-stream": self._stream,
            "async-invocations": self._later,
        }

    def serves(self, path: str) -> bool:
        return path.startswith("/endpoints/") and path.rsplit("/", 1)[-1] in self._operations

    def answer(self, environ: Mapping[str, Any]) -> Answer:
        """Answer one call. Raises `ApiError`."""
        _, _, name, operation = environ["PATH_INFO"].split("/", 3)
        endpoint = self._runtime.endpoint(unquote(name))
        serverless = any(one.serverless for one in endpoint.variants)
        limit = SERVERLESS_LIMIT if serverless else LIMIT
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(min(size, _HARD_LIMIT))
        too_large(size, limit)
        headers = {
            name: environ[_PREFIX + key]
            for key, name in _NAMED.items()
            if environ.get(_PREFIX + key)
        }
        call = Call(
            body,
            environ.get(_PREFIX + "CONTENT_TYPE") or environ.get("CONTENT_TYPE", ""),
            environ.get(_PREFIX + "ACCEPT") or environ.get("HTTP_ACCEPT", ""),
            headers,
        )
        queued = "AsyncInferenceConfig" in self._config(endpoint)
        if queued != (operation == "async-invocations"):
            kind = "an asynchronous" if queued else "not an asynchronous"
            raise ApiError("ValidationError", f"Endpoint {endpoint.name} is {kind} endpoint.")
        return self._operations[operation](endpoint, call)

    def _invoke(self, endpoint: Endpoint, call: Call) -> Answer:
        reply = self._runtime.invoke(endpoint, call)
        headers = _headers(reply)
        headers += [("Content-Type", reply.headers.get("Content-Type", "application/octet-stream")),
                    ("Content-Length", str(len(reply.body)))]  # fmt: skip
        return "200 OK", headers, [reply.body]

    def _stream(self, endpoint: Endpoint, call: Call) -> Answer:
        sent = self._runtime.stream(endpoint, call)
        reply = sent.__enter__()
        headers = _headers(reply)
        headers += [
            ("Content-Type", "application/vnd.amazon.eventstream"),
            ("X-Amzn-SageMaker-Content-Type", reply.headers.get("Content-Type", "")),
        ]

        def events() -> Iterator[bytes]:
            try:
                for part in reply.parts:
                    yield _event({":event-type": "PayloadPart", ":message-type": "event",
                                  ":content-type": "application/octet-stream"}, part)  # fmt: skip
            except (CallError, TimeoutError) as error:
                late = isinstance(error, TimeoutError)
                code = "ModelInvocationTimeExceeded" if late else "StreamBroken"
                content = json.dumps({"Message": str(error), "ErrorCode": code}).encode()
                yield _event({":exception-type": "ModelStreamError", ":message-type": "exception",
                              ":content-type": "application/json"}, content)  # fmt: skip
            finally:
                sent.__exit__()

        return "200 OK", headers, events()

    def _later(self, endpoint: Endpoint, call: Call) -> Answer:
        job = self._queues.put(endpoint, call)
        content = json.dumps({"InferenceId": job.inference_id}).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("X-Amzn-SageMaker-OutputLocation", job.output),
            ("X-Amzn-SageMaker-FailureLocation", job.failure),
            ("Content-Length", str(len(content))),
        ]
        return "202 Accepted", headers, [content]


def _headers(reply: Reply) -> list[tuple[str, str]]:
    """Return what of a container's headers reaches the caller, and the variant's name."""
    found = [("x-Amzn-Invoked-Production-Variant", reply.variant),
             ("x-amzn-RequestId", str(uuid.uuid4()))]  # fmt: skip
    for name in _TO_CALLER:
        if value := reply.headers.get(f"X-Amzn-SageMaker-{name}"):
            found.append((f"X-Amzn-SageMaker-{name}", value))
    return found


def _event(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Encode one message of application/vnd.amazon.eventstream."""
    head = b"".join(
        bytes([len(name)])
        + name.encode()
        + b"\x07"
        + struct.pack(">H", len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + head + payload
    return message + struct.pack(">I", binascii.crc32(message))
