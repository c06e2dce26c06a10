"""Many models in one container: the real server, its zygote, and models that misbehave."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import requests

import skserve.multi_model.client
import skserve.multi_model.pool
import skserve.multi_model.supervisor
import skserve.serving.multi_model_api
from skserve.config import Config
from skserve.errors import Overloaded
from skserve.multi_model.log_capture import LogCapture
from tests.conftest import Server, serving
from tests.servers import until
from tests.test_image import Container

IRIS = "5.1,3.5,1.4,0.2"


@dataclass
class ManyModels:
    """A running multi-model server, and the folder that its models are in."""

    server: Server | Container
    root: Path

    def load(self, name: str, url: Path | str | None = None, **named: Any) -> requests.Response:
        asked = {"model_name": name, "url": str(url or self.root / name)}
        return requests.post(self.server.url + "/models", json=asked, timeout=60, **named)

    def invoke(
        self, name: str, body: str = IRIS, content_type: str = "text/csv"
    ) -> requests.Response:
        return requests.post(
            f"{self.server.url}/models/{quote(name, safe='')}/invoke",
            body,
            headers={"Content-Type": content_type},
            timeout=60,
        )

    def unload(self, name: str) -> requests.Response:
        return requests.delete(f"{self.server.url}/models/{quote(name, safe='')}", timeout=60)

    def names(self) -> list[str]:
        listed = requests.get(self.server.url + "/models", timeout=10).json()
        return [one["modelName"] for one in listed["models"]]

    def raw(self, method: str, path: str, body: str = "") -> tuple[int, dict[str, Any]]:
        """Send a path as it is, which `requests` would tidy up."""
        host = self.server.url.removeprefix("http://")
        with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
            connection.request(method, path, body, {"Content-Type": "text/csv"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    @property
    def log(self) -> str:
        log = self.server.log
        return log if isinstance(log, str) else log.read_text(errors="replace")

    @property
    def zygote(self) -> int:
        """Return the process that the models are children of: it alone left the session."""
        (pid,) = [one for one in children(self.server.pid) if os.getsid(one) == one]
        return pid

    @property
    def workers(self) -> list[int]:
        return [one for one in children(self.server.pid) if os.getsid(one) != one]

    @property
    def models(self) -> list[int]:
        return children(self.zygote)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def many_models(root: Path, log: Path, **settings: str) -> Iterator[ManyModels]:
    settings = {
        "SAGEMAKER_MULTI_MODEL": "true",
        "SKSERVE_MODEL_ROOT": str(root),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        **settings,
    }
    with serving(root / "none", log, **settings) as server:
        yield ManyModels(server, root)


@pytest.fixture(scope="module")
def running(add, tmp_path_factory) -> Iterator[ManyModels]:
    root = tmp_path_factory.mktemp("models")
    add(root, "iris")
    add(root, "one", model="one")
    log = tmp_path_factory.mktemp("logs") / "shared"
    settings = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2", "SKSERVE_LOAD_TIMEOUT": "5"}
    with many_models(root, log, SKSERVE_QUEUE="4", **settings) as server:
        yield server


@pytest.fixture
def shared(running) -> Iterator[ManyModels]:
    """Return a server that several tests use, without a model loaded."""
    yield running
    for name in running.names():
        assert running.unload(name).status_code == 200


def error(answer: requests.Response) -> str:
    return str(answer.json()["error"]["message"])


def test_the_contracts_sequence(shared):
    assert shared.server.ping() == 200
    assert requests.get(shared.server.url + "/ping", timeout=5).content == b""
    listed = requests.get(shared.server.url + "/models", timeout=5)
    assert listed.json() == {"models": []}
    assert listed.headers["Content-Type"] == "application/json"
    loaded = shared.load("m1", shared.root / "iris")
    assert (loaded.status_code, loaded.json()) == (200, {"status": "Workers scaled"})
    again = shared.load("m1", shared.root / "iris")
    assert again.status_code == 409
    assert without_id(again) == {
        "code": 409,
        "type": "ConflictStatusException",
        "message": "Model m1 is already registered.",
    }
    answer = shared.invoke("m1")
    assert (answer.status_code, answer.json()) == (200, [0])
    described = {"modelName": "m1", "modelUrl": str(shared.root / "iris")}
    assert requests.get(shared.server.url + "/models/m1", timeout=5).json() == described
    assert requests.get(shared.server.url + "/models", timeout=5).json() == {"models": [described]}
    gone = shared.unload("m1")
    assert (gone.status_code, gone.json()) == (200, {"status": 'Model "m1" unregistered'})
    missing = {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: m1"}
    for answer in (
        shared.unload("m1"),
        shared.invoke("m1"),
        requests.get(shared.server.url + "/models/m1", timeout=5),
    ):
        assert (answer.status_code, without_id(answer)) == (404, missing)


def without_id(answer: requests.Response) -> dict:
    """Return an error in Multi Model Server's shape without the id that ours has beside it."""
    said = answer.json()
    assert re.fullmatch("[0-9a-f]{16}", said.pop("request_id"))
    return said


