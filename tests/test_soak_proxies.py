"""nginx and haproxy in front of the server: the same answers as without, and no request lost."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import requests

from tests.conftest import Server, serving
from tests.proxies import COMMANDS, in_front
from tests.test_http import TABLE, answers

pytestmark = pytest.mark.soak

ROW = [5.1, 3.5, 1.4, 0.2]
METHOD = {"X-Amzn-SageMaker-Custom-Attributes": "method=predict_proba"}


class Asked(NamedTuple):
    """A request as a client library makes it."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = {}

    def to(self, url: str, session: requests.Session) -> tuple[int, str, bytes]:
        answer = session.request(
            self.method, url + self.path, data=self.body or None, headers=self.headers, timeout=60
        )
        return answer.status_code, answer.headers.get("Content-Type", ""), answer.content


def call(body: bytes, kind: str, **headers: str) -> Asked:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Asked("POST", "/invocations", body, {"Content-Type": kind, **named})


CSV = ",".join(map(str, ROW)).encode()
JSON = json.dumps([ROW]).encode()
ASKED = {
    "ping": Asked("GET", "/ping"),
    "ping by HEAD": Asked("HEAD", "/ping"),
    "csv": call(CSV, "text/csv"),
    "csv for csv": call(CSV, "text/csv", Accept="text/csv"),
    "json": call(JSON, "application/json"),
    "json lines": call(JSON[1:-1] + b"\n" + JSON[1:-1], "application/jsonlines"),
    "libsvm": call(b"0 0:5.1 1:3.5", "text/libsvm"),
    "compressed": call(gzip.compress(CSV), "text/csv", Content_Encoding="gzip"),
    "an answer to compress": call(b"\n".join([CSV] * 5000), "text/csv", Accept_Encoding="gzip"),
    "two megabytes": call(b"\n".join([CSV] * 130_000), "text/csv"),
    "an empty body": call(b"", "text/csv"),
    "text for a number": call(b"a,b,c,d", "text/csv"),
    "an unknown type": call(CSV, "image/png"),
    "an unknown answer": call(CSV, "text/csv", Accept="image/png"),
    "a body too large": call(b"1" * (26 << 20), "text/csv"),
    "an unknown path": Asked("GET", "/nowhere"),
    "a wrong method": Asked("DELETE", "/ping"),
    "a wrong method with a body": Asked("PUT", "/invocations", CSV),
    "parameters": Asked("GET", "/execution-parameters"),
    "a description": Asked("GET", "/", b"", {"Accept": "application/json"}),
    "a page": Asked("GET", "/", b"", {"Accept": "text/html"}),
    "openapi": Asked("GET", "/openapi.json"),
}

# Rows of the table whose bodies do not come to their end.
UNENDED = ("a chunk that never ends", "a body that is cut off", "a body that is asked for")


@pytest.fixture(scope="module")
def server(models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("proxies") / "log"
    with serving(models("iris"), log, SAGEMAKER_MODEL_SERVER_WORKERS="2") as running:
        yield running


@pytest.fixture(scope="module", params=COMMANDS)
def proxy(request, server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with in_front(request.param, server.url, tmp_path_factory.mktemp(request.param)) as url:
        yield url


def without_id(answer: tuple[int, str, bytes]) -> tuple[int, str, bytes]:
    """Leave out of an error what each request has for itself."""
    status, kind, body = answer
    if status >= 400 and kind.startswith("application/json"):
        error = json.loads(body)["error"]
        error.pop("request_id")
        body = json.dumps(error).encode()
    return status, kind, body


@pytest.mark.parametrize("name", ASKED)
def test_a_proxy_in_front_changes_no_answer(server, proxy, name):
    """Ask three times, so that connections are used again."""
    with requests.Session() as session:
        direct = [without_id(ASKED[name].to(server.url, session)) for _ in range(3)]
        through = [without_id(ASKED[name].to(proxy, session)) for _ in range(3)]

    assert through == direct


def test_raw_requests_poison_no_connection_that_others_share(server, proxy):
    """Send every row of the table through the proxy, while good calls go the same way."""
    direct, stop = answers(server), []

    def good(seed: int) -> Counter[object]:
        chance, seen = random.Random(seed), Counter[object]()
        with requests.Session() as session:
            while not stop:
                row = [chance.uniform(0, 9) for _ in range(4)]
                asked = call(json.dumps([row]).encode(), "application/json", **METHOD)
                status, _, body = asked.to(proxy, session)
                wanted = json.loads(asked.to(server.url, session)[2])
                # The last bits of a sum depend on the rows that were answered together.
                seen[status, json.loads(body)[0] == pytest.approx(wanted[0], rel=1e-9)] += 1
        return seen

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(good, seed) for seed in range(4)]
        through = answers(Server(server.process, proxy, server.log))
        stop.append(True)
        seen = sum((caller.result() for caller in callers), Counter())

    assert set(seen) == {(200, True)}
    assert seen[200, True] > 20
    # Where the server takes every request, so does the way through the proxy, or it refuses itself.
    for name, all_of_it in through.items():
        statuses = tuple(status for status in all_of_it if status != 100)  # a proxy says it itself
        taken = [status for status in direct[name] if status < 400]
        if len(taken) == len(direct[name]):
            waits = not statuses and name[1].endswith(UNENDED)  # nginx reads a request whole
            refused = bool(statuses) and 400 <= statuses[-1] < 502
            assert waits or refused or statuses == direct[name], name
        assert len(statuses) <= len(TABLE[name][0].split(b"HTTP/1.")) or statuses[-1] >= 400, name
        assert 502 not in statuses, name
        assert 504 not in statuses, name


@pytest.mark.parametrize("proxy_name", COMMANDS)
def test_no_call_through_a_proxy_is_lost_while_workers_are_replaced(models, tmp_path, proxy_name):
    """16 callers over kept-alive connections; each worker is replaced about every 150 requests."""
    environ = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SKSERVE_MAX_REQUESTS": "150"}

    def ask(seed: int) -> Counter[object]:
        chance, seen = random.Random(seed), Counter[object]()
        with requests.Session() as session:
            for _ in range(150):
                flower = chance.randrange(2)
                row = [[4.8, 3.4, 1.6, 0.2], [6.7, 3.0, 5.2, 2.3]][flower]
                asked = call(json.dumps([row]).encode(), "application/json")
                status, _, body = asked.to(url, session)
                seen[status, body.strip() == b"[%d]" % (2 * flower)] += 1
        return seen

    with (
        serving(models("iris"), tmp_path / "log", **environ) as server,
        in_front(proxy_name, server.url, tmp_path) as url,
        ThreadPoolExecutor(16) as pool,
    ):
        seen = sum(pool.map(ask, range(16)), Counter())
        log = server.log.read_text()

    assert seen == Counter({(200, True): 16 * 150})
    assert log.count("Booting worker") > 8 or log.count("worker") > 8
