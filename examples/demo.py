"""Serve both examples with the real gunicorn, send real requests, print the answers, stop.

usage: python examples/demo.py     (make demo does it in an environment of its own)
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
START_LIMIT = 60  # seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101 - readable to the user that serves it
        regression, wine = Path(folder, "regression"), Path(folder, "wine")
        for name, target in (("regression", regression), ("wine", wine)):
            subprocess.run([sys.executable, HERE / name / "train.py", target], check=True)
        show_wine(wine)
        show_regression(regression)


def show_wine(model_dir: Path) -> None:
    from sklearn.datasets import load_wine

    wines = load_wine().data
    say("The wine recommender: StandardScaler and NearestNeighbors, no code at all")
    with server(model_dir) as url:
        row = wines[0].tolist()
        answer = json.loads(send(url, "application/json", json.dumps([row]).encode()))
        ten = zip(answer[0]["indices"], answer[0]["distances"], strict=True)
        say("  nearest to wine 0: " + ", ".join(f"{i} ({d:.4f})" for i, d in ten))
        send(url, "text/csv", ",".join(map(str, row)).encode() + b"\n", "text/csv")
        stream = io.BytesIO()
        np.save(stream, wines[:3])
        reply = send(url, "application/x-npy", stream.getvalue(), "application/x-npy", quiet=True)
        say(f"  npy of 3 wines in, npy out: shape {np.load(io.BytesIO(reply)).shape}")
        send(url, "application/json", b'{"instances": [[14.2, 1.7]]}')


def show_regression(model_dir: Path) -> None:
    from sklearn.datasets import load_diabetes

    rows = load_diabetes().data[:2]
    say("The regression: LinearRegression with an inference.py of all four functions")
    with server(model_dir) as url:
        send(url, "application/json", json.dumps({"patients": rows.tolist()}).encode())
        lines = "".join(",".join(map(str, row)) + "\n" for row in rows.tolist())
        send(url, "text/csv", lines.encode(), "text/csv")
        stream = io.BytesIO()
        np.save(stream, rows)
        send(url, "application/x-npy", stream.getvalue(), "text/csv")


@contextmanager
def server(model_dir: Path) -> Iterator[str]:
    """Start `skserve serve` on a free port and wait until it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "skserve", "serve", "--model-dir", str(model_dir)]
    environ = {**os.environ, "SAGEMAKER_CONTAINER_LOG_LEVEL": "30"}
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--port", str(port)], env=environ)
    url = f"http://127.0.0.1:{port}"
    try:
        while not ready(url):
            if process.poll() is not None or time.perf_counter() - began > START_LIMIT:
                raise SystemExit("The server did not start.")
            time.sleep(0.02)
        say(f"  ready after {time.perf_counter() - began:.2f} s")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
        say(f"  stopped with status {status}\n")


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/ping", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def send(
    url: str, content_type: str, body: bytes, accept: str = "application/json", quiet: bool = False
) -> bytes:
    """POST a body to /invocations and print the exchange."""
    headers = {"Content-Type": content_type, "Accept": accept}
    request = urllib.request.Request(url + "/invocations", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, reply = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, reply = error.code, error.read()
    if not quiet:
        text = body.decode() if body.isascii() and b"\0" not in body else f"<{len(body)} bytes>"
        say(f"  POST {content_type}: {shortened(text)}")
        say(f"    {status} {shortened(reply.decode(), 400)}")
    return reply


def shortened(text: str, most: int = 90) -> str:
    text = text.strip().replace("\n", " | ")
    return text if len(text) <= most else text[: most - 3] + "..."


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