def test_the_routes_exist_in_this_mode_alone(servers):
    url = servers("iris").url
    for method, path in (
        ("GET", "/models"),
        ("POST", "/models"),
        ("GET", "/models/m"),
        ("DELETE", "/models/m"),
        ("POST", "/models/m/invoke"),
    ):
        assert requests.request(method, url + path, timeout=5).status_code == 404


def test_every_worker_knows_every_model(shared):
    shared.load("both", shared.root / "iris")
    for _ in range(20):  # a new connection each: both workers get some
        assert shared.invoke("both").json() == [0]
    shared.unload("both")
    workers = {line.split("[")[1].split("]")[0] for line in shared.log.splitlines()
               if "model=both" in line and "status=200" in line}  # fmt: skip
    assert workers == {str(pid) for pid in shared.workers}


def test_of_two_loads_at_once_one_is_a_conflict(shared):
    with ThreadPoolExecutor(8) as callers:
        for round_ in range(3):
            name = f"same-{round_}"
            loads = [callers.submit(shared.load, name, shared.root / "iris") for _ in range(8)]
            statuses = sorted(load.result().status_code for load in loads)
            assert statuses == [200] + [409] * 7
            unloads = [callers.submit(shared.unload, name) for _ in range(8)]
            statuses = sorted(unload.result().status_code for unload in unloads)
            assert statuses == [200] + [404] * 7


@pytest.mark.parametrize(
    "name",
    ["a/b", "../../etc", "..", ".", "%2F", "a%2Fb", "x" * 255, "ü ñ 中", "a?b=c#d", '"\\\n\0', "/",
     "invoke", "a/invoke", "\udcff", " "],
    ids=ascii,
)  # fmt: skip
def test_any_name_is_a_name(shared, name):
    segment = quote(name.encode(errors="surrogateescape"), safe="").replace(".", "%2E")
    assert shared.load(name, shared.root / "iris").status_code == 200
    assert name in shared.names()
    assert shared.raw("POST", f"/models/{segment}/invoke", IRIS) == (200, [0])
    assert shared.raw("GET", f"/models/{segment}")[1]["modelName"] == name
    status, answer = shared.raw("DELETE", f"/models/{segment}")
    assert (status, answer["status"]) == (200, f'Model "{name}" unregistered')
    assert shared.names() == []


@pytest.mark.parametrize("name", ["\ud800", "a\udfff"], ids=ascii)
def test_a_name_that_no_path_can_carry_is_refused(shared, name):
    zygote = shared.zygote
    answer = shared.load(name, shared.root / "iris")
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")
    assert shared.load("m", name).status_code == 400
    assert shared.zygote == zygote


def test_a_name_is_what_its_bytes_say(shared):
    assert shared.load("\udcc3\udca4", shared.root / "iris").status_code == 200
    assert shared.names() == ["ä"]
    assert shared.invoke("ä").json() == [0]


def test_a_path_is_not_tidied_up(shared):
    shared.load("a", shared.root / "iris")
    for path in ("/models/a/b/../../a/invoke", "/models//a/invoke", "/models/b/../a/invoke"):
        assert shared.raw("POST", path, IRIS)[0] == 404
    assert shared.raw("GET", "/models/%61")[1]["modelName"] == "a"
    assert shared.raw("GET", "http://host/models/%61")[1]["modelName"] == "a"
    missing = "Model not found: %61/b"
    assert shared.raw("GET", "http://host/models/%2561%2Fb")[1]["message"] == missing
    shared.unload("a")


