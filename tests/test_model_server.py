"""What one of many models answers: as alone, in parts, and whatever it makes of its messages."""

from __future__ import annotations

import gzip
import io
import json
import threading

import numpy as np
import pytest
import requests

from skserve import telemetry
from skserve.config import Config
from skserve.formats import message_framing
from skserve.inference.model import Model
from skserve.multi_model import protocol, replies
from skserve.multi_model.model_server import ModelServer
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.retirement import Retirement
from skserve.scheduling.slots import Slots
from tests.many_models import IRIS, alive, error, many_models
from tests.servers import until

NAMED = "from helper import WORD\ndef predict_fn(data, model): return [WORD] * len(data)\n"


def test_each_model_has_code_of_its_own(shared, add):
    add(shared.root, "red", NAMED, helper="WORD = 'red'")
    add(shared.root, "blue", NAMED, helper="WORD = 'blue'")
    for name in ("red", "blue", "one"):
        assert shared.load(name).status_code == 200
    for _ in range(3):
        assert shared.invoke("red").json() == ["red"]
        assert shared.invoke("blue").json() == ["blue"]
        assert shared.invoke("one", "3").json() == pytest.approx([6.0])


STREAM = """
def output_fn(prediction, accept):
    for number in range(3):
        yield f"{number}\\n" * 10_000
    if prediction[0]: raise ValueError("broke")
"""


def test_an_answer_may_come_in_parts(shared, add):
    add(shared.root, "parts", STREAM)
    assert shared.load("parts").status_code == 200
    for _ in range(3):
        assert shared.invoke("parts").text == "".join(f"{n}\n" * 10_000 for n in range(3))
        with pytest.raises(requests.RequestException):
            _ = shared.invoke("parts", "6.7,3.0,5.2,2.3").text
    assert len(shared.models) == 1
    assert "the stream broke" in shared.log


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, np.array([[5.1, 3.5, 1.4, 0.2]]))
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (IRIS.encode(), {"Content-Type": "text/csv"}),
        (gzip.compress(IRIS.encode()), {"Content-Type": "text/csv", "Content-Encoding": "gzip"}),
        (f"{IRIS}\n".encode() * 600_000, {"Content-Type": "text/csv"}),
        (b"[[5.1, 3.5, 1.4, 0.2]]", {"Content-Type": "application/json"}),
        (npz(), {"Content-Type": "application/x-npz"}),
        (b"1,2", {"Content-Type": "text/csv"}),
    ],
    ids=["csv", "gzip", "9 MB", "json", "npz", "bad"],
)
def test_an_answer_is_that_of_the_single_model_server(shared, servers, body, headers):
    shared.load("m", shared.root / "iris")
    accepts = ["text/csv", "application/x-npy", "", "application/json;verbose=1", "a/b"]
    for accept in accepts[: 1 if len(body) > 1 << 20 else 5]:
        headers = {**headers, "Accept": accept, "X-Amzn-SageMaker-Inference-Id": "same"}
        one, many = (
            requests.post(url, body, headers=headers, timeout=60)
            for url in (
                servers("iris").url + "/invocations",
                shared.server.url + "/models/m/invoke",
            )
        )
        assert many.content == one.content
        for part in ("status_code", "reason"):
            assert getattr(many, part) == getattr(one, part)
        assert many.headers["Content-Type"] == one.headers["Content-Type"]


def test_errors_of_a_model_are_ours(shared):
    shared.load("m", shared.root / "iris")
    answer = shared.invoke("m", "1,2")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert answer.json()["error"]["request_id"]
    assert shared.invoke("m", IRIS, "text/html").status_code == 415
    assert shared.invoke("m", "x" * (26 << 20)).status_code == 413


FRAMES = """
import json, os, socket, struct
WELL = {"whole": True, "status": 200, "media_type": "text/csv", "headers": {}, "stages": {},
        "facts": {}}
def frame(head, length=0):
    head = json.dumps(head).encode()
    return struct.pack("!IQ", len(head), length) + head
FALSE = [b"garbage" * 10, frame(WELL, 1 << 60), frame([]), frame({**WELL, "status": 100}),
         frame({**WELL, "stages": []}), frame({**WELL, "stages": {"a": 10**400}}),
         frame({"error": []})]
FORGED = frame({**WELL, "stages": {"a\\nFORGED": 1}, "facts": {"b": "c\\nFORGED"}})
def predict_fn(data, model):
    number = int(data[0, 0])
    for descriptor in range(4, 60):
        try:
            line = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue
        if (line.family, line.type) == (socket.AF_UNIX, socket.SOCK_STREAM):
            line.sendall(FALSE[number] if number < len(FALSE) else FORGED)
            line.shutdown(socket.SHUT_WR)
    return [0]
"""


