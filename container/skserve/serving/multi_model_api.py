"""HTTP of the multi-model mode: the five routes of SageMaker's contract, which exist only there.

They answer what Multi Model Server answers, because clients parse that; what goes wrong inside a
model is answered as for a single one. Beside them is what describes a model. A name is opaque: it
is one segment of the path as it was sent, and is decoded only then.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from flask import Flask, Response, request

from skserve.config import Config
from skserve.errors import BadRequest, Overloaded, Refused, ServeError
from skserve.formats.media_types import JSON
from skserve.multi_model.client import ModelClient
from skserve.multi_model.log_capture import shown
from skserve.scheduling.memory import Bodies
from skserve.serving import browser, openapi, responses
from skserve.serving.app import Wsgi, invocation, new_app, parameters, response_of
from skserve.serving.body import Environ, Incoming
from skserve.serving.metrics import Exposition
from skserve.serving.responses import Answer
from skserve.telemetry import Record

log = logging.getLogger("skserve")

# Models on a page of the list: the most, and where the caller does not say.
PAGE = 100

# Bytes of the body of a load, and characters of a name or url.
BODY_LIMIT = 64 << 10
TEXT_LIMIT = 2048

# Bytes of a name as a path carries it: the line of a call has 4,094 at most.
SEGMENT_LIMIT = 4000

# Loads and other work on models that one worker does at once; the rest is refused.
MANAGED = 64

_TARGET = "HTTP_X_AMZN_SAGEMAKER_TARGET_MODEL"

# The type that Multi Model Server gives beside the status.
TYPES = {
    400: "BadRequestException",
    404: "ModelNotFoundException",
    409: "ConflictStatusException",
    503: "ServiceUnavailableException",
    507: "InsufficientStorageException",
}

_INVOKE = re.compile(rb"POST /models/([^/?]+)/invoke")

View = Callable[..., Response]


def create_app(
    fleet: ModelClient, config: Config, bodies: Bodies, metrics: Exposition | None = None
) -> Flask:
    """Make the WSGI application of the multi-model mode over `fleet`."""
    app = new_app(fleet.ready, config, metrics)
    app.url_map.merge_slashes = False
    managed = _managed(threading.BoundedSemaphore(MANAGED))

    @app.get("/models")
    @managed
    def listed() -> Response:
        return _json(_listed(fleet, request.args))

    @app.post("/models")
    @managed
    def load() -> Response:
        with Incoming(request.environ, config).whole(bodies) as body:
            name, url = _asked(body)
        fleet.load(name, url)
        return _json({"status": "Workers scaled"})

    @app.get("/models/<segment>")
    @managed
    def described(segment: str) -> Response:
        name = _name(segment)
        return _json(_described(name, fleet.url(name)))

    @app.delete("/models/<segment>")
    @managed
    def unload(segment: str) -> Response:
        name = _name(segment)
        fleet.unload(name)
        return _json({"status": f'Model "{name}" unregistered'})

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        return _json(parameters(config))

    def called(environ: Environ, name: str) -> Response:
        facts = {"model": shown(name)}
        if target := environ.get(_TARGET):
            facts["target"] = shown(target)
        return invocation(environ, fleet.model(name), config, bodies, fault, **facts)

    @app.post("/models/<segment>/invoke")
    def invoke(segment: str) -> Response:
        return called(request.environ, _name(segment))

    @app.route("/models/<segment>/invoke", methods=["OPTIONS"])
    @managed
    def shown_model(segment: str) -> Response:
        return browser.described(fleet.describe(_name(segment)))

    @app.get("/models/<segment>/openapi.json")
    @managed
    def documented(segment: str) -> Response:
        name = _name(segment)
        return browser.described(openapi.of_named_model(name, fleet.describe(name)))

    browser.add_page(app, config, lambda: _listed(fleet, request.args))
    browser.add_openapi(app, openapi.of_models)
    app.wsgi_app = _on_raw_path(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _on_raw_path(wsgi: Wsgi) -> Wsgi:
    """Match the path as it was sent, so that `%2F` in a name is no slash."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        raw = str(environ.get("RAW_URI", "")).partition("?")[0]
        if not raw.startswith("/"):  # a proxy's form, http://host/path
            raw = "/" + raw.partition("://")[2].partition("/")[2]
        if raw != "/":
            # Bytes beyond ASCII, which no client should send, as if they had been escaped.
            environ["PATH_INFO"] = (
                raw if raw.isascii() else quote(raw.encode("latin-1"), safe=_ASCII)
            )
        return wsgi(environ, start_response)

    return application


_ASCII = "".join(map(chr, range(128)))


