"""The routes of a server as OpenAPI 3.1, with the columns, classes and methods of its model.

Everything is made of what `GET /` says of the model. A path stands here whether or not a server has
it: a document holds those that are `served`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from skserve import __version__
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NDJSON
from skserve.serving.openapi_schemas import (
    ERROR,
    MANY_ERROR,
    Described,
    Json,
    reads,
    schemas,
    writes,
)

_TEXTS = (CSV, JSON_LINES, NDJSON)
_ANY = "*/*"

_OBJECT: Json = {"type": "object"}
_STRING: Json = {"type": "string"}

# What a status other than 200 means.
_FAILURES = {
    400: "The body, its shape or a value in it is not what the model takes.",
    406: "Accept names no format that is written here.",
    413: "The body, or the answer it asks for, is over a limit.",
    415: "The format, charset or encoding of the body is not read here.",
    500: "The model, its script or the server failed.",
    503: "The model is still loading, or as many requests wait as may.",
    504: "It took too long.",
}
_MANY_FAILURES = {
    400: "The request is not understood, or the model cannot be loaded.",
    404: "No model of that name is loaded.",
    409: "A model of that name is loaded already.",
    413: "The body is over a limit.",
    500: "The server failed.",
    503: "Too many models are loaded or unloaded at once.",
    504: "It took too long.",
    507: "There is not enough memory for the model.",
}

_NO_FILE = {404: "There is no such file."}

_MODEL: Json = {
    "type": "object",
    "required": ["modelName", "modelUrl"],
    "properties": {"modelName": _STRING, "modelUrl": _STRING},
}
_MODELS: Json = {
    "type": "object",
    "required": ["models"],
    "properties": {"models": {"type": "array", "items": _MODEL}, "nextPageToken": _STRING},
}
_DONE: Json = {"type": "object", "required": ["status"], "properties": {"status": _STRING}}
_ASKED: Json = {
    "type": "object",
    "required": ["model_name", "url"],
    "properties": {"model_name": _STRING, "url": _STRING},
}


def of_model(model: Described, served: Iterable[str]) -> Json:
    """Return the document of a server of one model; `model` is what `GET /` says of it."""
    described = _operation("The model", {JSON: _OBJECT})
    first = {_ANY: {}} if "execution_parameters_fn" in model["script"] else {JSON: _OBJECT}
    paths = {
        "/": {"get": _operation("The model", {JSON: _OBJECT, "text/html": _STRING})}
        | {"options": described},
        "/ping": _ping() | {"options": described},
        "/invocations": {"post": _invoke(model, _failed(_FAILURES)), "options": described},
        "/execution-parameters": {
            "get": _operation("What batch transform asks first", first, _failed(_FAILURES))
        },
    }
    return _document(model["model"], paths, served, schemas(model))


def of_named_model(name: str, model: Described) -> Json:
    """Return the document of one of many models; `model` is what it says of itself."""
    path = f"/models/{quote(name.encode(errors='surrogateescape'), safe='')}/invoke"
    failed = _failed(_MANY_FAILURES | _FAILURES, "ModelError")
    paths = {
        path: {
            "post": _invoke(model, failed),
            "options": _operation("The model", {JSON: _OBJECT}, failed),
        }
    }
    return _document(model["model"], paths, paths, schemas(model) | _many_errors())


def of_models(served: Iterable[str]) -> Json:
    """Return the document of a server of many models, whichever are loaded."""
    failed = _failed(_MANY_FAILURES, "ManyError")
    called = _failed(_MANY_FAILURES | _FAILURES, "ModelError")
    named = {"parameters": [_parameter("path", "name", "A name, escaped as one segment.")]}
    page = [
        _parameter("query", "limit", "The most models on a page, 100 or fewer."),
        _parameter("query", "next_page_token", "The nextPageToken of the page before."),
    ]
    first = {"get": _operation("What batch transform asks first", {JSON: _OBJECT})}
    paths = {
        "/": {
            "get": _operation(
                "The models", {JSON: _MODELS, "text/html": _STRING}, _failed(_FAILURES)
            )
        },
        "/ping": _ping(),
        "/execution-parameters": first,
        "/models": {
            "get": _operation("The models", {JSON: _MODELS}, failed) | {"parameters": page},
            "post": _operation("Load a model", {JSON: _DONE}, failed)
            | {"requestBody": _body({JSON: {"schema": _ASKED}})},
        },
        "/models/{name}": named
        | {
            "get": _operation("Where a model was loaded from", {JSON: _MODEL}, failed),
            "delete": _operation("Unload a model", {JSON: _DONE}, failed),
        },
        "/models/{name}/invoke": named
        | {
            "post": _operation("Call a model", {_ANY: {}}, called)
            | {"requestBody": _body({_ANY: {}})},
            "options": _operation("The model", {JSON: _OBJECT}, called),
        },
        "/models/{name}/openapi.json": named
        | {"get": _operation("The model's document", {JSON: _OBJECT}, called)},
    }
    return _document("Many models", paths, served, _many_errors())


def _document(title: str, paths: Json, served: Iterable[str], named: Json) -> Json:
    own = {
        "/openapi.json": {"get": _operation("This document", {JSON: _OBJECT})},
        "/metrics": {"get": _operation("Figures for Prometheus", {"text/plain": _STRING})},
        "/page/{name}": {
            "parameters": [_parameter("path", "name", "A file of the page.")],
            "get": _operation("A file of the page", {_ANY: {}}, _failed(_NO_FILE)),
        },
    }
    known = set(map(_shape, served))
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": {path: item for path, item in (paths | own).items() if _shape(path) in known},
        "components": {"schemas": named},
    }


def _shape(path: str) -> str:
    """Return a path without the names of its parameters, which Flask writes between < and >."""
    return re.sub(r"<\w+>|{\w+}", "{}", path)


# ------------------------------------------------------------------------------------ operations


def _invoke(model: Described, failed: Json) -> Json:
    """The call itself: every format of the model, its rows and its answers."""
    texts = {"schema": _STRING}
    if reads(model):
        taken: Json = {_ANY: {}}
    else:
        taken = {one: texts if one in _TEXTS else {} for one in model["content_types"]}
        taken[JSON] = {"schema": {"$ref": "#/components/schemas/Body"}}
    if writes(model):
        answers: Json = {_ANY: {}}
        failed = failed | {"default": {"description": "A status that the script chose."}}
    else:
        answers = {one: _STRING if one in _TEXTS else {} for one in model["accept"]}
        answers[JSON] = {"$ref": "#/components/schemas/Answer"}
    headers = [
        _parameter("header", "X-Amzn-SageMaker-Custom-Attributes", "Such as method=NAME."),
        _parameter("header", "X-Amzn-SageMaker-Inference-Id", "The request id in log and errors."),
    ]
    return _operation(f"Ask {model['method']}", answers, failed) | {
        "requestBody": _body(taken),
        "parameters": headers,
    }


def _ping() -> Json:
    """Whether a prediction could run; the body is empty."""
    answers = {
        "200": {"description": "A prediction could run."},
        "503": {"description": "None could run yet."},
    }
    return {
        method: {"summary": "Whether a prediction could run", "responses": answers}
        for method in ("get", "head", "post")
    }


def _operation(summary: str, answers: Json, failed: Json | None = None) -> Json:
    """Make an operation that answers 200 with one of the media types in `answers`."""
    content = {name: {"schema": schema} if schema else {} for name, schema in answers.items()}
    responses = {"200": {"description": "The answer.", "content": content}}
    return {"summary": summary, "responses": responses | (failed or {})}


def _failed(statuses: dict[int, str], schema: str = "Error") -> Json:
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        str(status): {"description": says, "content": content} for status, says in statuses.items()
    }


def _many_errors() -> Json:
    one: list[Any] = [{"$ref": f"#/components/schemas/{name}"} for name in ("Error", "ManyError")]
    return {"Error": ERROR, "ManyError": MANY_ERROR, "ModelError": {"anyOf": one}}


def _body(content: Json) -> Json:
    return {"required": True, "content": content}


def _parameter(where: str, name: str, says: str) -> Json:
    required = {"required": True} if where == "path" else {}
    return {"in": where, "name": name, "description": says, "schema": _STRING} | required
