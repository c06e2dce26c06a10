"""The process that forks, watches and ends one process per model, and knows which are loaded.

It is warm, so that a fork has everything a model needs in memory already, and it has one thread and
runs no user code, so that a fork is safe. Workers ask it over channels of their own; calls do not
pass through it: it makes a connection between a worker and a model, and hands each its end.

`lifecycle` decides what becomes of a model; this file turns what sockets, processes and the clock
say into its events, and carries its effects out.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from skserve import telemetry
from skserve.config import Config
from skserve.counters import ZYGOTE
from skserve.inference.source import Source
from skserve.log_sink import sink
from skserve.multi_model import events, lifecycle, model_process, protocol, subreaper
from skserve.multi_model.control import Control
from skserve.multi_model.effects import Effects, Journal
from skserve.multi_model.entry import Entry, State
from skserve.multi_model.processes import Process, Processes
from skserve.multi_model.protocol import Peer
from skserve.multi_model.reports import event_of, memory_of
from skserve.process_memory import MemoryLook

log = logging.getLogger("skserve")

# Seconds beyond the timeout of a request that a model has to end.
GRACE = 5


def run(
    config: Config,
    code: Source | None,
    listener: socket.socket,
    liveness: socket.socket,
    pages: Journal,
    models: dict[str, str],
    scratch: Path,
) -> NoReturn:
    """Serve until `liveness` ends, which the master holds; `models` are loaded first.

    Workers send the end of a channel of their own to `listener`. Models keep their files in
    `scratch`.
    """
    status = 1
    try:
        os.setsid()  # Ctrl-C is the master's business
        model_process.call_it("zygote")
        telemetry.counters.use(ZYGOTE)
        sink.open()  # what it wrote to was the master's
        subreaper.adopt()
        tempfile.tempdir = str(scratch)
        _Zygote(config, code, listener, liveness, pages, models).run()
        status = 0
    except BaseException:
        log.exception("The process that holds the models failed.")
    finally:
        if status == 0:  # else the next zygote begins here, and removes what is left
            shutil.rmtree(scratch, ignore_errors=True)
        sys.stderr.flush()
        os._exit(status)


class _Zygote:
    def __init__(
        self,
        config: Config,
        code: Source | None,
        listener: socket.socket,
        liveness: socket.socket,
        pages: Journal,
        models: dict[str, str],
    ) -> None:
        self._listener, self._liveness = listener, liveness
        self._machine, self._patience = config.machine, config.timeout + GRACE
        self._entries = {name: Entry(name, url, self._patience) for name, url in models.items()}
        self._processes = Processes(config, code)
        self._control = Control(self._entries, self._processes, self._happens, self._load)
        self._effects = Effects(
            self._entries,
            self._processes,
            pages,
            config.machine,
            self._happens,
            self._spawned,
            list(models),
        )
        self._selector = selectors.DefaultSelector()
        self._ending = False
        self._look, self._own = MemoryLook(), (0, 0)
        self._oom_kills = config.machine.oom_kills()

    def run(self) -> None:
        self._catch_signals()
        self._watch(self._listener, self._let_in)
        self._watch(self._liveness, self._end)
        self._effects.start_next()
        while not self._ending:
            for key, _ in self._selector.select(self._processes.until_due()):
                # Skip a socket that an earlier event of this round closed.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            self._keep_time()
        subreaper.end(lambda _: False)

    def _happens(self, entry: Entry, event: events.Event) -> None:
        """Let something happen to a model, and carry out what follows."""
        self._effects.carry_out(entry, lifecycle.handle(entry, event, time.monotonic()))

    def _catch_signals(self) -> None:
        for name in ("HUP", "INT", "TERM", "QUIT", "USR1", "USR2", "WINCH", "TTIN", "TTOU"):
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
        heard, woken = socket.socketpair()
        heard.setblocking(False)
        woken.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._woken = woken

        def reap() -> None:
            with suppress(BlockingIOError):
                heard.recv(4096)
            self._reap()

        self._watch(heard, reap)

    def _watch(self, file: socket.socket | int, act: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, act)

    def _end(self) -> None:
        self._ending = True

    # ------------------------------------------------------------------- what is heard from outside

    def _let_in(self) -> None:
        with suppress(OSError):
            _, descriptors, _, _ = socket.recv_fds(self._listener, 16, 1)
            for descriptor in descriptors:
                channel = socket.socket(fileno=descriptor)
                channel.setblocking(False)
                peer = Peer(channel)
                self._watch(channel, partial(self._hear, peer))

    def _hear(self, peer: Peer) -> None:
        """Take what a worker asks."""
        try:
            heard = protocol.hear(peer.channel)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            heard = None
        if heard is not None:
            self._control.handle(peer, heard[0])
            return
        self._selector.unregister(peer.channel)
        peer.channel.close()
        for entry in self._entries.values():
            with suppress(ValueError):
                entry.callers.remove(peer)

    def _load(self, name: str, url: str, peer: Peer) -> None:
        entry = self._entries[name] = Entry(name, url, self._patience, State.NEW, asker=peer)
        self._effects.carry_out(entry, [events.Spawn()])

    def _spawned(self, entry: Entry, process: Process) -> None:
        self._watch(process.channel, partial(self._heard_from, entry, process))
        self._watch(process.output.descriptor, partial(self._printed, process))

    def _heard_from(self, entry: Entry, process: Process) -> None:
        """Take what the process of a model says: the user's code runs there, so anything."""
        try:
            heard = protocol.hear(process.channel)
        except BlockingIOError:
            return
        except OSError:
            heard = None
        except ValueError:
            self._happens(entry, events.Malformed())
            heard = None
        message, descriptors = heard or ({}, [])
        for descriptor in descriptors:
            os.close(descriptor)
        if heard is None:  # it is dying, or soon will be
            self._selector.unregister(process.channel)
            self._happens(entry, events.Closed())
        elif "memory" in message:
            process.memory = memory_of(message["memory"])
            self._put_memory()
        elif (event := event_of(message, time.monotonic() - process.began)) is not None:
            self._happens(entry, event)

    def _printed(self, process: Process) -> None:
        if not process.output.forward():
            self._selector.unregister(process.output.descriptor)

    def _reap(self) -> None:
        for entry, process in self._processes.reap():
            assert process.status is not None
            if process.channel in self._selector.get_map():
                self._heard_from(entry, process)  # its last words may still lie there
            for file in (process.channel, process.output.descriptor):
                with suppress(KeyError):
                    self._selector.unregister(file)
            self._processes.remove(entry, process)
            code = os.waitstatus_to_exitcode(process.status)
            end = events.Ended(
                code, code == -signal.SIGKILL and self._oom_killed() and not entry.reason
            )
            self._control.ended(process, entry.how_it_ended(end), end.out_of_memory)
            self._happens(entry, end)
            self._put_memory()

    def _put_memory(self) -> None:
        """Add up the memory of the models and of this process for /metrics."""
        self._own = self._look.due() or self._own
        alive = [process.memory for _, process in self._processes]
        for at, kind in enumerate(("shared", "private")):
            size = sum(one[at] for one in (self._own, *alive))
            telemetry.counters.put("skserve_memory_bytes", kind, size)

    def _oom_killed(self) -> bool:
        """Whether the kernel has killed a process for want of memory since this was last asked."""
        before, self._oom_kills = self._oom_kills, self._machine.oom_kills()
        return self._oom_kills > before

    def _keep_time(self) -> None:
        """Kill what is late, and say whose output was thrown away."""
        now = time.monotonic()
        for entry, process in self._processes:
            process.output.keep_time(now)
            if process.deadline is not None and process.deadline <= now:
                self._happens(entry, events.Late(process.late))
