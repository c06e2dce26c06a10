"""Our server with an application that does nothing: the floor of Flask under our gunicorn.

usage: python -m benchmarks.empty serve

Everything but the application is ours: settings, worker class, model, slots. Its one view answers
every request with what the model says to the first row of iris.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from flask import Flask, Response

from skserve import __main__, server


def create_app(*_: Any, **__: Any) -> Flask:
    app = Flask("empty", static_folder=None)

    @app.route("/invocations", methods=["POST"])
    def invocations() -> Response:
        return Response(b"[0]", content_type="application/json")

    return app


if __name__ == "__main__":
    server.create_app = create_app  # type: ignore[assignment]
    __main__.end(__main__.main(sys.argv[1:], os.environ))