def test_a_url_stays_below_the_root(shared, tmp_path):
    (shared.root / "link-out").symlink_to("/etc")
    (shared.root / "link-in").symlink_to(shared.root / "iris")
    (shared.root / "loop").symlink_to(shared.root / "loop")
    outside = ["/etc", str(shared.root / ".." / ".."), str(shared.root), "/", "link-out", "loop",
               "no-such", "a\0b", str(shared.root / "iris" / "model.joblib")]  # fmt: skip
    for url in outside:
        answer = shared.load("m", url)
        assert answer.status_code == 400, url
        assert answer.json()["type"] == "BadRequestException"
    assert "not below" in shared.load("m", "link-out").json()["message"]
    assert shared.load("m", shared.root / "link-in").status_code == 200


@pytest.mark.parametrize(
    "body",
    ["", "nonsense", "[]", "{}", '{"model_name": "m"}', '{"url": "x"}', "[" * 60_000,
     '{"model_name": 1, "url": "x"}', '{"model_name": "", "url": "x"}',
     json.dumps({"model_name": "m" * 3000, "url": "x"}), "x" * 100_000],
    ids=lambda body: body[:30],
)  # fmt: skip
def test_a_load_that_says_too_little_is_the_callers_fault(shared, body):
    answer = requests.post(shared.server.url + "/models", body, timeout=5)
    assert answer.status_code in (400, 413)
    assert answer.json()["type"] == "BadRequestException"


def test_pages_of_models(shared):
    names = sorted(f"page-{number}" for number in range(7))
    for name in names:
        assert shared.load(name, shared.root / "iris").status_code == 200
    seen, sizes, query = [], [], {"limit": "3"}
    while True:
        page = requests.get(shared.server.url + "/models", params=query, timeout=5).json()
        seen += [one["modelName"] for one in page["models"]]
        sizes.append(len(page["models"]))
        shared.unload(seen[-1])  # which is where the next page goes on
        if "nextPageToken" not in page:
            break
        query["next_page_token"] = page["nextPageToken"]
    assert (seen, sizes) == (names, [3, 3, 1])
    for query in ({"limit": "x"}, {"next_page_token": "!"}, {"next_page_token": "x"}):
        assert requests.get(shared.server.url + "/models", query, timeout=5).status_code == 400


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


def test_batch_transform_is_told_how_to_call(shared):
    told = requests.get(shared.server.url + "/execution-parameters", timeout=5).json()
    assert set(told) == {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}


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


BROKEN = {
    "os._exit(3)": "exit status 3",
    "os.kill(os.getpid(), 11)": "SIGSEGV",
    "sys.exit('no')": "SystemExit: no",
    "raise ValueError('no weights')": "ValueError: no weights",
    "time.sleep(60)": "did not load within 5 s",
    "os.closerange(3, 99); time.sleep(60)": "it closed the server's socket",
}


@pytest.mark.parametrize(
    ("where", "deed"),
    [("in model_fn", deed) for deed in BROKEN]
    + [("at import", deed) for deed in BROKEN if "sleep" not in deed],
)
def test_a_model_that_cannot_load_says_why(shared, add, deed, where):
    name = f"broken-{where}-{list(BROKEN).index(deed)}".replace(" ", "-")
    script = "import os, sys, time\n"
    script += deed if where == "at import" else f"def model_fn(model_dir): {deed}"
    add(shared.root, name, script)
    answer = shared.load(name)
    assert answer.status_code == 400, answer.text
    assert BROKEN[deed] in answer.json()["message"]
    assert shared.names() == []
    assert shared.load(name, shared.root / "iris").status_code == 200  # the name is free


