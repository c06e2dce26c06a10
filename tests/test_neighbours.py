"""A model that means harm, beside others of the same user: what it can reach of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server, free_port, wait_until_ready
from tests.many_models import ManyModels
from tests.test_multi_image import contained

# Root without any privilege: every process of the server is the same ordinary user.
PLAIN = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")

SPY = """
import os
from pathlib import Path

import numpy as np


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended meanwhile
        return 0


def can(act):
    try:
        act()
    except OSError:
        return 0
    return 1


def family():
    zygote = os.getppid()
    above = {zygote, parent(zygote)}
    pids = [int(one.name) for one in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if pid != os.getpid() and above & {pid, parent(pid)}]


def predict_fn(data, model):
    found = family()
    return np.array([
        len(found),
        sum(can(lambda: open(f"/proc/{pid}/mem", "r+b").close()) for pid in found),
        sum(can(lambda: os.readlink(f"/proc/{pid}/fd/0")) for pid in found),
        sum(can(lambda: os.kill(pid, 0)) for pid in found),
        int(Path("/proc/self/status").read_text().partition("NoNewPrivs:")[2].split()[0]),
    ])
"""


@contextmanager
def plain(root: Path, log: Path) -> Iterator[ManyModels]:
    """Serve the models below `root` as a user without privileges."""
    port = free_port()
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "container"),
        "SKSERVE_USER": "root",
        "SAGEMAKER_MULTI_MODEL": "true",
        "SKSERVE_MODEL_ROOT": str(root),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
    }
    command = [*PLAIN, sys.executable, "-m", "skserve", "serve", "--port", str(port)]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=environ, stdout=sink, stderr=sink)
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_until_ready(server)
        yield ManyModels(server, root)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def assert_shielded(running: ManyModels, signals: bool) -> None:
    found, memory, descriptors, signalled, privileged = running.invoke("spy").json()
    assert found >= 5, "the master, the zygote, two workers, a neighbour"
    assert (memory, descriptors, privileged) == (0, 0, 1)
    assert signalled == 0 or not signals
    assert running.invoke("iris").json() == [0]


@pytest.fixture(scope="module")
def shielded(add, tmp_path_factory) -> Iterator[ManyModels]:
    root = tmp_path_factory.mktemp("models")
    add(root, "iris")
    add(root, "spy", SPY)
    with plain(root, tmp_path_factory.mktemp("logs") / "log") as running:
        assert [running.load(name).status_code for name in ("iris", "spy")] == [200, 200]
        yield running


def test_no_process_of_ours_can_be_read_or_signalled_by_a_model(shielded):
    assert_shielded(shielded, signals=landlock())


def test_the_kernel_ends_a_model_first_where_memory_ends(shielded):
    """`/proc/self/oom_score_adj` is root's in a process that no other may read."""
    pids = {"model": shielded.models, "zygote": [shielded.zygote], "worker": shielded.workers}
    for kind, found in pids.items():
        for pid in found:
            score = int(Path(f"/proc/{pid}/oom_score_adj").read_text())
            assert (score > 500) == (kind == "model"), kind


def test_nor_in_the_image_under_a_user_of_its_own(image, add, tmp_path):
    for name, script in (("iris", ""), ("spy", SPY)):
        add(tmp_path / name, "model", script)
    options = ["--user", "10001", "--read-only", "--tmpfs", "/tmp"]
    with contained(image, tmp_path, options) as running:
        for name in ("iris", "spy"):
            assert running.load(name, f"/opt/ml/models/{name}/model").status_code == 200
        assert_shielded(running, signals=False)  # an old Docker lets no container ask for Landlock


def landlock() -> bool:
    """Whether this kernel can keep a process from signalling others."""
    code = "from skserve import privileges; print(privileges.confine())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "container")},
        capture_output=True,
        text=True,
        check=True,
    )
    return bool(json.loads(done.stdout.lower()))
