"""slowhttptest in its four modes: others are answered as long as it goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time

import pytest
import requests

from tests.conftest import Server, serving
from tests.servers import children

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not shutil.which("slowhttptest"), reason="slowhttptest is not installed"),
]

SECONDS = int(os.environ.get("SKSERVE_SLOW_SECONDS", "60"))
CONNECTIONS = 600

# What each mode sends slowly; `-n` and `-w` of the last: a byte of the answer at a time.
MODES = {
    "heads": ["-H", "-u", "{url}/ping", "-i", "5", "-x", "24"],
    "bodies": ["-B", "-u", "{url}/invocations", "-i", "5", "-x", "10", "-s", "8192"]
    + ["-f", "text/csv"],
    "ranges": ["-R", "-u", "{url}/ping", "-a", "5", "-b", "3000"],
    "readers": ["-X", "-u", "{url}/page/rows.js", "-n", "5", "-z", "8", "-w", "10", "-y", "20"]
    + ["-k", "3"],
}


def asked(server: Server, stop: threading.Event) -> tuple[list[float], list[str]]:
    """Ping and call once in a while; return the seconds that each took, and what went wrong."""
    took: list[float] = []
    wrong: list[str] = []
    while not stop.wait(0.2):
        for ask in (
            lambda: requests.get(f"{server.url}/ping", timeout=10).status_code,
            lambda: server.post("5.1,3.5,1.4,0.2", "text/csv").status_code,
        ):
            began = time.monotonic()
            try:
                status = ask()
            except requests.RequestException as error:
                wrong.append(str(error))
                continue
            took.append(time.monotonic() - began)
            if status != 200:
                wrong.append(str(status))
    return took, wrong


@pytest.mark.parametrize("mode", MODES)
def test_slow_clients_keep_no_other_out(models, tmp_path, mode):
    """600 slow connections at once, more than a worker has places for bodies."""
    environ = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SKSERVE_QUEUE": "16"}
    with serving(models("iris"), tmp_path / "log", **environ) as server:
        before = children(server)
        command = ["slowhttptest", *(part.format(url=server.url) for part in MODES[mode])]
        command += ["-c", str(CONNECTIONS), "-r", "200", "-l", str(SECONDS), "-p", "5"]
        stop = threading.Event()
        found: list[tuple[list[float], list[str]]] = []
        watcher = threading.Thread(target=lambda: found.append(asked(server, stop)))
        watcher.start()
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 60)
        stop.set()
        watcher.join()
        [(took, wrong)] = found
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
        print(mode, f"{len(took)} answers, {max(took):.2f} s at most", said[-600:])

        assert wrong == []
        # slowhttptest ends at once where each of its clients was answered.
        assert len(took) > SECONDS or "No open connections left" in said
        assert "service available:   NO" not in said
        assert children(server) == before
        assert " ERROR " not in server.log.read_text()
