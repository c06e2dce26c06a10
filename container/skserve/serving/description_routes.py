"""What people and programs are shown of a server: the page, its files, and the OpenAPI.

The page is plain files beside this module. It loads nothing from elsewhere, holds no inline script
or style, and asks the routes that every other caller has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import NotFound

from skserve.config import Config
from skserve.formats.json_text import dumps_anyway
from skserve.formats.media_types import JSON

_FOLDER = Path(__file__).parent / "page"
_HTML = "text/html"
_TYPES = {".html": _HTML, ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for each time, and answered 304 by its ETag
}


def add_page(app: Flask, config: Config, describe: Callable[[], Any]) -> None:
    """Let `app` answer GET / with what `describe` returns: as JSON, or to a browser as the page."""

    @app.route("/", methods=["GET", "HEAD"])
    def root() -> Response:
        response = _file("index.html") if config.page and _browser() else described(describe())
        response.vary.add("Accept")
        return response

    if config.page:
        app.add_url_rule("/page/<name>", view_func=_file)


def add_openapi(app: Flask, document: Callable[[set[str]], Any]) -> None:
    """Let `app` answer GET /openapi.json with the document of the paths that it serves."""

    @app.get("/openapi.json")
    def openapi() -> Response:
        return described(document({str(rule) for rule in app.url_map.iter_rules()}))


def described(description: Any) -> Response:
    """Return what describes a model as JSON, whatever the model has put into it."""
    return Response(dumps_anyway(description), content_type=JSON)


def _browser() -> bool:
    """Whether the caller would rather have HTML: curl and programs say `*/*`, or nothing."""
    return request.accept_mimetypes.best_match([JSON, _HTML]) == _HTML


def _file(name: str) -> Response:
    body, etag = _read(name)
    media_type = _TYPES[Path(name).suffix]
    response = Response(body, headers=HEADERS, content_type=f"{media_type}; charset=utf-8")
    response.set_etag(etag)
    response.make_conditional(request)
    return response


@cache
def _read(name: str) -> tuple[bytes, str]:
    """Return a file of the page and its ETag. Raises NotFound."""
    if name not in {path.name for path in _FOLDER.iterdir()}:
        raise NotFound
    body = (_FOLDER / name).read_bytes()
    return body, sha256(body).hexdigest()[:16]
