"""The process that forks, watches and ends one process per model, and knows which are loaded.

It is warm, so that a fork has everything a model needs in memory already, and it has one thread and
runs no user code, so that a fork is safe. Workers ask it over channels of their own; calls do not
pass through it: it makes a line between a worker and a model, and hands each its end.

What it holds of a model is an `Entry` in one of these states:

    NEW       loading for the first time; only the loader knows of it
    READY     answers
    DEAD      registered, without a process; the next call starts one
    STARTING  loading again; calls wait for it
    RETIRING  every prediction hangs; it answers what it can, ends, and is DEAD
    LEAVING   unloaded: it answers what it has, ends, and is forgotten
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol

from skserve import telemetry
from skserve.config import Config
from skserve.counters import ZYGOTE
from skserve.inference.calls import Call
from skserve.inference.model import Model
from skserve.inference.source import Source
from skserve.log_sink import sink
from skserve.multi_model import model_process, protocol, subreaper
from skserve.multi_model.log_capture import LogCapture, shown
from skserve.multi_model.protocol import Message

log = logging.getLogger("skserve")

# What most models are made of: imported once, here, and shared by all of them.
WARM = (
    "pandas",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.impute",
    "sklearn.linear_model",
    "sklearn.neighbors",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
)

# So many deaths within so many seconds, and a model is not started again until some have passed.
DEATHS = 5
DEATHS_WITHIN = 300

# Seconds beyond the timeout of a request that a model has to end, and that an answer may be late.
GRACE = 5

# Seconds that a process may live without its channel: if it is dying, its own end says why.
EXIT_GRACE = 1

# How many ends of processes are remembered, for those who ask a moment too late.
RECENT_EXITS = 100

# Models on a page of GET /models, unless fewer are asked for, and the bytes of such a page.
PAGE = 100
PAGE_BYTES = protocol.MESSAGE_LIMIT // 2


class State(Enum):
    NEW = "new"
    READY = "ready"
    DEAD = "dead"
    STARTING = "starting"
    RETIRING = "retiring"
    LEAVING = "leaving"


class Journal(Protocol):
    """Where the loaded models are written down, to outlive this process."""

    def write(self, models: dict[str, str]) -> None: ...


@dataclass(eq=False)
class Peer:
    """A worker's channel. It asks one thing at a time and waits for the answer."""

    channel: socket.socket

    def answer(self, message: Message, *descriptors: int) -> None:
        with suppress(OSError):  # the worker is gone, or does not read: its loss
            protocol.tell(self.channel, message, *descriptors)

    def refuse(self, status: int, message: str) -> None:
        self.answer({"status": status, "message": message})


@dataclass(eq=False)
class Process:
    """A process with its channel and its output. At `deadline` it is killed, for being `late`."""

    pid: int
    channel: socket.socket
    output: LogCapture
    began: float
    deadline: float | None
    late: str
    reason: str = ""  # why we have killed it
    failed: tuple[int, str] | None = None  # why it could not load, in its own words
    memory: tuple[int, int] = (0, 0)  # its part of what is shared, and its own, in bytes
    status: int | None = None  # with which it has ended, as waitpid says it
    exit_waiters: list[Peer] = field(default_factory=list)  # the workers that asked how it ended

    def kill(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)


@dataclass(eq=False)
class Entry:
    """A model: its name, where it is, its process if it has one, and who waits for that."""

    name: str
    url: str
    state: State = State.DEAD
    process: Process | None = None
    scripted: bool = False  # its calls need their headers
    asker: Peer | None = None  # who loads or unloads it
    callers: list[Peer] = field(default_factory=list)
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS))
    last_words: str = ""

    @property
    def registered(self) -> bool:
        return self.state not in (State.NEW, State.LEAVING)