@pytest.mark.parametrize(
    "said",
    [b"nonsense", b'{"loaded": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"failed": {}, "status": []}',
     '{"failed": "a\\n2026-01-01 ERROR %s"}' % ("ä" * 60_000)],
    ids=lambda said: said[:20],
)  # fmt: skip
def test_what_a_model_says_of_its_load_is_only_data(shared, add, said):
    said = said if isinstance(said, bytes) else said.encode()
    name, zygote = f"liar-{hash(said)}", shared.zygote
    add(shared.root, name, f"import os\nos.write(3, {said!r})\nos._exit(1)")
    asked = {"model_name": name, "url": str(shared.root / name)}
    answer = requests.post(shared.server.url + "/models", json=asked, timeout=10)
    assert answer.status_code == (200 if b"loaded" in said else 400), answer.text
    assert len(answer.text) < 30_000
    if said == b"nonsense":
        assert "it wrote into the server's socket" in answer.text
    assert shared.zygote == zygote
    assert "\n2026-01-01" not in shared.log


LAST = "import skserve.machine\nskserve.machine.Machine.left = lambda *_: 15 << 20\n"


def test_a_load_that_takes_the_last_memory_is_a_507(shared, add):
    add(shared.root, "last", LAST)
    answer = shared.load("last")
    assert (answer.status_code, answer.json()["code"]) == (507, 507)
    assert "15 MiB of memory would be left" in answer.json()["message"]


def test_a_load_that_is_killed_or_starved_is_a_507(shared, add):
    add(shared.root, "killed", "import os\nos.kill(os.getpid(), 9)")
    add(shared.root, "starved", "def model_fn(model_dir): raise MemoryError")
    (shared.root / "huge").mkdir()
    with (shared.root / "huge" / "model.joblib").open("wb") as file:
        file.truncate(1 << 42)  # a sparse file
    for name in ("killed", "starved", "huge"):
        answer = shared.load(name)
        assert (answer.status_code, answer.json()["code"]) == (507, 507), answer.text
        assert "memory" in answer.json()["message"]


SCORE = """
import skserve.multi_model.protocol
told = skserve.multi_model.protocol.tell
def tell(end, message, *descriptors):
    print("score", int(open("/proc/self/oom_score_adj").read()) < 1000, *message)
    told(end, message, *descriptors)
skserve.multi_model.protocol.tell = tell
print("score", int(open("/proc/self/oom_score_adj").read()) < 1000)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can raise the least of a process")
def test_who_has_loaded_is_no_more_the_first_to_go_when_memory_runs_out(shared, add):
    add(shared.root, "score", SCORE)
    assert shared.load("score").status_code == 200
    until(lambda: "[score] score False\n" in shared.log)
    until(lambda: "[score] score True loaded" in shared.log)
    score = Path(f"/proc/{shared.zygote}/oom_score_adj")
    score.write_text("700")
    try:
        assert shared.load("iris").status_code == 200
    finally:
        score.write_text("0")


HOSTILE = """
import ctypes, os, sys, time
def predict_fn(data, model):
    deed = int(data[0, 0])
    if deed == 11: os._exit(3)
    if deed == 12: time.sleep(3600)
    if deed == 13: ctypes.PyDLL(None).sleep(3600)  # and no other thread gets Python's lock
    if deed == 14: raise MemoryError
    if deed == 15:
        for _ in range(100): os.write(1, b"x" * 999_999 + b"\\n")
    if deed == 16: os.kill(os.getpid(), 9)
    if deed == 17: os.closerange(3, 1000)
    if deed == 18: sys.exit(1)
    return model.predict(data)
