"""Whole data sets through the image: time, memory, and clients that stop half-way.

SKSERVE_SOAK_ROWS and SKSERVE_SOAK_MB make the long ones shorter.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
import requests
from sklearn.linear_model import LinearRegression

from tests.conftest import ROOT, serving
from tests.servers import HEAD, connect, until
from tests.test_image import Container, container, docker, readable
from tests.test_image import pytestmark as needs_docker

pytestmark = [*needs_docker, pytest.mark.soak]

ROWS = int(os.environ.get("SKSERVE_SOAK_ROWS", 10_000_000))
MEGABYTES = int(os.environ.get("SKSERVE_SOAK_MB", 1024))

CPU = """
import pathlib
v2, v1 = pathlib.Path("/sys/fs/cgroup/cpu.stat"), "/sys/fs/cgroup/cpuacct/cpuacct.usage"
print(int(v2.read_text().split()[1]) / 1e6 if v2.exists() else
      int(pathlib.Path(v1).read_text()) / 1e9)
"""
# One process, the way a notebook would do it, with our encoding.
BARE = """
import sys, time, joblib, pandas
from skserve.formats.answer import Answer
from skserve.formats.catalogue import ENCODERS
model = joblib.load("/opt/ml/model/model.joblib")
began = time.process_time()
y = model.predict(pandas.read_csv("/data/rows.csv", header=None).to_numpy())
body = ENCODERS["text/csv"](Answer.of(y), False)
print(time.process_time() - began, body.count(b"\\n"))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    X = np.random.default_rng(0).normal(size=(1000, 10))
    joblib.dump(LinearRegression().fit(X, X.sum(axis=1)), folder / "model.joblib")
    return readable(folder)


def block(columns: int) -> bytes:
    """Make 10,000 rows of CSV."""
    rows = np.random.default_rng(1).normal(size=(10_000, columns))
    return "".join(",".join(f"{one:.6f}" for one in row) + "\n" for row in rows).encode()


def pss(running: Container) -> int:
    """Return the bytes that the processes of a container hold, each shared page counted once."""
    total = 0
    for pid in docker("top", running.name, "-o", "pid").stdout.split()[1:]:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                total += int(line.split()[1]) << 10 if line.startswith("Pss:") else 0
    return total


class Watch(threading.Thread):
    """Keeps the largest PSS of a container, in bytes."""

    def __init__(self, running: Container) -> None:
        super().__init__(daemon=True)
        self._running, self.peak, self.over = running, 0, threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            self.peak = max(self.peak, pss(self._running))
            self.over.wait(1)


def test_ten_million_rows_in_flat_memory_for_little_more_than_bare_pandas(image, model, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    piece = block(10)
    with (data / "rows.csv").open("wb") as file:
        for _ in range(ROWS // 10_000):
            file.write(piece)
    readable(data)
    mounts = ["-v", f"{model}:/opt/ml/model:ro", "-v", f"{data}:/data:ro"]
    one = ["-e", "OMP_NUM_THREADS=1", "-e", "OPENBLAS_NUM_THREADS=1"]
    done = docker("run", "--rm", *mounts, *one, "--entrypoint", "python", image, "-c", BARE)
    bare = float(done.stdout.split()[0])

    with container(image, model, "-e", "SAGEMAKER_BATCH=true") as running:
        idle, before = pss(running), float(running.python(CPU))
        watch = Watch(running)
        watch.start()
        began = time.perf_counter()
        command = [ROOT / "local_test" / "batch_local.sh", running.url, data / "rows.csv", tmp_path]
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - began
        watch.over.set()
        watch.join()
        used = float(running.python(CPU)) - before

    lines = sum(chunk.count(b"\n") for chunk in chunks(tmp_path / "rows.csv.out"))
    per_row = used / ROWS * 1e6, bare / ROWS * 1e6
    print(f"{ROWS:,} rows in {seconds:.1f} s: {ROWS / seconds:,.0f} rows/s")
    print(f"CPU of the server {per_row[0]:.2f} us a row, of bare pandas {per_row[1]:.2f}")
    print(f"PSS {watch.peak >> 20} MiB at most, {idle >> 20} MiB idle")
    assert lines == ROWS
    assert watch.peak < 2 * idle + (200 << 20)
    assert per_row[0] < 1.4 * per_row[1]


def chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def test_a_gigabyte_passes_through_600_megabytes(image, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    X = np.random.default_rng(0).normal(size=(1000, 30))
    joblib.dump(LinearRegression().fit(X, X.sum(axis=1)), folder / "model.joblib")
    piece = block(30)
    count = (MEGABYTES << 20) // len(piece) + 1
    options = ["--memory", "600m", "--read-only", "--tmpfs", "/tmp"]
    options += ["-e", "SAGEMAKER_MAX_PAYLOAD_IN_MB=0", "-e", "SAGEMAKER_MODEL_SERVER_TIMEOUT=900"]
    with container(image, readable(folder), *options) as running:
        answer = requests.post(
            running.url + "/invocations",
            data=(piece for _ in range(count)),
            headers={"Content-Type": "text/csv", "Accept": "text/csv"},
            timeout=1800,
        )
        assert answer.status_code == 200, answer.text[:500]
        assert answer.content.count(b"\n") == count * 10_000
        assert running.ready()


def test_an_endless_body_is_cut_at_the_limit(models, tmp_path):
    def endless() -> Iterator[bytes]:
        while True:
            yield b"1,2,3\n" * 10_000

    settings = {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "20", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with serving(models("named"), tmp_path / "log", **settings) as server:
        headers = {"Content-Type": "text/csv"}
        answer = requests.post(
            server.url + "/invocations", data=endless(), headers=headers, timeout=120
        )
        assert answer.status_code == 413
        assert "more than 20,971,520 bytes" in answer.json()["error"]["message"]
        assert server.post("1,2,3\n", "text/csv").status_code == 200


@pytest.mark.parametrize("what", ["writing", "reading"])
def test_a_client_that_stops_half_way_frees_its_place(models, tmp_path, what):
    settings = {
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
        "SKSERVE_THREADS": "1",
        "SKSERVE_QUEUE": "0",
    }
    with serving(models("named"), tmp_path / "log", **settings) as server, connect(server) as slow:
        body = b"1,2,3\n" * 2_000_000
        head = HEAD + b"Accept: text/csv\r\nContent-Length: %d\r\n\r\n" % len(body)
        slow.sendall(head + (body if what == "reading" else body[: len(body) // 2]))
        time.sleep(1)
        assert server.post("[[1, 2, 3]] " * 100).status_code == 503 or what == "reading"
        began = time.monotonic()
        until(lambda: server.post("1,2,3\n" * 100_000, "text/csv").status_code == 200, 90)
        print(f"{what}: free after {time.monotonic() - began:.1f} s")
        assert list(Path("/proc", str(server.process.pid), "fd").glob("*"))
