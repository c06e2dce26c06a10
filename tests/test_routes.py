"""HTTP: routes, limits, identities, and what an error looks like."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from decimal import Decimal

import pytest
from flask import Response

from skserve import logs, telemetry
from skserve.config import Config
from skserve.errors import BadRequest, NotReady, Overloaded
from skserve.inference.calls import Reply
from skserve.inference.model import Model
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.slots import Slots
from skserve.serving import inline
from skserve.serving.connection import Connection
from skserve.serving.head import Request
from skserve.serving.responses import ATTRIBUTES, INFERENCE_ID
from skserve.serving.routes import create_app

ROW = "[[5.1, 3.5, 1.4, 0.2]]"


CONFIG = Config(max_payload_mb=1)


@pytest.fixture(scope="module")
def registry(models):
    return LocalModel(Slots(1, 1000, timeout=10), Model.load(models("iris"), CONFIG))


@pytest.fixture(scope="module")
def client(registry):
    return create_app(registry, CONFIG, Bodies(2 << 20)).test_client()


def request_of(data: str, content_type: str = "", headers: dict[str, str] | None = None) -> Request:
    """Return the request that the poller would see."""
    fields = {"Host": "x", "Content-Length": str(len(data)), **(headers or {})}
    if content_type:
        fields["Content-Type"] = content_type
    head = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
    connection = Connection(1 << 20)
    connection.feed(f"POST /invocations HTTP/1.1\r\n{head}\r\n{data}".encode())
    assert connection.request is not None
    return connection.request


class Failing:
    """A registry that answers with whatever it is told to."""

    def __init__(self, outcome: Exception | Reply) -> None:
        self.outcome = outcome

    def ready(self) -> bool:
        return False

    def place(self):
        return contextlib.nullcontext()

    def invoke(self, call, here=False):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    describe = None


def failing(outcome: Exception | Reply):
    return create_app(Failing(outcome), Config(), Bodies(1 << 20)).test_client()


@pytest.mark.parametrize("method", ["get", "head", "post"])
def test_ping_is_empty_and_says_whether_a_prediction_could_run(client, method):
    answer = getattr(client, method)("/ping")

    assert (answer.status_code, answer.data) == (200, b"")
    assert getattr(failing(NotReady("x")), method)("/ping").status_code == 503


def test_the_description_holds_a_request_that_works(client):
    described = client.get("/").json

    example = described["example"]
    answer = client.post("/invocations", json=example["body"])

    assert answer.status_code == 200
    assert client.options("/").json == described
    assert described["model"] == "LogisticRegression"
    assert described["method"] == "predict"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/invocations", 405),
        ("get", "/nowhere", 404),
        ("delete", "/ping", 405),
        ("get", "/pingx", 404),
    ],
)
def test_what_is_not_served_is_said_in_json(client, method, path, status):
    answer = getattr(client, method)(path)

    assert answer.status_code == status
    assert path in answer.json["error"]["message"]
    assert "POST /invocations" in answer.json["error"]["hint"]
    assert status != 405 or "Allow" in answer.headers


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ("method=predict_proba", 3),
        ("trace=7; method = predict_proba", 3),
        ("trace=7,method=decision_function", 3),
        ("anything at all", None),
        ("methods=predict_proba", None),
    ],
)
def test_custom_attributes_choose_the_method_and_come_back(client, attributes, shape):
    answer = client.post("/invocations", data=ROW, headers={ATTRIBUTES: attributes})

    assert answer.headers[ATTRIBUTES] == attributes
    value = answer.json[0]
    assert value == 0 if shape is None else len(value) == shape


def test_the_body_names_the_method_before_the_attributes_do(client):
    body = {"instances": json.loads(ROW), "method": "predict"}

    answer = client.post("/invocations", json=body, headers={ATTRIBUTES: "method=predict_proba"})

    assert answer.json == {"predictions": [0]}


def test_the_callers_inference_id_is_the_request_id(client):
    given = client.post("/invocations", data="[", headers={INFERENCE_ID: "order-66"})
    made = client.post("/invocations", data="[")

    assert given.json["error"]["request_id"] == "order-66"
    assert len(made.json["error"]["request_id"]) == 16


def test_a_body_over_the_limit_is_refused_before_it_is_read(client):
    answer = client.post("/invocations", data=b"1" * ((1 << 20) + 1))

    assert answer.status_code == 413
    assert "1,048,577 bytes; the limit is 1,048,576" in answer.json["error"]["message"]
    assert "SAGEMAKER_MAX_PAYLOAD_IN_MB" in answer.json["error"]["hint"]


def test_a_bug_is_a_500_with_its_traceback_in_the_log_alone(caplog):
    answer = failing(RuntimeError("secret internals")).post("/invocations", data="[]")

    assert answer.status_code == 500
    assert b"secret" not in answer.data
    assert b"Traceback" not in answer.data
    request_id = answer.json["error"]["request_id"]
    assert f"request {request_id}" in caplog.text
    assert "RuntimeError: secret internals" in caplog.text


def test_the_useful_sentence_comes_first_and_fits_what_sagemaker_shows():
    answer = failing(BadRequest("column 'x' " * 1000, "hint")).post("/invocations", data="[]")

    assert answer.data.startswith(b'{"error":{"code":"bad_request","message":"column')
    assert len(answer.data) < 2048


def test_overload_says_when_to_come_back_and_is_no_error_in_the_log(caplog):
    answer = failing(Overloaded("full")).post("/invocations", data="[]")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert [one for one in caplog.records if one.levelno > logging.INFO] == []


def test_a_replys_own_headers_and_status_are_kept():
    reply = Reply(b"x", "text/csv", 418, {"X-Own": "1", ATTRIBUTES: "mine"})

    answer = failing(reply).post("/invocations", data="[]", headers={ATTRIBUTES: "theirs"})

    assert answer.status_code == 418
    assert answer.headers["Content-Type"] == "text/csv"
    assert answer.headers["X-Own"] == "1"
    assert answer.headers.getlist(ATTRIBUTES) == ["mine"]


def test_one_line_of_the_log_says_what_a_request_cost(client, caplog, capfd):
    caplog.set_level(logging.INFO, "skserve.requests")

    client.post("/invocations", data=ROW, headers={INFERENCE_ID: "me"})
    client.get("/ping")

    (said,) = capfd.readouterr().err.splitlines()
    line = dict(word.split("=") for word in said.split()[4:])
    assert said.split()[2:4] == ["INFO", f"[{os.getpid()}]"]
    assert line["status"] == "200"
    assert line["rows"] == "1"
    assert line["bytes_in"] == str(len(ROW))
    assert line["id"] == "me"
    assert {"decode_ms", "predict_ms", "encode_ms", "total_ms"} <= set(line)


@pytest.mark.parametrize("style", [logs.Text, logs.Json])
def test_whatever_a_request_says_of_itself_can_be_logged(style, monkeypatch, caplog, capfd):
    caplog.set_level(logging.INFO, "skserve.requests")
    monkeypatch.setattr(logs, "_style", style())

    record = telemetry.Record("me")
    record.facts = {"model": "\ud800"}
    record.write(Response("x"))

    (said,) = capfd.readouterr().err.splitlines()
    assert r"\ud800" in said
    assert "INFO" in said


@pytest.mark.parametrize(
    "asked",
    [
        {"data": ROW, "content_type": "application/json"},
        {"data": "5.1,3.5,1.4,0.2", "content_type": "text/csv"},
        {"data": ROW, "headers": {"Accept": "text/csv"}},
        {"data": ROW * 1000, "headers": {"Accept-Encoding": "gzip"}},
        {"data": "[" + ", ".join([ROW[1:-1]] * 1000) + "]", "headers": {"Accept-Encoding": "gzip"}},
        {"data": ROW, "headers": {ATTRIBUTES: "method=predict_proba"}},
        {"data": ROW, "headers": {INFERENCE_ID: "mine"}},
        {"data": ROW, "headers": {"Accept": "image/png"}},
        {"data": ROW, "content_type": "image/png"},
        {"data": "[[1, 2]]"},
        {"data": "[[1, 2"},
        {"data": ""},
    ],
    ids=lambda asked: str(asked)[:60],
)
def test_the_poller_answers_as_flask_would(client, registry, asked):
    flask = client.post("/invocations", **asked)
    answer = inline.invoke(registry, request_of(**asked))
    ahead = Response(answer.body, answer.status_code, answer.headers)

    def seen(answer):
        body = re.sub(r'"request_id":"[0-9a-f]{16}"', "", answer.get_data().decode("latin-1"))
        return answer.status_code, sorted(answer.headers), body

    assert seen(ahead) == seen(flask)


def test_the_poller_takes_a_call_that_is_known_to_be_cheap_and_pings(registry):
    route, call = inline.single(registry, registry.ready, Config(), None), request_of(ROW)
    for _ in range(20):
        inline.invoke(registry, call)

    assert route.handler(call) is not None
    assert route.handler(request_of(ROW * 1000)) is None, "of another size"
    assert route.handler(request_of(ROW, headers={"Content-Encoding": "gzip"})) is None
    for method, path, status in (
        ("HEAD", "/ping", 200),
        ("GET", "/", None),
        ("PUT", "/ping", None),
    ):
        connection = Connection(1)
        connection.feed(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        handler = route.handler(connection.request)
        assert (handler and handler(connection.request).status_code) == status


@pytest.mark.parametrize(
    "odd",
    [
        {"HTTP_HOST": "a..b"},
        {"HTTP_HOST": "a" * 64},
        {"HTTP_HOST": "\xe9"},
        {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"},
    ],
    ids=str,
)
def test_host_and_upgrade_choose_no_route(client, odd):
    assert client.get("/ping", environ_overrides=odd).status_code == 200
    assert client.post("/invocations", data=ROW, environ_overrides=odd).json == [0]


@pytest.mark.parametrize("path", ["/", "/ping", "/invocations"])
def test_options_are_answered_with_the_description(client, path):
    answer = client.options(path)

    assert answer.content_type == "application/json"
    assert answer.json == client.get("/").json


def test_a_description_that_json_cannot_say_is_still_an_answer():
    registry = Failing(Reply(b""))
    registry.describe = lambda: {"values": (Decimal("1.5"), "\ud800")}
    app = create_app(registry, Config(), Bodies(1 << 20))

    answer = app.test_client().get("/")

    assert answer.status_code == 200
    assert answer.json == {"values": ["1.5", "\ud800"]}


def test_an_error_whose_text_is_no_text_is_still_an_answer():
    answer = failing(BadRequest("column \ud800")).post("/invocations", data="[]")

    assert answer.status_code == 400
    assert answer.json["error"]["code"] == "bad_request"
