"""gunicorn: how many processes and threads, when the model is loaded, how it all ends.

The model is loaded in this process before gunicorn binds the port, so its pages are shared by the
workers, and a model that cannot be loaded ends the process before anybody was told it serves. The
OpenMP library does not survive a fork after it ran in parallel, so this process runs it with one
thread, and the workers give each of their threads its share.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import pwd
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from skserve import __version__, telemetry
from skserve.app import create_app
from skserve.bounds import Bodies, Slots
from skserve.config import MIB, Config
from skserve.errors import StartError
from skserve.model import Model
from skserve.registry import Single
from skserve.worker import Worker

log = logging.getLogger("skserve")

# Seconds from SIGTERM until what still runs is abandoned; SageMaker kills after 30.
GRACE = 23

# Seconds an idle connection is kept; SageMaker's router keeps its own for about a minute.
KEEP_ALIVE = 65

# Threads beyond those that requests can hold, for /ping and refusals.
SPARE_THREADS = 16

# What a worker adds to the memory of the process it was forked from, measured with pandas loaded.
WORKER_MEMORY = 64 * MIB


@dataclass(frozen=True)
class Plan:
    """How the container's CPUs and memory are shared out."""

    workers: int
    threads: int  # predictions at once in each worker
    native_threads: int  # OpenMP and BLAS threads of each prediction

    @classmethod
    def make(cls, config: Config, scripted: bool, resident: int) -> Plan:
        """Fit `config` to the machine; `resident` is what this process holds now, in bytes.

        workers x threads x native threads stay within the CPUs, but for one of each.
        """
        free = config.machine.memory * 0.9 - resident
        affordable = max(1, int(free / WORKER_MEMORY))
        workers = config.workers or max(1, min(int(config.machine.cpus), affordable))
        threads = config.threads or (1 if scripted else 2)
        native = config.native_threads or max(1, int(config.machine.cpus / (workers * threads)))
        return cls(workers, threads, native)


def serve(config: Config) -> NoReturn:
    """Serve the model of `config` until SIGTERM. Raises StartError; ends the process otherwise."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # PID 1 would ignore it until gunicorn
    telemetry.configure(config.log_level, config.log_format)
    _give_up_root(config)
    model = _preloaded(config)
    scripted = model is None or bool(model.script)
    plan = Plan.make(config, scripted, _resident())
    log.info(
        "skserve %s: %s, %d workers x %d threads x %d native on %.1f CPUs and %.1f GiB",
        __version__,
        model.title if model else "the model loads in each worker",
        plan.workers,
        plan.threads,
        plan.native_threads,
        config.machine.cpus,
        config.machine.memory / 2**30,
    )
    gc.collect()
    gc.freeze()  # a collection in a worker would write to, and so copy, every shared page
    _Gunicorn(config, plan, model).run()
    raise AssertionError("gunicorn ends the process")


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    """gunicorn's view of us: its settings, and the application of each worker."""

    def __init__(self, config: Config, plan: Plan, model: Model | None) -> None:
        self._config, self._plan, self._model = config, plan, model
        self._registry: Single | None = None
        super().__init__()

    def load_config(self) -> None:
        config, plan = self._config, self._plan
        options = {
            "bind": f"0.0.0.0:{config.port}",
            "workers": plan.workers,
            "worker_class": Worker,
            "threads": plan.threads + config.queue + SPARE_THREADS,
            # Only a worker whose poller is blocked is killed by this; a slow prediction is not.
            "timeout": int(config.timeout) + 10,
            "graceful_timeout": GRACE,
            "keepalive": KEEP_ALIVE,
            "control_socket_disable": True,
            # Who we are now: gunicorn's own default is who we were when it was imported.
            "user": os.geteuid(),
            "group": os.getegid(),
            "logger_class": _Log,
            "proc_name": "skserve",
            "worker_exit": _worker_exit,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Make this worker's application. Called after the fork."""
        config, plan = self._config, self._plan
        slots = Slots(plan.threads, config.queue, config.timeout, plan.native_threads)
        self._registry = Single(slots)
        if self._model is not None and not self._model.script.model_warmup_fn:
            self._registry.fill(self._model)
        else:
            threading.Thread(target=self._load_here, name="load", daemon=True).start()
        in_flight = config.in_flight_mb or config.machine.memory // MIB // 16
        limit = max(in_flight * MIB // plan.workers, config.max_body)
        return create_app(self._registry, config, Bodies(limit))

    def hung(self) -> bool:
        return self._registry is not None and self._registry.hung()

    def _load_here(self) -> None:
        """Load or warm up in the worker, which answers /ping with 503 meanwhile."""
        assert self._registry is not None
        try:
            model = self._model or Model.load(self._config.model_dir, self._config)
            model.warm_up()
        except StartError as error:
            log.error("%s", error)
            os._exit(Arbiter.WORKER_BOOT_ERROR)  # gunicorn then stops instead of starting another
        except BaseException:
            log.exception("The model cannot be loaded.")
            os._exit(Arbiter.WORKER_BOOT_ERROR)
        self._registry.fill(model)


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's logger without handlers of its own: `telemetry.configure` has set one for all."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True


def _worker_exit(arbiter: Any, worker: Worker) -> None:
    """End a worker whose predictions hang: Python would wait for their threads for ever."""
    if worker.app.hung():
        os._exit(0)


def _preloaded(config: Config) -> Model | None:
    """Load the model here, before the fork, unless told not to or its script prevents it."""
    if not config.preload:
        return None
    before = _threads_and_sockets()
    model = Model.load(config.model_dir, config)
    left = _threads_and_sockets() - before
    if not (model.script and left):
        return model
    log.info("The script leaves %s behind, which a fork would break.", " and ".join(sorted(left)))
    return None


def _threads_and_sockets() -> set[str]:
    """Name what this process has that workers forked from it could not share."""
    found = set()
    if threading.active_count() > 1 or len(list(Path("/proc/self/task").glob("*"))) > 1:
        found.add("threads")
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            if str(descriptor.readlink()).startswith("socket:"):
                found.add("sockets")
        except OSError:
            continue  # closed since
    return found


def _resident() -> int:
    """Return the bytes of memory that this process holds."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _give_up_root(config: Config) -> None:
    """Become SKSERVE_USER if started as root, and if they can read the model and the program."""
    if os.geteuid() != 0 or config.user == "root":
        return
    try:
        user = pwd.getpwnam(config.user)
    except KeyError:
        raise StartError(f"SKSERVE_USER is {config.user}, who does not exist here.") from None
    unreadable = _unreadable_to(user, config.model_dir)
    if unreadable:
        log.info("%s cannot read %s, so root serves.", config.user, unreadable)
        return
    _become(user)


def _become(user: pwd.struct_passwd) -> None:
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def _unreadable_to(user: pwd.struct_passwd, tree: Path) -> str:
    """Return the first path that `user` cannot read, or nothing: a child that became them looks."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become(user)
            program = (Path(__file__), Path(os.__file__), Path(numpy.__file__))
            first = _first_unreadable(itertools.chain(program, [tree], tree.rglob("*")))
            os.write(writer, os.fsencode(first)[:4096])
        finally:
            os._exit(0)  # never return into the program that was forked
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        path = os.fsdecode(answer.read())
    os.waitpid(child, 0)
    return path


def _first_unreadable(paths: Iterable[Path]) -> str:
    for path in paths:
        readable = os.access(path, os.R_OK)
        if not readable or (path.is_dir() and not os.access(path, os.X_OK)):
            return str(path)
    return ""
