"""The zygote that dies, stops or lacks descriptors, and the supervisor that starts it again."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import skserve.multi_model.supervisor
from skserve.config import Config
from tests.many_models import alive, many_models
from tests.servers import until


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
