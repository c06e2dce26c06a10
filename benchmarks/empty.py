"""Our server with an application that does nothing: the floor of Flask under our gunicorn.

usage: python -m benchmarks.empty serve

Everything but the application is ours: settings, worker class, model. Its one view answers every
request alike, in a thread, as all that goes to Flask.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from flask import Flask, Response

from skserve import __main__
from skserve.serving import single_model_app


def create_app(*_: Any, **__: Any) -> Flask:
    app = Flask("empty", static_folder=None)

    @app.route("/invocations", methods=["POST"])
    def invocations() -> Response:
        return Response(b"[0]", content_type="application/json")

    return app


if __name__ == "__main__":
    single_model_app.create_app = create_app  # type: ignore[attr-defined]
    __main__.end(__main__.main(sys.argv[1:], os.environ))