def warm() -> None:
    """Import what models need, and take a first small model through its life.

    What scikit-learn makes at its first use is then made once, and its pages are shared.
    """
    logging.disable(logging.INFO)  # no caller asked for this model
    gc.disable()  # a collection would leave holes, which each model would fill in a copy
    for name in WARM:
        importlib.import_module(name)
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sample = make_pipeline(StandardScaler(), LogisticRegression()).fit([[0, 0], [1, 1]], [0, 1])
    with tempfile.TemporaryDirectory(prefix="skserve-") as folder:
        joblib.dump(sample, Path(folder) / "sample.joblib")
        Model.load(Path(folder), Config()).invoke(Call(b"[[1, 2]]"))
    gc.freeze()  # nothing of this is looked at again, and so copied, by a collection in a model
    gc.enable()
    logging.disable(logging.NOTSET)


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
        self._config, self._code, self._listener, self._liveness = config, code, listener, liveness
        self._pages = pages
        self._entries = {name: Entry(name, url) for name, url in models.items()}
        self._to_rebuild = deque(self._entries)
        self._processes: dict[int, Entry] = {}
        self._sweepers: set[int] = set()  # processes that remove a folder
        self._selector = selectors.DefaultSelector()
        self._recent_exits: dict[int, tuple[str, bool]] = {}  # how the last processes ended
        self._ending = False
        self._look, self._own = telemetry.MemoryLook(), (0, 0)
        self._oom_kills = config.machine.oom_kills()
        self._words: dict[str, Callable[[Peer, Message], None]] = {
            "load": self._load,
            "unload": self._unload,
            "describe": self._describe,
            "list": self._list,
            "connect": self._connect,
            "exit_reason": self._exit_reason,
        }

    def run(self) -> None:
        self._catch_signals()
        self._watch(self._listener, self._let_in)
        self._watch(self._liveness, self._end)
        self._rebuild()
        while not self._ending:
            for key, _ in self._selector.select(self._patience()):
                # Skip a socket that an earlier event of this round closed.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            self._keep_time()
        subreaper.end(lambda _: False)

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

    # Workers

    def _let_in(self) -> None:
        with suppress(OSError):
            _, descriptors, _, _ = socket.recv_fds(self._listener, 16, 1)
            for descriptor in descriptors:
                channel = socket.socket(fileno=descriptor)
                channel.setblocking(False)
                peer = Peer(channel)
                self._watch(channel, partial(self._hear, peer))

    def _hear(self, peer: Peer) -> None:
        try:
            heard = protocol.hear(peer.channel)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            heard = None
        if heard is None:
            self._selector.unregister(peer.channel)
            peer.channel.close()
            for entry in self._entries.values():
                with suppress(ValueError):
                    entry.callers.remove(peer)
            return
        message, _ = heard
        self._words[message["do"]](peer, message)

    def _load(self, peer: Peer, message: Message) -> None:
        name, url = message["name"], message["url"]
        if name in self._entries:
            peer.refuse(409, f"Model {name} is already registered.")
            return
        entry = Entry(name, url, State.NEW, asker=peer)
        try:
            self._spawn(entry)
        except OSError as error:
            peer.refuse(507, f"No process can be started for the model: {error.strerror}.")
            return
        self._entries[name] = entry

    def _unload(self, peer: Peer, message: Message) -> None:
        entry = self._known(peer, message)
        if entry is None:
            return
        process, entry.asker = entry.process, peer
        if process is None:
            self._forget(entry)
            return
        if entry.state is State.READY:
            self._tell(process, {"drain": True})
        elif entry.state is State.STARTING:
            process.kill()
        entry.state = State.LEAVING
        process.deadline = time.monotonic() + self._config.timeout + GRACE
        process.late = "it did not end when it was unloaded"
        self._refuse_callers(entry, 404, _not_found(entry.name))

    def _describe(self, peer: Peer, message: Message) -> None:
        entry = self._known(peer, message)
        if entry is not None:
            peer.answer({"status": 200, "models": [[entry.name, entry.url]]})

    def _list(self, peer: Peer, message: Message) -> None:
        after, limit = message["after"], min(message["limit"], PAGE)
        names = sorted(name for name, entry in self._entries.items() if entry.registered)
        names = [name for name in names if after is None or name > after]
        page: list[tuple[str, str]] = []
        size = 0
        for name in names[:limit]:
            url = self._entries[name].url
            size += 6 * (len(name) + len(url))  # as escaped JSON, at the most
            if page and size > PAGE_BYTES:
                break
            page.append((name, url))
        peer.answer({"status": 200, "models": page, "more": len(page) < len(names)})

    def _connect(self, peer: Peer, message: Message) -> None:
        """Give a worker a line to a model; it waits where the model has to be started first."""
        entry = self._known(peer, message)
        if entry is None:
            return
        if entry.state is State.READY and entry.process and entry.process.status is None:
            self._join(peer, entry)
            return
        if entry.state is State.DEAD and not self._start_again(entry):
            peer.refuse(503, self._why_not(entry))
            return
        entry.callers.append(peer)

    def _exit_reason(self, peer: Peer, message: Message) -> None:
        """Say how a process ended that a worker has found dead, or hanging: then it is killed."""
        entry = self._processes.get(message["pid"])
        if entry is None or entry.process is None:
            how, starved = self._recent_exits.get(message["pid"], ("its process died", False))
            peer.answer({"status": 200, "said": how, "starved": starved})
            return
        if message["hung"]:
            entry.process.reason = "it did not answer in time, and was killed"
        entry.process.exit_waiters.append(peer)
        entry.process.kill()

    def _known(self, peer: Peer, message: Message) -> Entry | None:
        entry = self._entries.get(message["name"])
        if entry is not None and entry.registered:
            return entry
        peer.refuse(404, _not_found(message["name"]))
        return None

    def _join(self, peer: Peer, entry: Entry) -> None:
        assert entry.process is not None
        try:
            mine, theirs = protocol.line()
        except OSError as error:
            peer.refuse(503, f"No line can be made to model {entry.name}: {error.strerror}.")
            return
        with mine, theirs:
            try:
                protocol.tell(entry.process.channel, {"line": True}, theirs.fileno())
            except BlockingIOError:
                peer.refuse(503, f"Model {entry.name} takes no calls at the moment.")
            except OSError:  # it is dying, and its end starts another
                entry.callers.append(peer)
            else:
                answer = {
                    "status": 200,
                    "pid": entry.process.pid,
                    "scripted": entry.scripted,
                    "place": telemetry.counters.model(shown(entry.name)),
                }
                peer.answer(answer, mine.fileno())

    def _tell(self, process: Process, message: Message) -> None:
        with suppress(OSError):  # it dies, or does not listen; its death, or a timeout, is noticed
            protocol.tell(process.channel, message)

    def _refuse_callers(self, entry: Entry, status: int, message: str) -> None:
        callers, entry.callers = entry.callers, []
        for peer in callers:
            peer.refuse(status, message)

    # Models

    def _spawn(self, entry: Entry) -> None:
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
        now = time.monotonic()
        output = LogCapture(read, entry.name, self._config.log_format)
        patience = self._config.load_timeout
        late = f"it did not load within {patience:g} s"
        process = Process(pid, ours, output, now, now + patience, late)
        entry.process = process
        self._processes[pid] = entry
        self._watch(ours, partial(self._heard_from, entry, process))
        self._watch(read, partial(self._printed, process))

    def _become_model(self, entry: Entry, channel: socket.socket, output: int) -> NoReturn:
        """Leave nothing of the zygote in this new process but the memory."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            subreaper.adopt()
            os.dup2(output, 1)
            os.dup2(output, 2)
            kept = os.dup2(channel.fileno(), 3, inheritable=False)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            channel.detach()
            telemetry.alone()
            sink.open()
            model_process.call_it(shown(entry.name))
            model_process.run(entry.url, socket.socket(fileno=kept), self._config, self._code)
        finally:
            os._exit(1)  # never return into the zygote

    def _heard_from(self, entry: Entry, process: Process) -> None:
        """Take what the process of a model says: the user's code runs there, so anything."""
        try:
            heard = protocol.hear(process.channel)
        except BlockingIOError:
            return
        except OSError:
            heard = None
        except ValueError:
            process.reason = process.reason or "it wrote into the server's socket"
            heard = None
            process.kill()
        message, descriptors = heard or ({}, [])
        for descriptor in descriptors:
            os.close(descriptor)
        if heard is None:  # it is dying, or soon will be
            self._selector.unregister(process.channel)
            process.deadline = time.monotonic() + EXIT_GRACE
            process.late = "it closed the server's socket"
        elif "loaded" in message and entry.state in (State.NEW, State.STARTING):
            entry.scripted = bool(message.get("scripted"))
            self._loaded(entry, process, _words(message["loaded"]))
        elif "failed" in message and entry.state in (State.NEW, State.STARTING):
            status = 507 if message.get("status") == 507 else 400
            process.failed = status, _words(message["failed"])
        elif "memory" in message:
            process.memory = _sizes(message["memory"])
            self._put_memory()
        elif "hung" in message and entry.state is State.READY:
            self._retire(entry, process)

    def _loaded(self, entry: Entry, process: Process, title: str) -> None:
        took = (time.monotonic() - process.began) * 1e3
        log.info("model %s: %s, loaded in %.0f ms", shown(entry.name), title, took)
        process.deadline = None
        entry.state = State.READY
        self._write_down()
        if entry.asker is not None:
            entry.asker.answer({"status": 200})
            entry.asker = None
        callers, entry.callers = entry.callers, []
        for peer in callers:
            self._join(peer, entry)
        self._rebuild()

    def _put_memory(self) -> None:
        """Add up the memory of the models and of this process for /metrics."""
        self._own = self._look.due() or self._own
        alive = [one.process.memory for one in self._entries.values() if one.process]
        for at, kind in enumerate(("shared", "private")):
            size = sum(one[at] for one in (self._own, *alive))
            telemetry.counters.put("skserve_memory_bytes", kind, size)

    def _retire(self, entry: Entry, process: Process) -> None:
        entry.state = State.RETIRING
        log.error("model %s: every prediction hangs; its process is replaced", shown(entry.name))
        self._tell(process, {"drain": True})
        process.reason = "every prediction hung"
        process.deadline = time.monotonic() + self._config.timeout + GRACE

    def _printed(self, process: Process) -> None:
        if not process.output.forward():
            self._selector.unregister(process.output.descriptor)

    def _reap(self) -> None:
        """Take in who has ended. A model has when all that it started has, which ends here too."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = ended
                self._sweepers.discard(pid)
                entry = self._processes.get(pid)
                if entry is not None and entry.process is not None:
                    entry.process.status = status
        if subreaper.kill(lambda pid: pid in self._processes or pid in self._sweepers):
            return  # we are woken again when they have ended
        for pid, entry in list(self._processes.items()):
            process = entry.process
            if process is not None and process.status is not None:
                del self._processes[pid]
                self._ended(entry, process, os.waitstatus_to_exitcode(process.status))

    def _ended(self, entry: Entry, process: Process, code: int) -> None:
        """Go on after the end of a model's process, whichever state it was in."""
        if process.channel in self._selector.get_map():
            self._heard_from(entry, process)  # its last words may still lie there
        self._clear(process)
        entry.process = None
        self._put_memory()
        how, starved = self._recent_exits[process.pid] = self._how(process, code)
        if len(self._recent_exits) > RECENT_EXITS:
            del self._recent_exits[next(iter(self._recent_exits))]
        for peer in process.exit_waiters:
            peer.answer({"status": 200, "said": how, "starved": starved})
        asker, state = entry.asker, entry.state
        if state is State.LEAVING:
            self._forget(entry)
            self._rebuild()  # it may have been one of those that start
            return
        if state is State.NEW:
            del self._entries[entry.name]
            status, message = process.failed or (
                (507, "There was not enough memory to load the model: its process was killed.")
                if code == -signal.SIGKILL and not process.reason
                else (400, f"The model cannot be loaded: {how}.")
            )
            log.error("model %s: not loaded: %s", shown(entry.name), message)
            if asker is not None:
                asker.refuse(status, message)
            return
        entry.state = State.DEAD
        reason = "out_of_memory" if starved else "hang" if process.reason else "crash"
        telemetry.counters.add("skserve_worker_ends", reason)
        entry.deaths.append(time.monotonic())
        entry.last_words = process.failed[1] if process.failed else how + "."
        log.error("model %s: %s", shown(entry.name), entry.last_words)
        if state is State.STARTING:
            status = 507 if starved or (process.failed and process.failed[0] == 507) else 500
            words = f"Model {entry.name} died and cannot be started again: {entry.last_words}"
            self._refuse_callers(entry, status, words)
            self._rebuild()
        elif entry.callers and not self._start_again(entry):
            self._refuse_callers(entry, 503, self._why_not(entry))

    def _clear(self, process: Process) -> None:
        for file in (process.channel, process.output.descriptor):
            with suppress(KeyError):
                self._selector.unregister(file)
        process.channel.close()
        process.output.close()
        prefix = model_process.folder_prefix(process.pid)
        for left in Path(tempfile.gettempdir()).glob(prefix + "*"):
            self._remove(left)

    def _remove(self, folder: Path) -> None:
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
            self._sweepers.add(pid)

    def _how(self, process: Process, code: int) -> tuple[str, bool]:
        """Say how a process ended, and whether it was for want of memory."""
        before, self._oom_kills = self._oom_kills, self._config.machine.oom_kills()
        if process.reason:
            return process.reason, False
        if code == -signal.SIGKILL and self._oom_kills > before:
            return "its process ran out of memory", True
        if code < 0:
            with suppress(ValueError):
                return f"its process was ended by {signal.Signals(-code).name}", False
            return f"its process was ended by signal {-code}", False
        return f"its process ended by itself (exit status {code})", False

    def _start_again(self, entry: Entry) -> bool:
        """Start the process of a dead model, unless it has died too often."""
        if len(entry.deaths) == DEATHS and time.monotonic() - entry.deaths[0] < DEATHS_WITHIN:
            return False
        try:
            self._spawn(entry)
        except OSError as error:
            entry.last_words = f"no process can be started ({error.strerror})."
            return False
        entry.state = State.STARTING
        return True

    def _why_not(self, entry: Entry) -> str:
        if len(entry.deaths) < DEATHS:
            return f"Model {entry.name} cannot be started again: {entry.last_words}"
        wait = DEATHS_WITHIN - (time.monotonic() - entry.deaths[0])
        return (
            f"Model {entry.name} died {DEATHS} times, the last time because {entry.last_words} It "
            f"may be started again in {wait:.0f} s, or now if it is unloaded and loaded."
        )

    def _rebuild(self) -> None:
        """Load what the zygote before this one had loaded, as many at once as there are CPUs."""
        starting = sum(entry.state is State.STARTING for entry in self._entries.values())
        while self._to_rebuild and starting < max(1, int(self._config.machine.cpus)):
            entry = self._entries.get(self._to_rebuild.popleft())
            if entry is not None and entry.state is State.DEAD and not entry.deaths:
                starting += self._start_again(entry)

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.name]
        self._write_down()
        log.info("model %s: unloaded", shown(entry.name))
        if entry.asker is not None:
            entry.asker.answer({"status": 200})

    def _write_down(self) -> None:
        """Before the answer: what was answered is not forgotten."""
        entries = self._entries.values()
        self._pages.write({one.name: one.url for one in entries if one.state is not State.NEW})

    # Time

    def _patience(self) -> float | None:
        """Return the seconds until a process is late, or something is to be said, or None."""
        alive = [one.process for one in self._entries.values() if one.process]
        due = [end for one in alive for end in (one.deadline, one.output.due) if end is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _keep_time(self) -> None:
        """Kill who is late, and say whose output was thrown away."""
        now = time.monotonic()
        for entry in self._entries.values():
            process = entry.process
            if process is None:
                continue
            process.output.keep_time(now)
            if process.deadline is not None and process.deadline <= now:
                process.deadline, process.reason = None, process.late
                process.kill()


def _sizes(said: object) -> tuple[int, int]:
    """Return what a model's process says of its memory; nothing where it makes no sense."""
    match said:
        case [int(shared), int(private)] if all(0 <= size < 2**50 for size in (shared, private)):
            return shared, private
    return 0, 0


def _words(said: object) -> str:
    """Return what a model's process says as one line that fits into a message of ours."""
    return (
        " ".join(said[: model_process.WORDS_LIMIT].split()) if isinstance(said, str) else "no words"
    )


def _not_found(name: str) -> str:
    return f"Model not found: {name}"
