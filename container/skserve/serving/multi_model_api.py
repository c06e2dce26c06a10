"""HTTP of the multi-model mode: the five routes of SageMaker's contract, which exist only there.

They answer what Multi Model Server answers, because clients parse that; what goes wrong inside a
model is answered as for a single one. Beside them is what describes a model. A name is opaque: it
is one segment of the path as it was sent, and is decoded only then.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, request

from skserve import telemetry
from skserve.config import Config
from skserve.errors import Overloaded, Refused, ServeError
from skserve.formats.media_types import JSON
from skserve.multi_model.client import ModelClient
from skserve.multi_model.log_capture import shown
from skserve.scheduling.bodies import Bodies
from skserve.serving import description_routes, openapi, responses
from skserve.serving.body import Environ, Incoming
from skserve.serving.invocation import Wsgi, invocation, parameters, request_id, response_of
from skserve.serving.management import limit_of, load_of, name_of, token_after, token_of
from skserve.serving.metrics import Exposition
from skserve.serving.responses import Answer
from skserve.serving.routes import new_app
from skserve.telemetry import Record

log = logging.getLogger("skserve")

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
# What makes a view fail as Multi Model Server does, and bounds how many run.
Managed = Callable[[View], View]


def create_app(
    client: ModelClient, config: Config, bodies: Bodies, metrics: Exposition | None = None
) -> Flask:
    """Make the WSGI application of the multi-model mode over `client`."""
    app = new_app(client.ready, config, metrics)
    app.url_map.merge_slashes = False
    managed = _managed(threading.BoundedSemaphore(MANAGED))
    _add_management(app, client, managed, lambda: Incoming(request.environ, config).whole(bodies))
    _add_models(app, client, managed)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        return _json(parameters(config))

    @app.post("/models/<segment>/invoke")
    def invoke(segment: str) -> Response:
        name = name_of(segment)
        facts = {"model": shown(name)}
        if target := request.environ.get(_TARGET):
            facts["target"] = shown(target)
        return invocation(request.environ, client.model(name), config, bodies, fault, **facts)

    description_routes.add_page(app, config, lambda: _listed(client, request.args))
    description_routes.add_openapi(app, openapi.of_models)
    app.wsgi_app = _on_raw_path(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _add_management(
    app: Flask,
    client: ModelClient,
    managed: Managed,
    body_of_request: Callable[[], AbstractContextManager[bytes]],
) -> None:
    """Add the routes that list, load, describe and unload."""

    @app.get("/models")
    @managed
    def listed() -> Response:
        return _json(_listed(client, request.args))

    @app.post("/models")
    @managed
    def load() -> Response:
        with body_of_request() as body:
            name, url = load_of(body)
        client.load(name, url)
        return _json({"status": "Workers scaled"})

    @app.get("/models/<segment>")
    @managed
    def described(segment: str) -> Response:
        name = name_of(segment)
        return _json(_described(name, client.url(name)))

    @app.delete("/models/<segment>")
    @managed
    def unload(segment: str) -> Response:
        name = name_of(segment)
        client.unload(name)
        return _json({"status": f'Model "{name}" unregistered'})


def _add_models(app: Flask, client: ModelClient, managed: Managed) -> None:
    """Add the routes that say what a model takes and answers."""

    @app.route("/models/<segment>/invoke", methods=["OPTIONS"])
    @managed
    def shown_model(segment: str) -> Response:
        return description_routes.described(client.describe(name_of(segment)))

    @app.get("/models/<segment>/openapi.json")
    @managed
    def documented(segment: str) -> Response:
        name = name_of(segment)
        return description_routes.described(openapi.of_named_model(name, client.describe(name)))


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


def _managed(places: threading.BoundedSemaphore) -> Managed:
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
        return _refused(error, record)
    # The traceback of what failed in the model is in the log of its process.
    return responses.fault(error, record, traced=isinstance(error, ServeError))


def _failed(error: Exception) -> Response:
    """Make the response to other work on models that failed, and log its cause."""
    record = telemetry.begin(request_id(request.environ), False)
    if not isinstance(error, ServeError):
        log.error("request %s: %s failed", record.request_id, request.path, exc_info=error)
        error = ServeError("The server failed on this request.", "The log has the traceback.")
    answer = _refused(error, record)
    record.write(answer)
    return response_of(answer)


def _refused(error: ServeError, record: Record) -> Answer:
    """Make the answer that Multi Model Server would give, with the id of the request."""
    record.facts |= {"code": error.code, "message": error.logged}
    status, message = error.status, " ".join(filter(None, (error.message, error.hint)))
    kind = TYPES.get(status, "InternalServerException" if status >= 500 else TYPES[400])
    said = {"code": status, "type": kind, "message": message, "request_id": record.request_id}
    body = json.dumps(said) + "\n"
    headers = [("Content-Type", JSON)]
    if status == 503:
        headers.append(("Retry-After", "1"))
    return Answer(status, body.encode(), headers)


def _json(answer: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(answer) + "\n", status, content_type=JSON)


def _listed(client: ModelClient, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of the models that are loaded, as `asked` by limit and token."""
    after, limit = token_of(asked.get("next_page_token")), limit_of(asked.get("limit"))
    page, more = client.page(after, limit)
    answer: dict[str, Any] = {"models": [_described(name, url) for name, url in page]}
    return answer | ({"nextPageToken": token_after(page[-1][0])} if more else {})


def _described(name: str, url: str) -> dict[str, str]:
    return {"modelName": name, "modelUrl": url}


def invoked(line: bytes) -> str | None:
    """Return the model that a request calls; `line` is its method and its raw path."""
    call = _INVOKE.fullmatch(line)
    return name_of(call[1]) if call else None
