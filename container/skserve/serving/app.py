"""HTTP: the routes, and the one place where replies and errors become responses.

Only this module knows Flask. A `ServeError` becomes `{"error": {...}}` under its status, anything
else a 500 whose traceback stays in the log.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any, cast

from flask import Flask, Request, Response, request
from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from skserve import logs, telemetry
from skserve.config import MIB, Config
from skserve.errors import (
    BadRequest,
    Overloaded,
    ServeError,
    TooLarge,
)
from skserve.formats.json_text import dumps_anyway
from skserve.formats.media_types import JSON
from skserve.inference.calls import Call, Reply, attribute
from skserve.scheduling.local_model import Invocable, Registry
from skserve.scheduling.memory import Bodies
from skserve.serving import browser, compression, openapi
from skserve.serving.body import Environ, Incoming
from skserve.serving.metrics import CONTENT_TYPE, Exposition
from skserve.telemetry import Record

log = logging.getLogger("skserve")

Wsgi = Callable[..., Iterable[bytes]]

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"

# The same as WSGI spells them. Looking up a header by its name takes ten times as long.
_ATTRIBUTES, _INFERENCE_ID = (
    "HTTP_" + name.upper().replace("-", "_") for name in (ATTRIBUTES, INFERENCE_ID)
)
_IDENTITY = re.compile(r"[!-~][ -~]{0,63}")

# A key of the WSGI environment: the worker's poller runs this request itself.
HERE = "skserve.here"

# Bytes of a body that are read whole at most, if it can be answered in portions.
LARGE = 8 * MIB

# SageMaker's limit to the payload of a call times the calls at once, in MB.
_PLATFORM_PAYLOAD = 100

# A caller sees an error as ModelError.OriginalMessage, cut at 2,048 characters: this leaves room
# for the JSON around the sentence.
MESSAGE_LIMIT = 1400


class _Flask(Flask):
    """Flask that routes by path and method alone, whatever Host or Upgrade say."""

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None
        path, method = request.environ["PATH_INFO"], request.environ["REQUEST_METHOD"]
        return MapAdapter(self.url_map, "skserve", "/", "", "http", path, method)


class _Answer(Response):
    """A response whose headers are complete: werkzeug would look for what they lack."""

    def get_wsgi_headers(self, environ: Environ) -> Headers:
        return self.headers


def create_app(
    registry: Registry, config: Config, bodies: Bodies, metrics: Exposition | None = None
) -> Flask:
    """Make the WSGI application over `registry`; `bodies` bounds the memory of what is read."""
    app = new_app(registry.ready, config, metrics)

    @app.route("/invocations", methods=["POST"])
    def invocations() -> Response:
        return invocation(request.environ, registry, config, bodies)

    def at_once(environ: Environ) -> Response | None:
        called = environ["PATH_INFO"] == "/invocations" and environ["REQUEST_METHOD"] == "POST"
        return invocation(environ, registry, config, bodies) if called else None

    app.wsgi_app = ahead_of(app.wsgi_app, at_once)  # type: ignore[method-assign]

    @app.route("/execution-parameters", methods=["GET"])
    def execution_parameters() -> Response:
        environ = request.environ
        reply = registry.execution_parameters(parameters(config))
        with ExitStack() as held:
            return _respond(reply, environ, telemetry.begin(_request_id(environ), False), held)

    @app.route("/", methods=["OPTIONS"])
    @app.route("/ping", methods=["OPTIONS"])
    @app.route("/invocations", methods=["OPTIONS"])
    def describe() -> Response:
        return browser.described(registry.describe())

    browser.add_page(app, config, registry.describe)
    browser.add_openapi(app, lambda served: openapi.of_model(registry.describe(), served))
    return app


def new_app(ready: Callable[[], bool], config: Config, metrics: Exposition | None) -> Flask:
    """Make an application that answers /ping and /metrics, and every failure in our words."""
    app = _Flask("skserve", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # Flask's own answer is an empty HTML page

    @app.route("/ping", methods=["GET", "HEAD", "POST"])
    def ping() -> Response:
        status = 200 if ready() else 503
        if status != said[-1]:
            said[-1] = status
            log.info("GET /ping answers %d from now on.", status)
        return Response(status=status)

    said = [200]  # the status of the last /ping: only a change is logged

    if metrics is not None:
        app.add_url_rule(
            config.metrics_path,
            "metrics",
            lambda: Response(metrics.text(), content_type=CONTENT_TYPE),
        )

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        record = telemetry.begin(_request_id(request.environ), False)
        response = failure(error, record)
        record.write(response)
        return response

    return app


def ahead_of(wsgi: Wsgi, at_once: Callable[[Environ], Response | None]) -> Wsgi:
    """Answer calls that the poller runs itself ahead of Flask, where `at_once` knows them.

    Flask's routing and context take as long as all the rest of such a call, and it needs neither.
    """

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        if environ.get(HERE) and (response := at_once(environ)) is not None:
            return response(environ, start_response)
        return wsgi(environ, start_response)

    return application


def invocation(
    environ: Environ,
    registry: Invocable,
    config: Config,
    bodies: Bodies,
    failed: Callable[[Exception, Record], Response] | None = None,
    **facts: str,
) -> Response:
    """Let a model answer the request of `environ`; `facts` are for its line in the log.

    `failed` makes the response to an error that is not answered in our words.
    """
    record = telemetry.begin(_request_id(environ))
    record.facts.update(facts)
    here = environ.get(HERE, False)
    held = ExitStack()
    reply: Reply | None
    try:
        if here:  # small, whole already and not packed
            body = environ["wsgi.input"].read()
            record.facts["bytes_in"] = len(body)
            reply = registry.invoke(_call(body, environ), here)
        else:
            held.enter_context(registry.place())
            incoming = Incoming(environ, config)
            try:
                reply = _in_portions(registry, config, environ, incoming, bodies, held)
                if reply is None:
                    body = held.enter_context(incoming.whole(bodies))
                    reply = registry.invoke(_call(body, environ), here)
                    if isinstance(reply.body, bytes):  # until it has left
                        held.enter_context(bodies.hold(len(reply.body), own=sys.maxsize))
            finally:
                record.facts["bytes_in"] = incoming.seen
        response = _respond(reply, environ, record, held)
    except Exception as error:
        response = (failed or failure)(error, record)
    response.call_on_close(held.close)
    if not response.is_streamed:
        record.write(response)
    return response


def parameters(config: Config) -> dict[str, object]:
    """Say to batch transform how to call us (contract 5.2)."""
    concurrent = config.concurrent_transforms or min(config.workers or 1, _PLATFORM_PAYLOAD)
    payload = min(config.max_payload_mb, max(1, _PLATFORM_PAYLOAD // concurrent))
    return {
        "MaxConcurrentTransforms": concurrent,
        "BatchStrategy": config.batch_strategy,
        "MaxPayloadInMB": payload,
    }


def _in_portions(
    registry: Invocable,
    config: Config,
    environ: Environ,
    body: Incoming,
    bodies: Bodies,
    held: ExitStack,
) -> Reply | None:
    """Answer a body while it is read if it is large, or in batch; None where it is to be whole."""
    call = _call(b"", environ)
    duplex = attribute(call, "stream") == "duplex"
    if not (config.batch or duplex) and body.fits(LARGE):
        return None
    with ExitStack() as counted:
        counted.enter_context(bodies.hold(min(LARGE, body.length or LARGE)))
        reply = registry.transform(call, body.read, duplex)
        if reply is not None:
            held.push(counted.pop_all())
        return reply


def _call(body: bytes, environ: Environ) -> Call:
    return Call(
        body,
        environ.get("CONTENT_TYPE", "") or environ.get("HTTP_CONTENTTYPE", ""),
        environ.get("HTTP_ACCEPT", ""),
        environ.get(_ATTRIBUTES, ""),
        cast(Mapping[str, str], EnvironHeaders(environ)),
    )


def _respond(reply: Reply, environ: Environ, record: Record, held: ExitStack) -> Response:
    body = reply.body
    if not isinstance(body, bytes):
        parts = held.enter_context(closing(body))  # type: ignore[type-var]
        if environ.get("SERVER_PROTOCOL") == "HTTP/1.0" and reply.length is None:
            body = b"".join(parts)  # without chunks, a stream that breaks would look like its end
        else:
            body = Sending(parts, reply.status, record)  # the response closes it
    response = _Answer(body, reply.status, content_type=reply.media_type)
    if reply.length is not None:
        response.content_length = reply.length
    if attributes := environ.get(_ATTRIBUTES):
        response.headers[ATTRIBUTES] = attributes  # SageMaker does not echo them by itself
    for name, text in reply.headers.items():
        if name.lower() != "content-length":  # a false one would keep the caller waiting
            response.headers[name] = text
    if not isinstance(reply.body, bytes):
        return response  # its length is not known, or is known already
    if compression.pays(reply.media_type, reply.body) and "Content-Encoding" not in reply.headers:
        response.vary.add("Accept-Encoding")
        if compression.takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
            response.set_data(compression.packed(reply.body))
            response.headers["Content-Encoding"] = "gzip"
    return response


class Sending:
    """The parts of an answer while they leave; the line of the log is written when they have.

    A failure breaks the connection: the status has left, and an end would look like success.
    """

    def __init__(self, parts: Iterator[bytes], status: int, record: Record) -> None:
        self._parts, self._record = parts, record
        self._ended = "left by the client"
        self.status_code, self.content_length = status, 0  # what is said in the log

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            part = next(self._parts)
        except StopIteration:
            self._ended = "whole"
            raise
        except Exception as error:
            self._ended = "broken"
            self._say(error)
            # gunicorn closes the connection, without the last chunk and without a word in the log.
            raise BrokenPipeError(errno.EPIPE, "the stream broke") from error
        self.content_length += len(part)
        return part

    def _say(self, error: Exception) -> None:
        """Say why it broke; what the caller did wrong, such as to leave, needs no traceback."""
        if isinstance(error, BadRequest | TooLarge):
            log.info("request %s: the stream broke: %s", self._record.request_id, error.logged)
        else:
            log.error("request %s: the stream broke.", self._record.request_id, exc_info=error)

    def close(self) -> None:
        self._record.facts["stream"] = self._ended
        self._record.write(self)


def _request_id(environ: Environ) -> str:
    """Return the caller's inference id where it has one, else a new one.

    Not one of `random`, which a script may seed.
    """
    given = environ.get(_INFERENCE_ID, "")
    return given if _IDENTITY.fullmatch(given) else secrets.token_hex(8)


def failure(error: Exception, record: Record, traced: bool = False) -> Response:
    """Make the response to a failure, whose cause goes into the line of `record`.

    The traceback of what is not the caller's fault goes into the log, unless it is `traced` there.
    """
    headers, request_id = {}, record.request_id
    if isinstance(error, HTTPException):
        status, code = error.code or 500, (error.name or "error").lower().replace(" ", "_")
        message = f"{request.method} {request.path} is not served here."
        hint = "POST /invocations, GET /ping, GET /."
        headers = {name: text for name, text in error.get_headers() if name == "Allow"}
        logged = message
    elif isinstance(error, ServeError):
        status, code, message, hint = error.status, error.code, error.message, error.hint
        logged = message if logs.shows_values() else error.logged
        if error.reason:
            telemetry.rejected(error.reason)
    else:
        status, code = ServeError.status, ServeError.code
        message, hint = "The server failed on this request.", "The log has the traceback."
        logged = message
    record.facts |= {"code": code, "message": logged[:MESSAGE_LIMIT]}
    if (cause := error.__cause__) is not None or not isinstance(error, ServeError | HTTPException):
        record.facts["raised"] = logs.raised(cause or error)
    if status >= 500 and not (traced or isinstance(error, Overloaded)):
        log.error("request %s: %s", request_id, logged, exc_info=error)
    if status == 503:
        headers["Retry-After"] = str(getattr(error, "retry_after", 1))
    if len(message) > MESSAGE_LIMIT:
        message = message[:MESSAGE_LIMIT] + "..."
    body = {"code": code, "message": message, "hint": hint, "request_id": request_id}
    return Response(dumps_anyway({"error": body}), status, headers, content_type=JSON)
