"""HTTP: the routes, and the one place where replies and errors become responses.

Only this module knows Flask. A `ServeError` becomes `{"error": {...}}` under its status, anything
else a 500 whose traceback stays in the log.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from flask import Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import ClientDisconnected, HTTPException
from werkzeug.routing import MapAdapter

from skserve import compression, telemetry
from skserve.bounds import Bodies
from skserve.codec import Call, Reply
from skserve.config import Config
from skserve.encoders import dumps_anyway
from skserve.errors import (
    BadRequest,
    Overloaded,
    ServeError,
    TooLarge,
    UnsupportedMediaType,
)
from skserve.media import JSON
from skserve.registry import Registry

log = logging.getLogger("skserve")

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"

# The same as WSGI spells them. Looking up a header by its name takes ten times as long.
_ATTRIBUTES, _INFERENCE_ID = (
    "HTTP_" + name.upper().replace("-", "_") for name in (ATTRIBUTES, INFERENCE_ID)
)
_IDENTITY = re.compile(r"[!-~][ -~]{0,63}")

# A key of the WSGI environment: the worker's poller runs this request itself.
HERE = "skserve.here"

# A caller sees an error as ModelError.OriginalMessage, cut at 2,048 characters: this leaves room
# for the JSON around the sentence.
MESSAGE_LIMIT = 1400


class _NoSession(SessionInterface):
    """Nobody signs in here: one empty session for all requests."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none


class _Flask(Flask):
    """Flask without the parts of its dispatch that only pages for people need.

    The host and the subdomain choose no route here, and nothing builds a URL; making ready for
    both, twice a request, is a fifth of the time that Flask takes.
    """

    session_interface = _NoSession()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None
        environ = request.environ
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        return MapAdapter(self.url_map, "skserve", "/", "", "http", path, method)


def create_app(registry: Registry, config: Config, bodies: Bodies) -> Flask:
    """Make the WSGI application over `registry`; `bodies` bounds the memory of what is read."""
    app = _Flask("skserve", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # Flask's own answer is an empty HTML page

    @app.route("/ping", methods=["GET", "HEAD", "POST"])
    def ping() -> Response:
        return Response(status=200 if registry.ready() else 503)

    @app.route("/invocations", methods=["POST"])
    def invocations() -> Response:
        environ = request.environ
        record = telemetry.begin(_request_id(environ))
        here = environ.get(HERE, False)
        held = ExitStack()
        try:
            if here and "HTTP_CONTENT_ENCODING" not in environ:  # small, and whole already
                body = environ["wsgi.input"].read()
            else:
                held.enter_context(registry.place())
                body = held.enter_context(_body(bodies, config.max_body))
            record.facts["bytes_in"] = len(body)
            response = _respond(registry.invoke(_call(body, environ), here), environ)
        except Exception as error:
            response = _failed(error, record.request_id)
        response.call_on_close(held.close)
        record.write(response)
        return response

    @app.route("/", methods=["GET", "HEAD"])
    @app.route("/", methods=["OPTIONS"])
    @app.route("/ping", methods=["OPTIONS"])
    @app.route("/invocations", methods=["OPTIONS"])
    def describe() -> Response:
        return Response(dumps_anyway(registry.describe()), content_type=JSON)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return _failed(error, _request_id(request.environ))

    return app


@contextmanager
def _body(bodies: Bodies, limit: int) -> Iterator[bytes]:
    """Read the request's body, at most `limit` bytes, and count it while it is worked on."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", *compression.GZIP):
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding} is not read here.", "Send gzip, or the body as it is."
        )
    gzipped = encoding in compression.GZIP
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(f"{length:,}", limit)
    # werkzeug cuts a chunked body at its limit without a word: one byte more tells.
    request.max_content_length = limit + 1
    # A chunked or packed body does not say its size, so it counts as the largest that may come.
    with bodies.hold(limit if length is None or gzipped else length):
        try:
            if length is None:
                body = request.get_data(cache=False)
            else:  # in one go: werkzeug takes small steps, and gunicorn copies all it holds at each
                body = request.environ["wsgi.input"].read(length)
        except (ClientDisconnected, OSError):
            body = None
        except (HTTPException, MemoryError):
            raise
        except Exception as error:  # gunicorn's own words for chunks that are none
            raise BadRequest(
                "The body is not chunked as HTTP says.", "Send it again, or with a Content-Length."
            ) from error
        if body is None or len(body) < (length or 0):
            raise BadRequest("The body ended before it was whole.", "Send it again.")
        if len(body) > limit:
            raise _too_large(f"more than {limit:,}", limit)
        yield compression.unpacked(body, limit) if gzipped else body


def _too_large(size: str, limit: int) -> TooLarge:
    return TooLarge(
        f"The body has {size} bytes; the limit is {limit:,}.",
        "Send fewer rows at a time, or raise SAGEMAKER_MAX_PAYLOAD_IN_MB.",
    )


def _call(body: bytes, environ: dict[str, Any]) -> Call:
    return Call(
        body,
        environ.get("CONTENT_TYPE", "") or environ.get("HTTP_CONTENTTYPE", ""),
        environ.get("HTTP_ACCEPT", ""),
        environ.get(_ATTRIBUTES, ""),
        cast(Mapping[str, str], request.headers),
    )


def _respond(reply: Reply, environ: dict[str, Any]) -> Response:
    response = Response(reply.body, reply.status, content_type=reply.media_type)
    if attributes := environ.get(_ATTRIBUTES):
        response.headers[ATTRIBUTES] = attributes  # SageMaker does not echo them by itself
    if reply.headers:
        response.headers.update(reply.headers)
    if compression.pays(reply.media_type, reply.body) and "Content-Encoding" not in reply.headers:
        response.vary.add("Accept-Encoding")
        if compression.takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
            response.set_data(compression.packed(reply.body))
            response.headers["Content-Encoding"] = "gzip"
    return response


def _request_id(environ: dict[str, Any]) -> str:
    """Return the caller's inference id where it has one, else a new one."""
    given = environ.get(_INFERENCE_ID, "")
    return given if _IDENTITY.fullmatch(given) else f"{random.getrandbits(64):016x}"


def _failed(error: Exception, request_id: str) -> Response:
    """Make the response to a failure; what is not the caller's fault goes into the log."""
    headers = {}
    if isinstance(error, HTTPException):
        status, code = error.code or 500, (error.name or "error").lower().replace(" ", "_")
        message = f"{request.method} {request.path} is not served here."
        hint = "POST /invocations, GET /ping, GET /."
        headers = {name: text for name, text in error.get_headers() if name == "Allow"}
    elif isinstance(error, ServeError):
        status, code, message, hint = error.status, error.code, error.message, error.hint
    else:
        status, code = ServeError.status, ServeError.code
        message, hint = "The server failed on this request.", "The log has the traceback."
    if status >= 500 and not isinstance(error, Overloaded):
        log.error("request %s: %s", request_id, message, exc_info=error)
    if status == 503:
        headers["Retry-After"] = "1"
    if len(message) > MESSAGE_LIMIT:
        message = message[:MESSAGE_LIMIT] + "..."
    body = {"code": code, "message": message, "hint": hint, "request_id": request_id}
    return Response(dumps_anyway({"error": body}), status, headers, content_type=JSON)
