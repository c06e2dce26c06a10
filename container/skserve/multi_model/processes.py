"""The processes of models: how they are forked, and how all of one that has ended is removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from skserve import telemetry
from skserve.config import Config
from skserve.inference.source import Source
from skserve.log_sink import sink
from skserve.multi_model import model_process, protocol, subreaper
from skserve.multi_model.entry import Entry
from skserve.multi_model.log_capture import LogCapture, shown
from skserve.multi_model.protocol import Peer


@dataclass(eq=False)
class Process:
    """A process with its channel and its output. `late` says what it has not done by `deadline`."""

    pid: int
    channel: socket.socket
    output: LogCapture
    began: float
    deadline: float | None
    late: str
    memory: tuple[int, int] = (0, 0)  # its part of what is shared, and its own, in bytes
    status: int | None = None  # with which it has ended, as waitpid says it
    exit_waiters: list[Peer] = field(default_factory=list)  # the workers that asked how it ended

    def kill(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)

    def drain(self) -> None:
        """Tell it to answer what it has, and to end."""
        with suppress(OSError):  # it dies, or does not listen; its death, or a timeout, is noticed
            protocol.tell(self.channel, {"drain": True})


class Processes:
    """The processes that live, or have ended and are not removed yet, and whose they are."""

    def __init__(self, config: Config, code: Source | None) -> None:
        self._config, self._code = config, code
        self._alive: dict[Entry, Process] = {}
        self._pids: dict[int, Entry] = {}
        self._removers: set[int] = set()  # processes that remove a folder

    def __iter__(self) -> Iterator[tuple[Entry, Process]]:
        return iter(list(self._alive.items()))

    def of(self, entry: Entry) -> Process | None:
        return self._alive.get(entry)

    def owner(self, pid: int) -> Entry | None:
        return self._pids.get(pid)

    def until_due(self) -> float | None:
        """Return the seconds until a process is late, or something is to be said, or None."""
        dues = (due for _, one in self for due in (one.deadline, one.output.due))
        due = min((due for due in dues if due is not None), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def spawn(self, entry: Entry) -> Process:
        """Fork the process of a model, which loads it. Raises OSError."""
        with contextlib.ExitStack() as undo:
            ours, theirs = protocol.channel()
            undo.callback(ours.close)
            undo.callback(theirs.close)
            read, written = os.pipe()
            undo.callback(os.close, written)
            undo.callback(os.close, read)
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if pid == 0:
                self._become_model(entry, theirs, written)
            undo.pop_all()
        theirs.close()
        os.close(written)
        ours.setblocking(False)
        os.set_blocking(read, False)
        now, patience = time.monotonic(), self._config.load_timeout
        output = LogCapture(read, entry.name, self._config.log_format)
        late = f"it did not load within {patience:g} s"
        process = self._alive[entry] = Process(pid, ours, output, now, now + patience, late)
        self._pids[pid] = entry
        return process

    def _become_model(self, entry: Entry, channel: socket.socket, output: int) -> NoReturn:
        """Leave nothing of the zygote in this new process but the memory."""
        try:
            signal.set_wakeup_fd(-1)  # else this process's signals would wake the zygote
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            subreaper.adopt()
            os.dup2(output, 1)
            os.dup2(output, 2)
            kept = os.dup2(channel.fileno(), 3, inheritable=False)
            # The channels of the workers and of all other models are open here as well.
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            channel.detach()
            telemetry.alone()
            sink.open()
            model_process.call_it(shown(entry.name))
            model_process.run(entry.url, socket.socket(fileno=kept), self._config, self._code)
        finally:
            os._exit(1)  # never return into the zygote

    def reap(self) -> list[tuple[Entry, Process]]:
        """Take in what has ended. A model has when all that it started has, which ends here too."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = ended
                self._removers.discard(pid)
                if pid in self._pids:
                    self._alive[self._pids[pid]].status = status
        if subreaper.kill(lambda pid: pid in self._pids or pid in self._removers):
            return []  # we are woken again when they have ended
        return [(entry, process) for entry, process in self if process.status is not None]

    def remove(self, entry: Entry, process: Process) -> None:
        """Close and remove what a process that has ended had."""
        del self._alive[entry], self._pids[process.pid]
        process.channel.close()
        process.output.close()
        prefix = model_process.folder_prefix(process.pid)
        for left in Path(tempfile.gettempdir()).glob(prefix + "*"):
            self._remove_folder(left)

    def _remove_folder(self, folder: Path) -> None:
        """Remove a folder; unless empty, in a process apart, so that no call waits for it."""
        with suppress(OSError):
            folder.rmdir()
            return
        with suppress(OSError):
            pid = os.fork()
            if pid == 0:
                try:
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os._exit(0)
            self._removers.add(pid)
