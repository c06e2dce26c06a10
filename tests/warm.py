"""Starts of the server in which the imports find their modules in memory already.

Two seconds of a processor are what a start costs, and nearly all of them are imports. Here a host
process has imported what every server does, and each server is forked from it: everything from
`python -m skserve`'s first line on runs as ever, in a process of its own.

What a start imports, what it takes and what it weighs is tested by starts without this.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parent.parent

MODULES = (
    "skserve.inference.model",
    "skserve.multi_model.client",
    "skserve.serving.server",
)

CODE = "import sys; from tests import warm; warm.serve(int(sys.argv[1]), *sys.argv[2:])"


class Process:
    """A server that the host has forked; what is used of `subprocess.Popen`."""

    def __init__(self, host: Host, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._host, self._file = host, os.pidfd_open(pid)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._file], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._file], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(["skserve"], timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._file, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        self.returncode = self._host.ask({"wait": self.pid})
        os.close(self._file)


class Host:
    """The process that has imported what a server does, and forks servers.

    `pandas` says whether it has that as well: a server imports it for a script, for many models,
    and where the model needs it.
    """

    def __init__(self, pandas: bool) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        path = os.pathsep.join([str(ROOT / "container"), str(ROOT)])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CODE, str(theirs.fileno()), "pandas" if pandas else ""],
                env={**os.environ, **single, "PYTHONPATH": path},
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
            )

    def start(
        self, argv: Sequence[str], environ: dict[str, str], log: Any, module: str = "skserve"
    ) -> Process:
        """Start `python -m skserve` with `argv`; what it says goes to the file `log`."""
        asked = {"argv": argv, "environ": environ, "module": module}
        return Process(self, self.ask(asked, [log.fileno()]))

    def ask(self, asked: dict[str, Any], files: Sequence[int] = ()) -> int:
        socket.send_fds(self._socket, [json.dumps(asked).encode()], files)
        answer = self._socket.recv(64)
        assert answer, "the process that starts the servers has ended"
        return int(answer)

    def close(self) -> None:
        self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # a process that a test forked has the socket as well
            self._process.kill()
            self._process.wait()


def serve(descriptor: int, more: str) -> None:
    """Fork servers until the other end of the socket is closed. What the host runs."""
    from skserve.inference import artifact

    artifact.import_scikit_learn()  # without pandas, which it would import
    from skserve.multi_model.warm_up import WARM

    models = [name for name in WARM if name != "pandas"]
    for name in (*models, *MODULES, *more.split()):
        importlib.import_module(name)
    sys.path.remove(str(ROOT))
    with socket.socket(fileno=descriptor) as channel:
        while (heard := socket.recv_fds(channel, 1 << 20, 1))[0]:
            asked, files = json.loads(heard[0]), heard[1]
            if "wait" in asked:
                answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
            elif (answer := os.fork()) == 0:
                channel.close()
                _become_server(files[0], **asked)
            for file in files:
                os.close(file)
            channel.send(str(answer).encode())


def _become_server(log: int, argv: list[str], environ: dict[str, str], module: str) -> NoReturn:
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv[1:] = argv
        sys.path[1:1] = environ["PYTHONPATH"].split(os.pathsep)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        os._exit(int(ending.code or 0))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # where it has not ended by itself
