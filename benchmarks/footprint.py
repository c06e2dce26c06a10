"""How fast a container of the image is ready, and what memory it holds.

usage: python benchmarks/footprint.py [IMAGE [auto|off]]

Needs Docker, and root, to read other users' maps. The second word is SKSERVE_ACCELERATE.

Start is from `docker run` to the first 200 on /ping, beside a container that only loads the same
model with joblib: most of a start is Python importing scikit-learn. Memory is PSS: each page
counted once over the processes that share it, summed over the container, after every worker has
answered. A large model is set against a tiny one in the same run, so that what it adds is a ratio
of its size.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_wine
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROWS, COLUMNS = 180_000, 300  # 432 MB of float64
START_LIMIT = 120  # seconds


def main(image: str = "skserve:1.9", accelerate: str = "auto") -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wine, large = Path(scratch, "wine"), Path(scratch, "large")
        wines = load_wine().data
        save(make_pipeline(StandardScaler(), NearestNeighbors(metric="cosine")).fit(wines), wine)
        X = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
        save(NearestNeighbors(algorithm="brute").fit(X), large)
        Path(scratch).chmod(0o755)
        print(
            f"{'model':8}{'workers':>8}{'ready s':>9}{'load s':>8}{'PSS MiB':>9}{'of its size':>13}"
        )
        for workers in (2, 4):
            start, tiny = measure(image, wine, workers, wines[0], accelerate)
            print(f"{'wine':8}{workers:8}{start:9.2f}{bare_load(image, wine):8.2f}{tiny:9.0f}")
            start, held = measure(image, large, workers, X[0], accelerate)
            added = (held - tiny) * 2**20 / X.nbytes
            load = bare_load(image, large)
            print(f"{'432 MB':8}{workers:8}{start:9.2f}{load:8.2f}{held:9.0f}{added:12.2f} x")


def save(model: object, folder: Path) -> None:
    folder.mkdir()
    joblib.dump(model, folder / "model.joblib")
    folder.chmod(0o755)
    (folder / "model.joblib").chmod(0o644)


def bare_load(image: str, model: Path) -> float:
    """Return the seconds of a container that does nothing but load the model."""
    command = ["docker", "run", "--rm", "-v", f"{model}:/opt/ml/model:ro", "--entrypoint", "python"]
    load = "import joblib; joblib.load('/opt/ml/model/model.joblib')"
    began = time.perf_counter()
    subprocess.run([*command, image, "-c", load], check=True)
    return time.perf_counter() - began


def measure(
    image: str, model: Path, workers: int, row: np.ndarray, accelerate: str
) -> tuple[float, float]:
    """Return the seconds until ready, and the PSS in MiB after requests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-v", f"{model}:/opt/ml/model:ro", "-p", f"127.0.0.1:{port}:8080"]
    options += ["-e", f"SAGEMAKER_MODEL_SERVER_WORKERS={workers}"]
    options += ["-e", f"SKSERVE_ACCELERATE={accelerate}"]
    command = ["docker", "run", "--rm", "--detach", *options, image, "serve"]
    began = time.perf_counter()
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        while ask(port, "GET", "/ping", None) != 200:
            assert time.perf_counter() - began < START_LIMIT, "not ready"
            time.sleep(0.01)
        ready = time.perf_counter() - began
        body = json.dumps([row.tolist()]).encode()
        for _ in range(16 * workers):  # each on a connection of its own, so every worker has some
            assert ask(port, "POST", "/invocations", body) == 200
        top = ["docker", "top", name, "-o", "pid"]
        pids = subprocess.run(top, capture_output=True, text=True, check=True).stdout.split()[1:]
        return ready, sum(pss(int(pid)) for pid in pids)
    finally:
        subprocess.run(["docker", "kill", name], capture_output=True, check=True)


def ask(port: int, method: str, path: str, body: bytes | None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def pss(pid: int) -> float:
    """Return the MiB of a process's proportional set."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"{pid} has no Pss")


if __name__ == "__main__":
    main(*sys.argv[1:])