"""


@pytest.fixture
def hostile(shared, add) -> ManyModels:
    if not (shared.root / "hostile").exists():
        add(shared.root, "hostile", HOSTILE)
    shared.load("hostile")
    shared.load("peaceful", shared.root / "iris")
    return shared


@pytest.mark.parametrize(
    ("deed", "status", "says"),
    [
        (11, 500, "died while it answered: its process ended by itself (exit status 3)"),
        (12, 504, "took longer than 2 s"),
        (13, 504, "did not answer within 7 s; its process was ended"),
        (14, 507, "ran out of memory"),
        (15, 200, ""),
        (16, 500, "its process was ended by SIGKILL"),
        (17, 500, "died"),
        (18, 500, "predict_fn failed"),
    ],
)
def test_a_hostile_model_hurts_only_itself(hostile, deed, status, says):
    took = []
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(hostile.invoke, "hostile", f"{deed},3.5,1.4,0.2")
        while not answer.done() or len(took) < 5:
            began = time.monotonic()
            assert hostile.invoke("peaceful").json() == [0]
            took.append(time.monotonic() - began)
            time.sleep(0.02)
    answer = answer.result()
    assert answer.status_code == status, answer.text
    if says:
        assert says in error(answer)
    assert sorted(took)[len(took) // 2] < 0.2
    assert hostile.invoke("hostile").json() == [0]
    if deed == 15:
        assert "[hostile] " in hostile.log
        until(lambda: "bytes of output dropped" in hostile.log)
        assert hostile.server.log.stat().st_size < 20 << 20


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


def test_a_false_length_keeps_no_caller_waiting(shared, add):
    add(shared.root, "length", FALSE_LENGTH)
    shared.load("length")
    for _ in range(2):
        assert shared.invoke("length").content == b"whole"
        assert shared.invoke("length", f"{IRIS}\n{IRIS}").content == b"in parts"


def test_a_model_that_keeps_dying_is_reported_and_not_looped(hostile):
    for _ in range(5):
        assert hostile.invoke("hostile", "11,1,1,1").status_code == 500
    answer = hostile.invoke("hostile")
    assert (answer.status_code, answer.json()["code"]) == (503, 503)
    assert "died 5 times, the last time because its process ended" in answer.json()["message"]
    assert answer.headers["Retry-After"] == "1"
    assert "hostile" in hostile.names()
    assert hostile.invoke("peaceful").json() == [0]
    hostile.unload("hostile")
    assert hostile.load("hostile").status_code == 200
    assert hostile.invoke("hostile").json() == [0]


def test_a_load_delays_no_call(shared, add):
    add(shared.root, "slow", "import time\ntime.sleep(1.5)")
    shared.load("quick", shared.root / "iris")
    with ThreadPoolExecutor(4) as callers:
        loads = [callers.submit(shared.load, f"s{n}", shared.root / "slow") for n in range(4)]
        took = []
        while not all(load.done() for load in loads):
            began = time.monotonic()
            assert shared.invoke("quick").json() == [0]
            took.append(time.monotonic() - began)
    assert [load.result().status_code for load in loads] == [200] * 4
    assert sorted(took)[len(took) // 2] < 0.1
    assert shared.server.ping() == 200


def test_an_unload_waits_for_calls_in_flight_and_leaves_nothing(shared, add):
    script = "import tempfile, time, subprocess\n"
    script += "left = tempfile.mkdtemp(); helper = subprocess.Popen(['sleep', '3600'])\n"
    script += "def predict_fn(data, model):\n    time.sleep(2)\n    return [helper.pid]"
    add(shared.root, "busy", script)
    shared.load("busy")
    (pid,) = shared.models
    with ThreadPoolExecutor(1) as caller:
        call = caller.submit(shared.invoke, "busy")
        time.sleep(0.4)
        began = time.monotonic()
        assert shared.unload("busy").status_code == 200
        assert time.monotonic() - began > 0.3
        assert not Path(f"/proc/{pid}").exists()
        answer = call.result()
    assert answer.status_code == 200
    until(lambda: not alive(answer.json()[0]))
    until(lambda: not list(Path(tempfile.gettempdir()).glob(f"skserve-models-*/{pid}-*")))


LEAVES = """
import os, subprocess, sys, time
# Its parent ends at once, it has a session of its own, and a child.
HELPER = "import os, time\\nif not os.fork():\\n os.setsid(); os.fork()"
HELPER += "; os.write(1, b'%d\\\\n' % os.getpid())"
HELPER += "; time.sleep(3600)"
def daemon():
    run = subprocess.Popen([sys.executable, "-uc", HELPER], stdout=subprocess.PIPE, text=True)
    return [int(run.stdout.readline()), int(run.stdout.readline())]
left = daemon()
def predict_fn(data, model):
    deed = int(data[0, 0])
    if deed == 1: left.extend(daemon())
    if deed == 2: os._exit(3)
    return left