def test_what_a_model_answers_is_only_data(shared, add):
    add(shared.root, "false", FRAMES)
    for number in range(8):
        shared.load("false")
        answer = shared.invoke("false", f"{number},1,1,1")
        if number < 7:
            assert (answer.status_code, "What model false answered" in error(answer)) == (500, True)
        else:
            assert answer.status_code == 200
        shared.unload("false")
    until(lambda: "FORGED" in shared.log)
    assert "\nFORGED" not in shared.log


FALSE_LENGTH = """
from skserve.formats import message_framing
from skserve.multi_model import model_server
def send(self, line, reply, record, cheap):
    head = {"status": 200, "media_type": "text/csv", "stages": {}, "facts": {}, "length": 1000}
    head |= {"whole": reply.body == b"[0]", "headers": {"content-length": "1000"}}
    message_framing.send_frame(line, head, b"whole" if head["whole"] else b"")
    if not head["whole"]: message_framing.send_parts(line, [b"in ", b"parts"])
model_server.ModelServer._send = send
"""


def test_only_a_call_that_may_wait_needs_a_place(models):
    ends = [*protocol.channel(), *protocol.connection()]
    channel, theirs, connection, far = ends
    slots = Slots(1, 0, timeout=10)
    single = LocalModel(slots, Model.load(models("iris"), Config()))
    server = ModelServer(theirs, single, Retirement(0, 0, lambda: 0))
    thread = threading.Thread(target=server.listen, daemon=True)
    thread.start()
    protocol.tell(channel, {}, far.fileno())
    head = {"id": "a", "content_type": "text/csv", "accept": "", "attributes": "", "headers": {}}

    def answer() -> dict[str, object]:
        message_framing.send_frame(connection, head, IRIS.encode())
        said, _ = message_framing.receive_frame(connection)
        return said

    with slots.place():  # the only one
        refused = answer()["error"]
        single.cheap = lambda size: True
        answered = answer()
    protocol.tell(channel, {"drain": True})
    thread.join(10)
    for end in ends:
        end.close()

    assert (refused["status"], refused["reason"]) == (503, "queue")
    assert answered["status"] == 200


def test_a_false_length_keeps_no_caller_waiting(shared, add):
    add(shared.root, "length", FALSE_LENGTH)
    shared.load("length")
    for _ in range(2):
        assert shared.invoke("length").content == b"whole"
        assert shared.invoke("length", f"{IRIS}\n{IRIS}").content == b"in parts"


def test_code_may_be_shared_and_lines_of_json_say_which_model(add, tmp_path):
    """And at the end the master is killed, and all ends with it."""
    root = tmp_path / "models"
    add(root, "plain")
    add(root, "own", "print('hello')\ndef predict_fn(data, model): return ['own']")
    (root / "own" / "code" / "inference.py").rename(root / "own" / "code" / "serve_me.py")
    code = tmp_path / "code"
    code.mkdir()
    (code / "serve_me.py").write_text("def predict_fn(data, model): return ['shared']\n")
    settings = {"SAGEMAKER_PROGRAM": "serve_me.py", "SAGEMAKER_SUBMIT_DIRECTORY": str(code)}
    with many_models(root, tmp_path / "log", SKSERVE_LOG_FORMAT="json", **settings) as running:
        for name in ("plain", "own"):
            assert running.load(name).status_code == 200
        assert running.invoke("plain").json() == ["shared"]
        assert running.invoke("own").json() == ["own"]
        lines = [json.loads(line) for line in running.log.splitlines()]
        assert {"model": "own", "message": "hello"} in lines
        calls = [line for line in lines if "total_ms" in line]
        assert [(one["model"], one["status"], one["rows"]) for one in calls] == [
            ("plain", 200, 1),
            ("own", 200, 1),
        ]

        pids = [running.zygote, *running.workers, *running.models]
        running.server.process.kill()
        running.server.process.wait()
        until(lambda: not any(alive(pid) for pid in pids))


def test_a_model_cannot_say_what_its_worker_says_of_a_call():
    record = telemetry.Record("mine")
    record.facts = {"model": "m"}
    said = {"status": 500, "rows": 9, "total_ms": 1.0, "id": "x", "i d": "y", "model": "n"}
    head = {"status": 200, "media_type": "text/csv", "headers": {}, "stages": {}, "rows": 1}
    replies.reply_of(head | {"facts": said | {"joined": 2}}, b"", record)

    assert record.facts == {"model": "m", "joined": 2, "i_d": "y"}
    assert record.rows == 1
