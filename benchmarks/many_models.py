"""What many models in one server cost: memory, time to the first answer, an invoke, throughput.

usage: python benchmarks/many_models.py [MODELS]      (no Docker; root, to read other users' maps)

The server is `python -m skserve serve` of this checkout. Memory is PSS: each page counted once over
the processes that share it. The invoke is set against the same model served alone, in turns of the
same connections, so that what else the machine does meets both. Throughput is the CPU time that
eight hot models get of what the CPUs have.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).parent.parent
ROW = "5.1,3.5,1.4,0.2"
MIB = 1 << 20
TURNS, CALLS = 20, 50  # of the comparison with a single model: calls in each turn
HOT, SECONDS, CLIENTS = 8, 5, 2  # of the throughput: clients for each model


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "iris"
        save(model)
        with serving(model) as alone, serving(model, SAGEMAKER_MULTI_MODEL="true") as (pid, port):
            before = pss(pid)
            firsts = [first_answer(port, f"m{number}", model) for number in range(count)]
            held = pss(pid) - before
            print(f"{count} iris pipelines, each loaded and called once")
            print(f"  PSS of each            {held / count / MIB:8.2f} MiB")
            print(f"  POST to first answer   {statistics.median(firsts) * 1e3:8.1f} ms, median")
            print(f"  the slowest of them    {max(firsts) * 1e3:8.1f} ms")
            single, many = compare(alone[1], port)
            print(f"an invoke, median of {TURNS * CALLS} on one connection")
            print(f"  the model alone        {single * 1e3:8.3f} ms")
            print(f"  one of {count:<16}{many * 1e3:8.3f} ms, {(many - single) * 1e3:+.3f}")
            answers, share = throughput(pid, port)
            print(f"{HOT} hot models, {HOT * CLIENTS} clients")
            print(f"  answers a second       {answers:8.0f}")
            print(f"  CPU of the server      {share:8.2f} of {len(os.sched_getaffinity(0))}")


def save(folder: Path) -> None:
    folder.mkdir()
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(*load_iris(return_X_y=True))
    joblib.dump(fitted, folder / "model.joblib")


@contextmanager
def serving(model: Path, **settings: str) -> Iterator[tuple[int, int]]:
    """Run the server; yield its process and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "container"),
        "SKSERVE_USER": "root",
        "SKSERVE_MODEL_ROOT": str(model.parent),
        "SAGEMAKER_CONTAINER_LOG_LEVEL": "30",
        **settings,
    }
    command = [sys.executable, "-m", "skserve", "serve", "--port", str(port)]
    process = subprocess.Popen([*command, "--model-dir", str(model)], env=environ)
    try:
        while True:
            try:
                if ask(port, "GET", "/ping")[0] == 200:
                    break
            except OSError:
                time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def ask(port: int, method: str, path: str, body: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {"Content-Type": "text/csv"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def first_answer(port: int, name: str, model: Path) -> float:
    """Return the seconds from the POST that loads a model to the answer of its first call."""
    began = time.perf_counter()
    asked = json.dumps({"model_name": name, "url": str(model)})
    assert ask(port, "POST", "/models", asked)[0] == 200
    assert ask(port, "POST", f"/models/{name}/invoke", ROW)[0] == 200
    return time.perf_counter() - began


def family(pid: int) -> list[int]:
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in below for one in family(int(child)))]


def pss(pid: int) -> int:
    """Return the bytes that a server and all its processes hold."""
    total = 0
    for one in family(pid):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


def compare(alone: int, many: int) -> tuple[float, float]:
    """Return the median seconds of a call of the single server and of one of many models."""
    took: dict[int, list[float]] = {alone: [], many: []}
    paths = {alone: "/invocations", many: "/models/m0/invoke"}
    connections = {port: http.client.HTTPConnection("127.0.0.1", port) for port in took}
    for turn in range(TURNS + 1):
        for port, connection in connections.items():
            for _ in range(CALLS):
                began = time.perf_counter()
                connection.request("POST", paths[port], ROW, {"Content-Type": "text/csv"})
                connection.getresponse().read()
                if turn:  # the first warms up
                    took[port].append(time.perf_counter() - began)
    return statistics.median(took[alone]), statistics.median(took[many])


def throughput(pid: int, port: int) -> tuple[float, float]:
    """Return answers a second of eight models called at once, and the CPUs that serve them."""
    stop, counts = time.monotonic() + SECONDS, [0] * (HOT * CLIENTS)

    def call(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while time.monotonic() < stop:
            path = f"/models/m{client % HOT}/invoke"
            connection.request("POST", path, ROW, {"Content-Type": "text/csv"})
            assert connection.getresponse().read()
            counts[client] += 1

    clients = [threading.Thread(target=call, args=(one,)) for one in range(len(counts))]
    before = cpu_seconds(pid)
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return sum(counts) / SECONDS, (cpu_seconds(pid) - before) / SECONDS


def cpu_seconds(pid: int) -> float:
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
