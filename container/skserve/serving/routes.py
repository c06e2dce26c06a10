"""The Flask application: the routes of one model, and those that many models have as well.

A `ServeError` becomes `{"error": {...}}` under its status, anything else a 500 whose traceback
stays in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from skserve import telemetry
from skserve.config import Config
from skserve.formats.media_types import JSON
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.local_model import Registry
from skserve.serving import description_routes, openapi
from skserve.serving.invocation import invocation, parameters, request_id, respond, response_of
from skserve.serving.metrics import CONTENT_TYPE, Exposition
from skserve.serving.responses import (
    error_body,
    fault,
)
from skserve.telemetry import Record

log = logging.getLogger("skserve")


class _Flask(Flask):
    """Flask that routes by path and method alone, whatever Host or Upgrade say."""

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None
        path, method = request.environ["PATH_INFO"], request.environ["REQUEST_METHOD"]
        return MapAdapter(self.url_map, "skserve", "/", "", "http", path, method)


def create_app(
    registry: Registry, config: Config, bodies: Bodies, metrics: Exposition | None = None
) -> Flask:
    """Make the WSGI application over `registry`; `bodies` bounds the memory of what is read."""
    app = new_app(registry.ready, config, metrics)

    @app.route("/invocations", methods=["POST"])
    def invocations() -> Response:
        return invocation(request.environ, registry, config, bodies)

    @app.route("/execution-parameters", methods=["GET"])
    def execution_parameters() -> Response:
        environ = request.environ
        reply = registry.execution_parameters(parameters(config))
        with ExitStack() as held:
            return respond(reply, environ, telemetry.begin(request_id(environ), False), held)

    @app.route("/", methods=["OPTIONS"])
    @app.route("/ping", methods=["OPTIONS"])
    @app.route("/invocations", methods=["OPTIONS"])
    def describe() -> Response:
        return description_routes.described(registry.describe())

    description_routes.add_page(app, config, registry.describe)
    description_routes.add_openapi(
        app, lambda served: openapi.of_model(registry.describe(), served)
    )
    return app


def new_app(ready: Callable[[], bool], config: Config, metrics: Exposition | None) -> Flask:
    """Make an application that answers /ping and /metrics, and every failure in our words."""
    app = _Flask("skserve", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # Flask's own answer is an empty HTML page

    @app.route("/ping", methods=["GET", "HEAD", "POST"])
    def ping() -> Response:
        return Response(status=200 if ready() else 503)

    if metrics is not None:
        app.add_url_rule(
            config.metrics_path,
            "metrics",
            lambda: Response(metrics.text(), content_type=CONTENT_TYPE),
        )

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        record = telemetry.begin(request_id(request.environ), False)
        response = failure(error, record)
        record.write(response)
        return response

    return app


def failure(error: Exception, record: Record) -> Response:
    """Make the response to a failure, whose cause goes into the line of `record`."""
    if not isinstance(error, HTTPException):
        return response_of(fault(error, record))
    code = (error.name or "error").lower().replace(" ", "_")
    message = f"{request.method} {request.path} is not served here."
    record.facts |= {"code": code, "message": message}
    hint = "POST /invocations, GET /ping, GET /."
    body = error_body(code, message, hint, record.request_id)
    headers = {name: text for name, text in error.get_headers() if name == "Allow"}
    return Response(body, error.code, headers, content_type=JSON)
