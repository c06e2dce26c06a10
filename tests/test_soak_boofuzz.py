"""boofuzz over every route and method: what comes back is HTTP and no 500, and nothing is lost."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, serving
from tests.many_models import ManyModels, children, many_models

boofuzz = pytest.importorskip("boofuzz", reason="boofuzz is in requirements/fuzz.txt")

pytestmark = pytest.mark.soak

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "QUERY")
ONE_MODEL = ("/", "/ping", "/invocations", "/execution-parameters", "/metrics", "/openapi.json")
ONE_MODEL += ("/page/main.js", "/nowhere")
MANY_MODELS = ("/models", "/models/good", "/models/good/invoke", "/models/good/openapi.json", "/")

# Of the many mutations of each request, so many are sent, chosen by a seed.
CASES = 25

EXPECTED = re.compile(rb"HTTP/1\.1 (?:[1-4]\d\d|501|503|505) ")


def request_of(method: str, path: str) -> Any:
    """Return a request each part of which boofuzz changes; its length stays true."""
    return boofuzz.Request(
        f"{method} {path}",
        children=(
            boofuzz.Block(
                "head",
                children=(
                    boofuzz.String("method", method, max_len=400),
                    boofuzz.Delim("first space", " "),
                    boofuzz.String("target", path, max_len=4000),
                    boofuzz.Delim("second space", " "),
                    boofuzz.String("version", "HTTP/1.1", max_len=100),
                    boofuzz.Static("end of line", "\r\n"),
                    boofuzz.Static("host", "Host: x\r\nContent-Type: "),
                    boofuzz.String("type", "text/csv", max_len=400),
                    boofuzz.Static("accept", "\r\nAccept: "),
                    boofuzz.String("answer", "application/json", max_len=400),
                    boofuzz.Static("attributes", "\r\nX-Amzn-SageMaker-Custom-Attributes: "),
                    boofuzz.String("wish", "method=predict_proba", max_len=400),
                    boofuzz.Static("length", "\r\nContent-Length: "),
                    boofuzz.Size("size", block_name="body", output_format="ascii", fuzzable=True),
                    boofuzz.Static("more", "\r\n"),
                    boofuzz.String("field", "X-Field", max_len=400),
                    boofuzz.Delim("colon", ":"),
                    boofuzz.String("value", " 1", max_len=4000),
                    boofuzz.Static("end of head", "\r\n\r\n"),
                ),
            ),
            boofuzz.Block(
                "body", children=(boofuzz.String("bytes", "5.1,3.5,1.4,0.2", max_len=4000),)
            ),
        ),
    )


class Sampled(boofuzz.Session):  # type: ignore[misc]
    """A session that sends some of the mutations of each request, chosen at random."""

    def _generate_n_mutations_for_path(self, path: Any, depth: int) -> Iterator[Any]:
        found = list(super()._generate_n_mutations_for_path(path, depth))
        yield from random.Random(str(path[-1].dst)).sample(found, min(CASES, len(found)))


def fuzz(server: Server, paths: tuple[str, ...], folder: Path) -> tuple[Counter[str], list[str]]:
    """Send the mutations; return how often each status came, and what should not have."""
    seen: Counter[str] = Counter()
    wrong: list[str] = []

    def look(target: Any, fuzz_data_logger: Any, session: Any, sock: Any, **more: Any) -> None:
        said = session.last_recv or b""
        seen[said[9:12].decode(errors="replace") or "none"] += 1
        if said and not EXPECTED.match(said):
            wrong.append(f"{session.last_send!r} is answered {said!r}")

    port = int(server.url.rsplit(":", 1)[1])
    connection = boofuzz.TCPSocketConnection("127.0.0.1", port, recv_timeout=0.5)
    session = Sampled(
        target=boofuzz.Target(connection=connection),
        web_port=None,
        keep_web_open=False,
        fuzz_loggers=[],
        receive_data_after_fuzz=True,
        ignore_connection_reset=True,
        ignore_connection_aborted=True,
        post_test_case_callbacks=[look],
        db_filename=str(folder / "results.db"),
    )
    for path in paths:
        for method in METHODS:
            session.connect(request_of(method, path))
    session.fuzz(max_depth=1)
    return seen, wrong


@contextmanager
def unchanged(server: Server) -> Iterator[None]:
    """Check that no process has ended, and that the log has no error."""
    before = children(server.pid)
    yield
    assert children(server.pid) == before
    log = server.log.read_text()
    assert " ERROR " not in log
    assert "Traceback" not in log


def test_one_model_answers_whatever_comes(models, tmp_path):
    with serving(models("iris"), tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        with unchanged(server):
            seen, wrong = fuzz(server, ONE_MODEL, tmp_path)
        assert server.post("5.1,3.5,1.4,0.2", "text/csv").json() == [0]

    print(dict(seen))
    assert wrong == []
    assert seen["200"] > 50
    assert sum(seen.values()) > CASES * len(ONE_MODEL) * len(METHODS) / 2


def test_many_models_answer_whatever_comes(add, tmp_path):
    add(tmp_path / "models", "good")
    with many_models(tmp_path / "models", tmp_path / "log") as models:
        running: ManyModels = models
        assert running.load("good").status_code == 200
        with unchanged(running.server):
            seen, wrong = fuzz(running.server, MANY_MODELS, tmp_path)
        running.load("good")  # a mutation may have unloaded it, as it should
        assert running.invoke("good").json() == [0]

    print(dict(seen))
    assert wrong == []
    assert seen["200"] > 20
