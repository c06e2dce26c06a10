"""Checks of the multi-model mode: the user's model loaded, listed, called and unloaded."""

from __future__ import annotations

import json
from pathlib import Path

from skserve.formats.media_types import JSON
from skserve.selftest import answers
from skserve.selftest.bodies import write_json
from skserve.selftest.process import Server, StartFailed
from skserve.selftest.verdict import Verdict, failed, passed
from skserve.selftest.walk import ATTRIBUTES, Walk

NAME = "selftest/one model"  # a slash and a blank, which a path has to escape
_PATH = "/models/selftest%2Fone%20model"


def multi_model(walk: Walk) -> Verdict | None:
    """Walk the five calls on a server of its own."""
    if not walk.given.multi_model:
        return None
    folder = walk.given.model_dir.resolve()
    environ = {
        **walk.environ,
        "SAGEMAKER_MULTI_MODEL": "true",
        "SKSERVE_MODEL_ROOT": str(folder.parent),
    }
    server = Server(folder, environ, walk.folder / "multi-model.log")
    try:
        server.wait()
        wrong = _walked(walk, server, folder)
        status, seconds = server.stop()
    except StartFailed as error:
        return failed(f"The server of many models does not start: {error}", "Read its log.")
    finally:
        server.end()
    wrong = wrong or ("" if status == 0 else f"after SIGTERM the status is {status}")
    if wrong:
        return failed(f"Multi-model: {wrong}.", "docs/70-multi-model.md has the calls.")
    return passed(f"Loaded, listed, called, unloaded; ended {seconds:.1f} s after SIGTERM.")


def _walked(walk: Walk, server: Server, folder: Path) -> str:
    """Make the calls one after another; say what was wrong first."""
    load = json.dumps({"model_name": NAME, "url": str(folder)}).encode()
    for method, path, body, status in (
        ("GET", _PATH, b"", 404),
        ("POST", "/models", load, 200),
        ("POST", "/models", load, 409),
        ("GET", "/models", b"", 200),
        ("GET", _PATH, b"", 200),
    ):
        answer = server.client.ask(method, path, body, {"Content-Type": JSON})
        if answer.status != status:
            return f"{method} {path} is answered {answer.said}, expected {status}"
        if path == "/models" and method == "GET" and NAME not in answer.body.decode():
            return f"the list has no {NAME}: {answer.said}"
    if wrong := _called(walk, server):
        return wrong
    for status in (200, 404):
        answer = server.client.ask("DELETE", _PATH)
        if answer.status != status:
            return f"DELETE {_PATH} is answered {answer.said}, expected {status}"
    return ""


def _called(walk: Walk, server: Server) -> str:
    """Compare the answer of the model among many with its answer alone."""
    if walk.sample is None:
        return ""
    body, kind = walk.sample if walk.table is None else (write_json(walk.table), JSON)
    headers = {"Content-Type": kind, "Accept": JSON}
    if not walk.script:
        headers[ATTRIBUTES] = f"method={walk.method}"
    answer = server.client.ask("POST", f"{_PATH}/invoke", body, headers)
    if walk.table is None:
        return "" if answer.status == 200 else f"the call is answered {answer.said}"
    return answers.wrong(answer, walk.answers)