"""


def test_nothing_that_a_model_starts_outlives_it(shared, add):
    add(shared.root, "leaves", LEAVES)
    shared.load("leaves")
    shared.load("iris")
    left = shared.invoke("leaves", "1,1,1,1").json()
    assert len(left) == 4
    assert shared.unload("iris").status_code == 200
    assert all(alive(pid) for pid in left)
    assert "exit status 3" in error(shared.invoke("leaves", "2,1,1,1"))
    assert not any(alive(pid) for pid in left)

    left = shared.invoke("leaves", "1,1,1,1").json()
    assert shared.unload("leaves").status_code == 200
    assert not any(alive(pid) for pid in left)
    shared.load("iris")
    assert len(shared.models) == 1
    assert shared.invoke("iris").json() == [0]

    shared.load("leaves")
    left = shared.invoke("leaves", "1,1,1,1").json()
    zygote = shared.zygote
    os.kill(zygote, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in left))
    until(lambda: not alive(zygote) and shared.names() == ["iris", "leaves"])
    assert set(children(shared.server.pid)) == {shared.zygote, *shared.workers}


LEAVES_MUCH = """
import os, signal
read, written = os.pipe()
if os.fork() == 0:
    held = bytearray(b"x") * (300 << 20)
    os.write(written, b"1")
    signal.pause()
os.read(read, 1)
"""


def test_a_call_waits_for_the_end_of_what_a_dead_model_has_left(shared, add):
    add(shared.root, "large", LEAVES_MUCH)
    assert shared.load("large").status_code == 200
    os.kill(shared.models[0], signal.SIGKILL)
    statuses = [shared.invoke("large").status_code for _ in range(20)]
    assert set(statuses) <= {200, 500}
    assert statuses[1:] == [200] * 19


def test_nothing_leaks_over_many_loads(shared):
    def descriptors() -> int:
        pids = [shared.server.pid, shared.zygote, *shared.workers]
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)

    def rounds(count: int) -> None:
        for number in range(count):
            name = f"leak-{number}"
            assert shared.load(name, shared.root / "iris").status_code == 200
            assert shared.invoke(name).json() == [0]
            assert shared.unload(name).status_code == 200

    rounds(5)
    time.sleep(1.1)
    rounds(2)
    before = descriptors()
    rounds(30)

    def few() -> bool:
        rounds(1)  # lines of models that are gone are closed by the next call, once a second
        return descriptors() <= before + 8

    until(few)
    assert shared.models == []


@pytest.fixture
def three(shared) -> ManyModels:
    for name in ("a", "b", "c"):
        assert shared.load(name, shared.root / "iris").status_code == 200
    return shared


def test_nothing_is_forgotten_when_the_zygote_dies(three):
    three.unload("c")
    zygote, models = three.zygote, three.models
    os.kill(zygote, signal.SIGKILL)
    assert three.invoke("a").status_code in (200, 500)  # the old process may have a breath left
    for name in ("a", "b"):
        until(lambda name=name: three.invoke(name).status_code == 200)
    assert three.names() == ["a", "b"]
    assert three.zygote != zygote
    assert not any(alive(pid) for pid in models)
    assert three.load("c", three.root / "iris").status_code == 200
    until(lambda: len(three.models) == 3)
    time.sleep(1)  # a zygote that dies at once is not started again at once
    os.kill(three.zygote, signal.SIGKILL)
    until(lambda: three.names() == ["a", "b", "c"])
    until(lambda: len(three.models) == 3)  # all of them, without being asked for
    assert "it is started again, and they with it" in three.log


def test_a_zygote_that_is_stopped_goes_on(shared):
    os.kill(shared.zygote, signal.SIGSTOP)
    assert shared.load("iris").status_code == 200


def test_the_rest_is_started_again_when_those_that_start_are_unloaded(shared, add):
    add(shared.root, "second", "import os, time\nif os.path.exists(__file__ + 's'): time.sleep(60)")
    names = [f"m{number}" for number in range(os.cpu_count() + 1)]
    for name in names[:-1]:
        assert shared.load(name, shared.root / "second").status_code == 200
    assert shared.load(names[-1], shared.root / "iris").status_code == 200
    (shared.root / "second" / "code" / "inference.pys").touch()
    victim = shared.zygote
    os.kill(victim, signal.SIGKILL)
    until(lambda: not alive(victim) and shared.names() == names)
    until(lambda: len(shared.models) == len(names) - 1)
    for name in names[:-1]:
        assert shared.unload(name).status_code == 200
    until(lambda: f"[{shared.zygote}] model {names[-1]}: " in shared.log)


def test_the_zygote_outlives_a_lack_of_descriptors(three):
    zygote = three.zygote
    limit = len(list(Path(f"/proc/{zygote}/fd").iterdir()))
    soft, hard = resource.prlimit(zygote, resource.RLIMIT_NOFILE)
    resource.prlimit(zygote, resource.RLIMIT_NOFILE, (limit, hard))
    try:
        assert three.invoke("a").status_code == 503
        assert three.load("d", three.root / "iris").status_code in (503, 507)
    finally:
        resource.prlimit(zygote, resource.RLIMIT_NOFILE, (soft, hard))
    assert three.invoke("a").json() == [0]
    assert three.zygote == zygote


def test_nothing_is_forgotten_when_a_worker_dies(three):
    victims = three.workers
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    until(lambda: len(set(three.workers) - set(victims)) == 2)
    for name in ("a", "b", "c"):
        until(lambda name=name: three.invoke(name).json() == [0])
    assert three.load("a").status_code == 409


def test_a_killed_model_is_started_again(three):
    victims = three.models
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in victims))
    for name in ("a", "b", "c"):
        assert three.invoke(name).json() == [0]
    assert not set(three.models) & set(victims)


def test_a_client_that_leaves_takes_nothing_with_it(three):
    host, port = three.server.url.removeprefix("http://").split(":")
    head = b"POST /models/a/invoke HTTP/1.1\r\nContent-Length: 15\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head + IRIS.encode())
    assert three.invoke("a").json() == [0]


def test_one_hanging_model_leaves_places_to_others(three, add):
    add(three.root, "hangs", "import time\ndef predict_fn(data, model): time.sleep(4)")
    three.load("hangs")
    with ThreadPoolExecutor(40) as callers:
        calls = [callers.submit(three.invoke, "hangs") for _ in range(40)]
        until(lambda: sum(call.done() for call in calls) > 20)
        assert three.invoke("a").json() == [0]
        assert three.server.ping() == 200
        assert {call.result().status_code for call in calls} == {503, 504}


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


def test_sigterm_answers_calls_in_flight_and_ends_everything(add, tmp_path):
    root, scratch = tmp_path / "models", tmp_path / "tmp"
    scratch.mkdir()
    tmp_path.chmod(0o755)
    add(
        root, "slow", "import time\ndef predict_fn(data, model):\n    time.sleep(1)\n    return [1]"
    )
    with (
        many_models(root, tmp_path / "log", TMPDIR=str(scratch)) as running,
        ThreadPoolExecutor(5) as callers,
    ):
        running.load("slow")
        assert list(scratch.glob("skserve-models-*"))
        pids = [running.zygote, *running.workers, *running.models]
        calls = [callers.submit(running.invoke, "slow") for _ in range(3)]
        time.sleep(0.5)
        began = time.monotonic()
        assert running.server.stop() == 0
        assert time.monotonic() - began < 15
        assert [call.result().json() for call in calls] == [[1]] * 3
        assert not list(scratch.iterdir())
        until(lambda: not any(alive(pid) for pid in pids))


def switches(pid: int) -> int:
    """Return how often the threads of a worker went to sleep, beside the one that polls."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if task.name != str(pid):
            status = (task / "status").read_text()
            found += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return found


