"""The calls that load, list and unload models, and the paths that lead to one."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
import requests

from tests.many_models import IRIS


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


def test_batch_transform_is_told_how_to_call(shared):
    told = requests.get(shared.server.url + "/execution-parameters", timeout=5).json()
    assert set(told) == {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}


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
