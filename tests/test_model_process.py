"""The load of one of many models: how it fails, and the memory that it may take."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.servers import until

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
