"""What the poller answers itself, from parsed bytes to an answer, without WSGI and Flask.

That is /ping, /metrics, and the calls of a model whose last answers of about the size were cheap.
`Inline.handler` decides it, for the poller alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

from skserve import telemetry
from skserve.config import Config
from skserve.formats.media_types import JSON
from skserve.inference.calls import Call, Reply
from skserve.scheduling.local_model import Invocable, Registry
from skserve.scheduling.slot_errors import no_place
from skserve.serving.head import Refusal, Request
from skserve.serving.invocation import Sending
from skserve.serving.metrics import CONTENT_TYPE, Exposition
from skserve.serving.responses import (
    ATTRIBUTES,
    INFERENCE_ID,
    Answer,
    error_body,
    fault,
    headers_of,
    identity,
    whole,
)

log = logging.getLogger("skserve")

Handler = Callable[[Request], Answer]
Fault = Callable[[Exception, telemetry.Record], Answer]

_ATTRIBUTES, _INFERENCE_ID = ATTRIBUTES.lower(), INFERENCE_ID.lower()


class Inline:
    """Which small requests are answered by the thread that polls.

    `always` has the handlers of /ping and /metrics, by method and path. `called` returns the
    handler of a model's call that is expected to be cheap. `facts_of` returns what the log says of
    such a call beside what all have, and None for other requests.
    """

    def __init__(
        self,
        always: Mapping[tuple[str, str], Handler],
        called: Callable[[Request], Handler | None],
        facts_of: Callable[[Request], dict[str, str] | None],
    ) -> None:
        self._always, self._called, self._facts_of = always, called, facts_of

    def handler(self, request: Request) -> Handler | None:
        """Return what answers a request whose body is there; None where a thread has to."""
        if "content-encoding" in request.headers:
            return None  # it may unpack to anything
        line = request.line
        handler = self._always.get((line.method, line.path))
        if handler is None and line.minor:  # a stream has to be whole before HTTP/1.0 may have it
            handler = self._called(request)
        return handler

    def is_call(self, request: Request) -> bool:
        """Whether a request calls a model."""
        return self._facts_of(request) is not None

    def overloaded(self, request: Request) -> Answer:
        """Make the answer to a call of a model for which no thread is left, and log it."""
        record = telemetry.begin(identity(request.headers.get(_INFERENCE_ID, "")))
        record.facts |= self._facts_of(request) or {}
        record.bytes_in = len(request.body)
        answer = fault(no_place(), record)
        record.write(answer, hold=True)
        return answer

    def refused(self, refusal: Refusal, request: Request | None) -> Answer:
        """Make the answer to what is no request, or to one whose body does not come, and log it.

        A call of a model counts as an invocation once its head was whole.
        """
        headers = request.headers if request else {}
        facts = self._facts_of(request) if request else None
        record = telemetry.begin(identity(headers.get(_INFERENCE_ID, "")), facts is not None)
        record.facts |= {**(facts or {}), "code": refusal.code, "message": refusal.message}
        body = error_body(refusal.code, refusal.message, refusal.hint, record.request_id)
        answer = Answer(refusal.status, body, [("Content-Type", JSON)])
        record.write(answer)
        return answer


def single(
    registry: Registry, ready: Callable[[], bool], config: Config, metrics: Exposition | None
) -> Inline:
    """Return what is answered inline where one model is served; `ready` is what /ping says."""

    def facts_of(request: Request) -> dict[str, str] | None:
        line = request.line
        return {} if line.path == "/invocations" and line.method == "POST" else None

    def called(request: Request) -> Handler | None:
        if facts_of(request) is None:
            return None
        return partial(invoke, registry) if registry.cheap(len(request.body)) else None

    return Inline(always(ready, config, metrics), called, facts_of)


def always(
    ready: Callable[[], bool], config: Config, metrics: Exposition | None
) -> dict[tuple[str, str], Handler]:
    """Return the requests that are answered inline whatever they carry."""
    said = [200]  # the status of the last /ping: only a change is logged

    def ping(_: Request) -> Answer:
        status = 200 if ready() else 503
        if status != said[-1]:
            said[-1] = status
            log.info("GET /ping answers %d from now on.", status)
        return Answer(status, b"", [("Content-Type", "text/html; charset=utf-8")])

    def scrape(_: Request) -> Answer:
        assert metrics is not None
        return Answer(200, metrics.text(), [("Content-Type", CONTENT_TYPE)])

    handlers: dict[tuple[str, str], Handler] = {
        (method, "/ping"): ping for method in ("GET", "HEAD", "POST")
    }
    return handlers if metrics is None else handlers | {("GET", config.metrics_path): scrape}


def invoke(
    model: Invocable,
    request: Request,
    failed: Fault = fault,
    facts: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """Let a model answer a request in this thread; `facts` are for its line in the log."""
    headers = request.headers
    record = telemetry.begin(identity(headers.get(_INFERENCE_ID, "")), in_poller=True)
    record.facts.update(facts)
    record.bytes_in = len(request.body)
    attributes = headers.get(_ATTRIBUTES, "")
    call = Call(
        request.body,
        headers.get("content-type", "") or headers.get("contenttype", ""),
        headers.get("accept", ""),
        attributes,
        _Titled(headers),
    )
    try:
        reply = model.invoke(call, True)
        if not isinstance(reply.body, bytes):
            return _streamed(reply, attributes, record)
        answer = whole(reply, attributes, headers.get("accept-encoding", ""))
    except Exception as error:
        answer = failed(error, record)
    record.write(answer, hold=True)
    return answer


def _streamed(reply: Reply, attributes: str, record: telemetry.Record) -> Answer:
    """Make the answer of a reply in parts, which a thread sends."""
    assert not isinstance(reply.body, bytes)
    record.leave_poller()
    headers = headers_of(reply, attributes)
    if reply.length is not None:
        headers.append(("Content-Length", str(reply.length)))
    return Answer(reply.status, Sending(reply.body, reply.status, record), headers)


class _Titled(Mapping[str, str]):
    """Headers under the names that scripts know; made only where one asks."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        return self._headers[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return (name.title() for name in self._headers if "_" not in name)

    def __len__(self) -> int:
        return sum(1 for _ in self)