def _managed(places: threading.BoundedSemaphore) -> Callable[[View], View]:
    """Let a view fail as Multi Model Server does, and bound how many run."""

    def decorate(view: View) -> View:
        @wraps(view)
        def bounded(**arguments: str) -> Response:
            if not places.acquire(blocking=False):
                return _failed(Overloaded("Too many models are loaded or unloaded at once."))
            try:
                return view(**arguments)
            except Exception as error:
                return _failed(error)
            finally:
                places.release()

        return bounded

    return decorate


def fault(error: Exception, record: Record) -> Answer:
    """Make the answer to a failed call: whether there is such a model is the contract's."""
    if isinstance(error, Refused):
        record.facts |= {"code": error.code, "message": error.logged}
        return _refused(error)
    # The traceback of what failed in the model is in the log of its process.
    return responses.fault(error, record, traced=isinstance(error, ServeError))


def _failed(error: Exception) -> Response:
    if isinstance(error, ServeError):
        return response_of(_refused(error))
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return response_of(
        _refused(ServeError("The server failed on this request.", "The log has the traceback."))
    )


def _refused(error: ServeError) -> Answer:
    """Make the answer that Multi Model Server would give."""
    status, message = error.status, " ".join(filter(None, (error.message, error.hint)))
    kind = TYPES.get(status, "InternalServerException" if status >= 500 else TYPES[400])
    body = json.dumps({"code": status, "type": kind, "message": message}) + "\n"
    headers = [("Content-Type", JSON)]
    if status == 503:
        headers.append(("Retry-After", "1"))
    return Answer(status, body.encode(), headers)


def _json(answer: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(answer) + "\n", status, content_type=JSON)


def _listed(fleet: ModelClient, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of the models that are loaded, as `asked` by limit and token."""
    after, limit = _token(asked.get("next_page_token")), _limit(asked.get("limit"))
    page, more = fleet.page(after, limit)
    answer: dict[str, Any] = {"models": [_described(name, url) for name, url in page]}
    return answer | ({"nextPageToken": _token_after(page[-1][0])} if more else {})


def _described(name: str, url: str) -> dict[str, str]:
    return {"modelName": name, "modelUrl": url}


def invoked(line: bytes) -> str | None:
    """Return the model that a request calls; `line` is its method and its raw path."""
    call = _INVOKE.fullmatch(line)
    return _name(call[1]) if call else None


def _name(segment: str | bytes) -> str:
    return unquote_to_bytes(segment).decode(errors="surrogateescape")


def _asked(body: bytes) -> tuple[str, str]:
    """Return the name and url that a load asks for. Raises BadRequest."""
    if len(body) > BODY_LIMIT:
        raise BadRequest(f"The body has {len(body):,} bytes; the limit is {BODY_LIMIT:,}.")
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.", _EXAMPLE) from None
    name, url = _text(asked, "model_name"), _text(asked, "url")
    size = len(quote(name.encode(errors="surrogateescape"), safe=""))
    if size > SEGMENT_LIMIT:
        raise BadRequest(
            f"model_name has {size:,} bytes as a path carries it; the limit is {SEGMENT_LIMIT:,}.",
            "Choose a shorter name.",
        )
    return name, url


def _text(asked: object, key: str) -> str:
    value = asked.get(key) if isinstance(asked, dict) else None
    if not isinstance(value, str) or not value:
        raise BadRequest(f"The body has no {key}.", _EXAMPLE)
    if len(value) > TEXT_LIMIT:
        raise BadRequest(f"{key} has {len(value):,} characters; the limit is {TEXT_LIMIT:,}.")
    try:  # as a path would carry it
        return value.encode(errors="surrogateescape").decode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise BadRequest(f"{key} holds half a character, which no path can carry.") from None


_EXAMPLE = 'Send {"model_name": "NAME", "url": "/opt/ml/models/NAME/model"}.'


def _limit(text: str | None) -> int:
    """Return how many models a page may hold: as in Multi Model Server 100, or fewer if asked."""
    try:
        limit = int(text) if text else PAGE
    except ValueError:
        raise BadRequest(f"limit is {text!r:.50}; expected a whole number.") from None
    return limit if 0 < limit < PAGE else PAGE


def _token_after(name: str) -> str:
    """Return the token of the page after `name`: it holds whatever is loaded in between."""
    text = name.encode(errors="surrogatepass")
    return base64.urlsafe_b64encode(text).decode()


def _token(text: str | None) -> str | None:
    if not text:
        return None
    try:
        return base64.b64decode(text, b"-_", validate=True).decode(errors="surrogatepass")
    except (binascii.Error, ValueError):
        raise BadRequest("next_page_token is not one that this server gave.") from None