def in_the_poller(running, worker: int) -> bool:
    """Whether most of 200 calls need no thread: a busy machine may make some look dear."""
    began, before = time.monotonic(), switches(worker)
    for _ in range(200):
        assert running.invoke("quick").json() == [0]
    standby = 10 * (time.monotonic() - began)  # it looks ten times a second
    return switches(worker) - before < 100 + standby


def test_the_poller_calls_cheap_models_and_waits_for_none(add, tmp_path):
    root = tmp_path / "models"
    for name in ("quick", "stopped"):
        add(root, name)
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "5"}
    with (
        many_models(root, tmp_path / "log", **settings) as running,
        ThreadPoolExecutor(1) as callers,
    ):
        running.load("stopped")
        (stopped,) = running.models
        running.load("quick")
        for name in ("quick", "stopped") * 20:
            assert running.invoke(name).json() == [0]

        (worker,) = running.workers
        assert any(in_the_poller(running, worker) for _ in range(5)), "all calls went to threads"

        os.kill(stopped, signal.SIGSTOP)
        hanging = callers.submit(running.invoke, "stopped")
        time.sleep(0.3)
        for _ in range(20):
            assert running.invoke("quick").json() == [0]
            assert running.server.ping() == 200
        assert not hanging.done(), "they waited for it"
        assert hanging.result().status_code == 504
        assert running.invoke("stopped").json() == [0]


