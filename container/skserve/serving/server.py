"""gunicorn: how many processes and threads, when the model is loaded, how it all ends.

The model is loaded in this process before gunicorn binds the port, so its pages are shared by the
workers, and a model that cannot be loaded ends the process before anybody was told it serves. The
OpenMP library does not survive a fork after it ran in parallel, so this process runs it with one
thread, and the workers give each of their threads its share.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from skserve import __version__, logs, privileges, telemetry
from skserve.config import MIB, Config
from skserve.errors import StartError
from skserve.inference import source
from skserve.inference.model import Model
from skserve.inference.source import Source
from skserve.log_sink import sink
from skserve.machine import resident
from skserve.multi_model import warm_up
from skserve.multi_model.client import ModelClient
from skserve.multi_model.supervisor import Supervisor
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.memory import Bodies
from skserve.scheduling.retirement import Retirement
from skserve.scheduling.slots import Slots
from skserve.serving import multi_model_api, summary
from skserve.serving.app import create_app
from skserve.serving.arbiter import Arbiter
from skserve.serving.balancer import Balancer
from skserve.serving.metrics import Exposition
from skserve.serving.worker import Worker
from skserve.serving.worker_counts import WorkerCounts

log = logging.getLogger("skserve")

# Seconds from SIGTERM until what still runs is abandoned; SageMaker kills after 30.
GRACE = 23

# Seconds an idle connection is kept; SageMaker's router keeps its own for about a minute.
KEEP_ALIVE = 65

# Connections of a worker that may wait for their next request, and files left for all else.
IDLE, FILES = 1000, 128

# Threads beyond those that requests can hold, for /ping and refusals.
SPARE_THREADS = 16

# Calls that one worker of the multi-model mode has in work, over all models.
PLACES = 512

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

        workers x native threads stay within the CPUs; `scripted` models run one thread a worker.
        """
        free = config.machine.memory * 0.9 - resident
        affordable = max(1, int(free / WORKER_MEMORY))
        workers = config.workers or max(1, min(int(config.machine.cpus), affordable))
        threads = config.threads or (1 if scripted else 2)
        native = config.native_threads or max(1, int(config.machine.cpus / (workers * threads)))
        return cls(workers, threads, native)


def serve(config: Config) -> NoReturn:
    """Serve the model of `config` until SIGTERM. Raises StartError; ends the process otherwise."""
    # PID 1 would ignore it until gunicorn; a script could catch what is raised.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sink.open()
    logs.configure(config.log_level, config.log_format, config.log_values)
    telemetry.took("import", telemetry.process_age())
    if config.multi_model:
        _serve_many(config)
    logs.label_prints()
    privileges.give_up_root(config)
    with _failures_said(config), telemetry.phase("code"):
        code = source.fetch(config.model_dir, config)
    model = _preloaded(config, code)
    held, scripted = resident(), code is not None and code.program is not None
    plan = Plan.make(config, scripted, held)
    facts = summary.of_model(model) | summary.of_machine(config, plan, scripted, held)
    log.info("skserve %s serves", __version__, extra={"facts": facts})
    gc.collect()
    gc.freeze()  # a collection in a worker would write to, and so copy, every shared page
    _Gunicorn(config, plan, model, code).run()
    raise AssertionError("gunicorn ends the process")


def _serve_many(config: Config) -> NoReturn:
    """Serve the models that are loaded while this runs: each has a process of its own.

    The zygote they are forked from is made first, while this process has one thread and no port.
    Root is not given up here: the process of each model does so, before it reads the model.
    """
    privileges.shield()  # those of the workers, of the zygote and of the models as well
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with _failures_said(config):
        code = source.shared(config)
    warm_up.warm()
    telemetry.phases.clear()  # those of a model that no caller asked for
    telemetry.took("import", telemetry.process_age())
    workers = config.workers or max(1, int(config.machine.cpus))
    telemetry.share(_places(workers), config.metrics)
    keeper = Supervisor(config, code)
    keeper.start()
    plan = Plan(workers, PLACES + multi_model_api.MANAGED, 1)
    facts = {"model": "many, a process each"} | summary.of_machine(config, plan)
    log.info("skserve %s serves", __version__, extra={"facts": facts})
    _Gunicorn(config, plan, None, None, keeper).run()
    raise AssertionError("gunicorn ends the process")


