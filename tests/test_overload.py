"""More than a server can answer: the real one stays well, and says when to come back."""

from __future__ import annotations

import io
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from skserve.scheduling.costs import SMALL
from tests.conftest import Server, serving
from tests.servers import ONE, ROW, SLEEPY, children


def closed_loop(server: Server, callers: int, seconds: float) -> list[tuple[int, float, str]]:
    """Ask without a pause; return the status, the seconds and Retry-After of every answer."""
    end = time.monotonic() + seconds

    def ask(_: int) -> list[tuple[int, float, str]]:
        seen = []
        while time.monotonic() < end:
            began = time.perf_counter()
            answer = server.post(ROW)
            took = time.perf_counter() - began
            seen.append((answer.status_code, took, answer.headers.get("Retry-After", "")))
            if answer.status_code == 503:
                time.sleep(0.3)
        return seen

    with ThreadPoolExecutor(callers) as pool:
        return [one for seen in pool.map(ask, range(callers)) for one in seen]


def test_overload_is_refused_by_the_time_it_would_wait_and_no_worker_is_taken_for_hung(
    model_with_script, tmp_path
):
    settings = {**ONE, "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}
    folder = model_with_script(SLEEPY.format(seconds=0.05))
    with serving(folder, tmp_path / "log", **settings) as server:
        for _ in range(4):
            assert server.post(ROW).json() == [0]  # now its pace is known
        before, pings, over = children(server), Counter(), threading.Event()

        def ping() -> None:
            while not over.wait(0.1):
                pings[server.ping()] += 1

        with ThreadPoolExecutor(1) as other:
            other.submit(ping)
            seen = closed_loop(server, 60, 4)
            over.set()

        assert Counter(status for status, _, _ in seen).keys() == {200, 503}
        assert sum(status == 200 for status, _, _ in seen) > 50
        assert max(took for status, took, _ in seen if status == 200) < 2
        assert all(0 < int(later) < 60 for status, _, later in seen if status == 503)
        assert pings.keys() == {200}
        assert children(server) == before
    assert "hangs" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("callers", "seconds", "lasting"),
    [(64, 0.05, 2), pytest.param(16, 0.7, 3, marks=pytest.mark.soak)],
)
def test_an_ordinary_burst_is_answered(model_with_script, tmp_path, callers, seconds, lasting):
    folder = model_with_script(SLEEPY.format(seconds=seconds))
    with serving(folder, tmp_path / "log", **ONE, SAGEMAKER_MODEL_SERVER_TIMEOUT="24") as server:
        seen = closed_loop(server, callers, lasting)

    assert Counter(status for status, _, _ in seen).keys() == {200}


def test_batch_lets_wait_what_would_be_refused(model_with_script, tmp_path):
    settings = {**ONE, "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2", "SAGEMAKER_BATCH": "true"}
    folder = model_with_script(SLEEPY.format(seconds=0.1))
    with (
        serving(folder, tmp_path / "log", **settings) as server,
        ThreadPoolExecutor(14) as callers,
    ):
        server.post("5.1,3.5,1.4,0.2", "text/csv")
        answers = callers.map(lambda _: server.post("5.1,3.5,1.4,0.2", "text/csv"), range(14))

        assert {answer.status_code for answer in answers} == {200}


def test_small_bodies_that_become_large_tables_end_no_worker(models, tmp_path):
    """Each becomes 30 MB of numbers, and their answers, where 60 KB came."""
    file = io.BytesIO()
    np.savez_compressed(file, np.random.default_rng(0).random((950_000, 4)) < 0.007)
    body = file.getvalue()
    assert len(body) < SMALL, "many are decoded at once"
    with (
        serving(models("iris"), tmp_path / "log", **ONE, SKSERVE_IN_FLIGHT_MB="200") as server,
        ThreadPoolExecutor(40) as callers,
    ):
        before = children(server)
        alone = server.post(body, "application/x-npz", Accept="text/csv")
        assert alone.status_code == 200
        peak = resident_peak(before[0])
        statuses = list(
            callers.map(lambda _: server.post(body, "application/x-npz").status_code, range(40))
        )

        assert children(server) == before
        assert 200 in statuses
        assert set(statuses) <= {200, 503}
        assert resident_peak(before[0]) < 2.5 * peak


def resident_peak(pid: int) -> int:
    """Return the most memory that a process has held, in KiB."""
    (line,) = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(line)
