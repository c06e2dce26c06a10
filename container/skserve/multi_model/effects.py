"""Carries out the effects that `lifecycle.handle` returns: on processes, connections, workers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from skserve import telemetry
from skserve.machine import Machine
from skserve.multi_model import events, protocol
from skserve.multi_model.entry import Entry, State
from skserve.multi_model.log_capture import shown
from skserve.multi_model.processes import Process, Processes
from skserve.multi_model.protocol import Peer

log = logging.getLogger("skserve")


class Journal(Protocol):
    """Where the loaded models are written down, to outlive this process."""

    def write(self, models: dict[str, str]) -> None: ...


class Effects:
    """Carries out effects on `entries`, `processes` and `pages`.

    `happens` takes what comes of it, `spawned` a new process. The models of `waiting` are loaded,
    as many at once as there are CPUs.
    """

    def __init__(
        self,
        entries: dict[str, Entry],
        processes: Processes,
        pages: Journal,
        machine: Machine,
        happens: Callable[[Entry, events.Event], None],
        spawned: Callable[[Entry, Process], None],
        waiting: Sequence[str],
    ) -> None:
        self._entries, self._processes, self._pages, self._machine = (
            entries,
            processes,
            pages,
            machine,
        )
        self._happens, self._spawned, self._waiting = happens, spawned, deque(waiting)
        self._acts: dict[type, Callable[[Entry, Any], object]] = {
            events.Spawn: self._spawn,
            events.Kill: lambda entry, _: self._process(entry, Process.kill),
            events.Drain: lambda entry, _: self._process(entry, Process.drain),
            events.Deadline: self._set_deadline,
            events.Join: self._join,
            events.Answer: self._answer,
            events.Persist: lambda *_: self._persist(),
            events.Forget: lambda entry, _: self._entries.pop(entry.name),
            events.StartNext: lambda *_: self.start_next(),
            events.Count: lambda _, count: telemetry.counters.add("skserve_worker_ends", count.end),
            events.Say: self._say,
        }

    def carry_out(self, entry: Entry, effects: Sequence[events.Effect]) -> None:
        for effect in effects:
            self._acts[type(effect)](entry, effect)

    def _spawn(self, entry: Entry, _: events.Spawn) -> None:
        try:
            process = self._processes.spawn(entry)
        except OSError as error:
            self._happens(entry, events.Unstartable(error.strerror or str(error)))
            return
        self._spawned(entry, process)

    def _process(self, entry: Entry, act: Callable[[Process], None]) -> None:
        process = self._processes.of(entry)
        if process is not None:
            act(process)

    def _set_deadline(self, entry: Entry, deadline: events.Deadline) -> None:
        process = self._processes.of(entry)
        if process is not None:
            seconds = deadline.seconds
            process.deadline = None if seconds is None else time.monotonic() + seconds
            process.late = deadline.why

    def _join(self, entry: Entry, join: events.Join) -> None:
        """Give a worker a connection; it waits where the process has ended and that is not said."""
        peer, process = join.peer, self._processes.of(entry)
        assert isinstance(peer, Peer)
        assert process is not None
        if process.status is not None:
            entry.callers.append(peer)
            return
        try:
            mine, theirs = protocol.connection()
        except OSError as error:
            peer.refuse(503, f"No connection can be made to model {entry.name}: {error.strerror}.")
            return
        with mine, theirs:
            try:
                protocol.tell(process.channel, {"connect": True}, theirs.fileno())
            except BlockingIOError:
                peer.refuse(503, f"Model {entry.name} takes no calls at the moment.")
            except OSError:  # it is dying, and its end starts another
                entry.callers.append(peer)
            else:
                answer = {
                    "status": 200,
                    "pid": process.pid,
                    "scripted": entry.scripted,
                    "place": telemetry.counters.model(shown(entry.name)),
                }
                peer.answer(answer, mine.fileno())

    def _answer(self, entry: Entry, answer: events.Answer) -> None:
        if isinstance(answer.peer, Peer):
            answer.peer.answer({"status": answer.status, "message": answer.message})

    def _persist(self) -> None:
        entries = self._entries.values()
        self._pages.write({one.name: one.url for one in entries if one.state is not State.NEW})

    def start_next(self) -> None:
        """Load what the zygote before this one had loaded, as many at once as there are CPUs."""
        starting = sum(entry.state is State.STARTING for entry in self._entries.values())
        while self._waiting and starting < max(1, int(self._machine.cpus)):
            entry = self._entries.get(self._waiting.popleft())
            if entry is not None:
                self._happens(entry, events.Start())
                starting += entry.state is State.STARTING

    def _say(self, entry: Entry, say: events.Say) -> None:
        log.log(logging.getLevelName(say.level), "model %s: %s", shown(entry.name), say.words)
