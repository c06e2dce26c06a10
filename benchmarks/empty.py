"""Our server with an application that does nothing: the floor of Flask under our gunicorn.

usage: python -m benchmarks.empty serve

Everything but the application is ours: settings, worker class, model. Its one view answers every
request alike, and the worker is told that it is always cheap, as it finds out about a quick model.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from flask import Flask, Response

from skserve import __main__
from skserve.serving import server


def create_app(*_: Any, **__: Any) -> Flask:
    app = Flask("empty", static_folder=None)

    @app.route("/invocations", methods=["POST"])
    def invocations() -> Response:
        return Response(b"[0]", content_type="application/json")

    return app


if __name__ == "__main__":
    server.create_app = create_app  # type: ignore[attr-defined]
    server._Gunicorn.cheap = lambda *_: True  # type: ignore[assignment, method-assign]
    __main__.end(__main__.main(sys.argv[1:], os.environ))