def test_a_zygote_that_dies_while_it_is_looked_after_does_not_end_the_master(monkeypatch):
    supervisor = skserve.multi_model.supervisor
    monkeypatch.setattr(supervisor.subreaper, "adopt", lambda: None)  # not in this process
    watching = supervisor.Supervisor(Config(), None)
    gone = subprocess.Popen(["true"])
    gone.wait()
    monkeypatch.setattr(watching, "_alive", lambda: True)
    monkeypatch.setattr(watching, "_pid", gone.pid)

    watching.mind()
    watching._scratch.rmdir()
    watching._listener.close()
    watching.control.close()


@pytest.mark.parametrize(
    ("said", "seconds", "cheap"), [(True, 0.001, True), (False, 0.001, False), (True, 1, False)]
)
def test_a_model_is_cheap_if_it_says_so_and_is(said, seconds, cheap):
    ours, theirs = socket.socketpair()
    connection = skserve.multi_model.pool.ModelConnection(ours.detach(), 1, False, 1)

    with theirs, connection.end:
        connection.learn(100, 0.001, True)
        connection.learn(100, seconds, said)

    assert ((100).bit_length() in connection.cheap) == cheap


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"POST /models/iris/invoke", "iris"),
        (b"POST /models/a%2Fb%20c/invoke", "a/b c"),
        (b"POST /models/\xff/invoke", "\udcff"),
        (b"GET /models/iris/invoke", None),
        (b"POST /models//invoke", None),
        (b"POST /models/a/b/invoke", None),
        (b"POST /models/iris/invoke?x=1", None),
        (b"POST http://host/models/iris/invoke", None),
    ],
)
def test_the_poller_sees_which_model_is_called(line, name):
    assert skserve.serving.multi_model_api.invoked(line) == name


def test_output_that_was_thrown_away_is_said_though_nothing_follows(monkeypatch, capfdbinary):
    monkeypatch.setattr("skserve.multi_model.log_capture.RATE", 0)  # so that time says nothing
    read, write = os.pipe()
    output = LogCapture(read, "m", "text")
    for _ in range(100):
        os.write(write, b"x" * 49_999 + b"\n")
        output.forward()
    assert b"dropped" not in capfdbinary.readouterr().err  # it may go on
    assert output.due is not None
    output.keep_time(output.due)

    (line,) = capfdbinary.readouterr().err.splitlines()
    assert line.startswith(b"[m] 4,000,000 bytes of output dropped")
    assert output.due is None
    os.close(write)
    output.close()
    assert capfdbinary.readouterr().err == b""


def test_output_that_never_ends_is_not_waited_for(capfdbinary):
    LogCapture(os.open("/dev/zero", os.O_RDONLY), "m", "text").close()
    assert len(capfdbinary.readouterr().err) < 2 << 20


def test_models_that_hang_share_the_places_with_those_that_do_not():
    with socket.socket() as control, ExitStack() as held:
        models = skserve.multi_model.client.ModelClient(control, Config(queue=1000), 60)
        for name, places in (("hangs", 30), ("hangs too", 15), ("another", 8)):
            for _ in range(places):
                held.enter_context(models.place(name))
            with pytest.raises(Overloaded, match="of this model"):
                held.enter_context(models.place(name))
        held.enter_context(models.place("quick"))


@pytest.mark.parametrize(
    ("name", "status"), [("é" * 666, 200), ("é" * 667, 400), ("a" * 2048, 200), ("%" * 1334, 400)]
)
def test_a_name_that_can_be_loaded_can_be_called(shared, name, status):
    answer = shared.load(name, shared.root / "iris")

    assert answer.status_code == status
    if status == 200:
        assert shared.invoke(name).status_code == 200
    else:
        assert "as a path carries it; the limit is 4,000" in answer.json()["message"]
