"""The zygote's supervisor, in the master: what must outlive the zygote is kept here.

The master makes the control socket to which workers send, and two pages of memory on which the
zygote writes which models are loaded. If the zygote dies, its models die with it; another is forked
from this process, reads the pages and loads them again. No part of this has a name in a folder or
a namespace, so no model's code can find it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from skserve.config import Config
from skserve.inference.source import Source
from skserve.multi_model import subreaper, zygote

log = logging.getLogger("skserve")

# Seconds between two attempts to start a zygote, and to wait for its end.
PAUSE = 1
PATIENCE = 3


class Journal:
    """Which models are loaded, as of the last answer given: each state on one page, in turn.

    A process that is killed while it writes one page leaves the other whole.
    """

    def __init__(self) -> None:
        self.files = [os.memfd_create(f"skserve-models-{turn}") for turn in range(2)]
        self._turn = 0

    def write(self, models: dict[str, str]) -> None:
        """Keep the url of each model by its name."""
        self._turn += 1
        text = json.dumps({"turn": self._turn, "models": models}).encode()
        file = self.files[self._turn % 2]
        os.truncate(file, 0)
        os.pwrite(file, text, 0)

    def read(self) -> dict[str, str]:
        """Return the models of the newest whole page."""
        newest: dict[str, Any] = {"turn": 0, "models": {}}
        for file in self.files:
            with suppress(ValueError):
                page = json.loads(os.pread(file, os.fstat(file).st_size, 0))
                newest = max(newest, page, key=lambda one: one["turn"])
        self._turn = newest["turn"]
        return dict(newest["models"])


class Supervisor:
    """Starts the zygote, and another one when it has died. Make it before any thread exists."""

    def __init__(self, config: Config, code: Source | None) -> None:
        self._config, self._code = config, code
        self._pages = Journal()
        self._listener, self.control = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._liveness: socket.socket | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="skserve-models-"))
        self._scratch.chmod(0o1777)  # models are another user's
        self._pid, self._started = 0, 0.0
        subreaper.adopt()

    def start(self) -> None:
        """Fork a zygote, which loads what the last one had loaded."""
        models = self._pages.read()
        self._clear()  # of what the models of the last one have left
        self._liveness, theirs = socket.socketpair()
        self._started = time.monotonic()
        self._pid = os.fork()  # the master has one thread, so no lock is held at this moment
        if self._pid == 0:
            _let_go_but(self._listener.fileno(), theirs.fileno(), *self._pages.files)
            zygote.run(
                self._config, self._code, self._listener, theirs, self._pages, models, self._scratch
            )
        theirs.close()

    def mind(self) -> None:
        """Start another zygote if this one has died. Called often."""
        if self._alive():
            # A process that was stopped cannot end by itself. It may have died since the look.
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGCONT)
        elif time.monotonic() - self._started > PAUSE:
            log.error(
                "The process that holds the models died; it is started again, and they with it."
            )
            self.start()

    def stop(self) -> None:
        """End the zygote and every model."""
        if self._liveness is None:
            return
        self._liveness.close()
        deadline = time.monotonic() + PATIENCE
        with suppress(ChildProcessError):  # gunicorn may have reaped it
            while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(self._pid, signal.SIGKILL)
                time.sleep(0.01)
        subreaper.end(_ours)

    def _clear(self) -> None:
        subreaper.end(_ours)
        for left in self._scratch.iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def forget(self) -> None:
        """Let go of what is the master's alone. Called in each worker."""
        self._listener.close()
        if self._liveness is not None:
            self._liveness.close()

    def _alive(self) -> bool:
        """Whether the zygote, the one holder of the other end of `_liveness`, still lives."""
        assert self._liveness is not None
        try:
            return bool(self._liveness.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False


def _ours(pid: int) -> bool:
    """Whether a child is a worker: the zygote and all below it have left this session."""
    return os.getsid(pid) == os.getsid(0)


def _let_go_but(*kept: int) -> None:
    """Close what a fork from the master brings along: its port, and its own end of `_liveness`."""
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in kept:
            with suppress(OSError):
                os.close(descriptor)