@contextmanager
def _failures_said(config: Config) -> Iterator[None]:
    """Turn what the user's files may do while they are read into StartErrors."""
    try:
        yield
    except OSError as error:
        raise StartError(
            f"{error.filename or config.model_dir} cannot be read: {error.strerror or error}."
        ) from error
    except SystemExit as error:
        raise StartError("The model ended the program while it was loaded (sys.exit).") from error


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    """gunicorn's view of us: its settings, and the application of each worker."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        model: Model | None,
        code: Source | None,
        keeper: Supervisor | None = None,
    ) -> None:
        self._config, self._plan, self._model, self._code = config, plan, model, code
        self._keeper = keeper
        self._registry: LocalModel | None = None
        self._fleet: ModelClient | None = None
        self._retirement: Retirement | None = None
        self._scrape = b"GET " + config.metrics_path.encode()
        if keeper is None:
            telemetry.share(_places(plan.workers), config.metrics)
        self._counts = WorkerCounts(config)
        self.balancer = Balancer(_places(plan.workers))
        self._said, self._say = os.pipe()  # why a worker could not start, told to the master
        super().__init__()

    def run(self) -> None:
        """Run until gunicorn ends. Raises StartError in the master if a worker could not start."""
        master = os.getpid()
        try:
            Arbiter(self).run()
        except SystemExit:
            if self._keeper and os.getpid() == master:
                self._keeper.stop()
            os.set_blocking(self._said, False)
            with suppress(BlockingIOError):
                if os.getpid() == master:
                    sentences = os.read(self._said, select.PIPE_BUF).split(b"\0")
                    raise StartError(sentences[0].decode()) from None
            raise

    def load_config(self) -> None:
        config, plan = self._config, self._plan
        threads = plan.threads + config.queue + SPARE_THREADS
        options = {
            "bind": f"0.0.0.0:{config.port}",
            "workers": plan.workers,
            "worker_class": Worker,
            "threads": threads,
            # Beyond those with a request in a thread, as many as files may be open.
            "worker_connections": max(1, min(threads + IDLE, _descriptors() - FILES)),
            # Only a worker whose poller is blocked is killed by this; a slow prediction is not.
            "timeout": int(config.timeout) + 10,
            "graceful_timeout": GRACE,
            "keepalive": KEEP_ALIVE,
            "control_socket_disable": True,
            # Nothing that a proxy adds is believed, so proxies need no list.
            "forwarded_allow_ips": "*",
            "secure_scheme_headers": {},
            "forwarder_headers": "",
            # Who we are now: gunicorn's own default is who we were when it was imported.
            "user": os.geteuid(),
            "group": os.getegid(),
            "logger_class": _Log,
            "proc_name": "skserve",
            "pre_fork": self._counts.about_to_fork,
            "post_fork": self._counts.forked,
            "worker_exit": _worker_exit,
            "child_exit": self._worker_ended,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Make this worker's application. Called after the fork."""
        config, plan = self._config, self._plan
        bodies = Bodies(max(config.in_flight // plan.workers, config.max_whole))
        exposition = self._exposition() if config.metrics else None
        if self._keeper:
            self._keeper.forget()
            self._fleet = ModelClient(self._keeper.control, config, PLACES)
            self._counts.ready()
            return multi_model_api.create_app(self._fleet, config, bodies, exposition)
        machine = config.machine
        self._retirement = Retirement(config.max_requests, machine.memory, machine.left)
        slots = Slots(
            plan.threads, config.queue, config.timeout, plan.native_threads, config.longest_wait
        )
        self._registry = LocalModel(slots, batching=config.batching, bodies=bodies)
        if self._model is not None and not self._model.script.model_warmup_fn:
            self._registry.fill(self._model)
            self._counts.ready()
        else:
            threading.Thread(target=self._load_here, name="load", daemon=True).start()
        config = replace(config, workers=plan.workers)
        return create_app(self._registry, config, bodies, exposition)

    def mind(self) -> None:
        """Look after what must not end before the master. Called often, in the master."""
        if self._keeper:
            self._keeper.mind()
        self._counts.look()

    def _worker_ended(self, arbiter: Arbiter, worker: Any) -> None:
        """Note that a worker has ended. Called in the master."""
        worker.give_up_place()
        self._counts.ended(arbiter, worker)

    def _exposition(self) -> Exposition:
        columns: Callable[[], Sequence[str]] = list
        if self._config.metrics_columns and self._keeper is None:
            columns = self._columns
        return Exposition(self._labels, columns, self._keeper is not None)

    def _columns(self) -> Sequence[str]:
        """Return the names of the model's columns, or their numbers."""
        model = self._registry.model if self._registry else None
        return summary.column_names(model) if model else []

    def _labels(self) -> dict[str, str] | None:
        """Return what /metrics says of the model in this process, if there is one."""
        model = self._registry.model if self._registry else None
        return None if model is None else summary.labels(model)

    def cannot_start(self, sentence: str) -> None:
        """Tell the master why this worker cannot start. Called in the worker, before it ends."""
        os.write(self._say, sentence.encode(errors="replace")[: select.PIPE_BUF - 1] + b"\0")

    def start_failed(self) -> bool:
        """Whether a worker has said that it cannot start. Called in the master."""
        return bool(select.select([self._said], [], [], 0)[0])

    def hung(self) -> bool:
        """Whether this worker is to be replaced. Called every second, in the worker."""
        hung = self._registry is not None and self._registry.hung()
        if hung:
            self._counts.hung()
        return hung

    def retires(self) -> str:
        """Return why this worker is to be replaced although it is well, or nothing."""
        if self._registry is None or self._retirement is None:
            return ""
        why = self._retirement.reason(self._registry.answered)
        if why:
            telemetry.ends("recycled")
        return why

    def cheap(self, line: bytes, size: int) -> bool:
        """Whether the poller may answer a request itself; `line` is its method and path."""
        if line in (b"GET /ping", b"HEAD /ping", b"POST /ping", self._scrape):
            return True
        if self._fleet is not None:
            name = multi_model_api.invoked(line)
            return name is not None and self._fleet.cheap(name, size)
        called = self._registry if line == b"POST /invocations" else None
        return called is not None and called.cheap(size)

    def _load_here(self) -> None:
        """Load or warm up in the worker, which answers /ping with 503 meanwhile."""
        assert self._registry is not None
        try:
            with _failures_said(self._config):
                model = self._model or Model.load(
                    self._config.model_dir, self._config, self._code, self._plan.native_threads
                )
                model.warm_up()
        except StartError as error:
            self.cannot_start(str(error))  # the master then stops instead of starting another
            os._exit(1)
        except BaseException:
            log.exception("The model cannot be loaded.", extra={"at_start": True})
            self.cannot_start("The model cannot be loaded; the log has the traceback.")
            os._exit(1)
        self._registry.fill(model)
        self._counts.ready()


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's logger without handlers of its own: `logs.configure` has set one for all."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True


def _worker_exit(arbiter: Any, worker: Worker) -> None:
    """End a worker whose predictions hang: Python would wait for their threads without limit."""
    if worker.app.hung():
        os._exit(0)


def _preloaded(config: Config, code: Source | None) -> Model | None:
    """Load the model here, before the fork, unless told not to or its script prevents it."""
    if not config.preload:
        return None
    before = _threads_and_sockets()
    with _failures_said(config):
        # What each prediction may use is known before the size of the model is.
        jobs = Plan.make(config, code is not None, 0).native_threads
        model = Model.load(config.model_dir, config, code, jobs)
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


def _places(workers: int) -> int:
    """Return how many workers there may be at once: a reload starts new ones beside the old."""
    return 2 * workers + 8


def _descriptors() -> int:
    """Return how many files a process may have open, connections included."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
