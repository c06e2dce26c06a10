"""What gunicorn runs: its settings, and the application that each worker makes after the fork."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from skserve import telemetry
from skserve.config import Config
from skserve.errors import StartError
from skserve.inference.model import Model
from skserve.inference.source import Source
from skserve.multi_model.client import ModelClient
from skserve.multi_model.supervisor import Supervisor
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.memory import Bodies
from skserve.scheduling.retirement import Retirement
from skserve.scheduling.slots import Slots
from skserve.serving import inline, multi_model_api, summary
from skserve.serving.app import create_app
from skserve.serving.arbiter import Arbiter
from skserve.serving.balancer import Balancer
from skserve.serving.metrics import Exposition
from skserve.serving.preload import failures_said
from skserve.serving.sizing import Limits, Plan, places
from skserve.serving.worker import Worker
from skserve.serving.worker_counts import WorkerCounts

log = logging.getLogger("skserve")

# Seconds from SIGTERM until what still runs is abandoned; SageMaker kills after 30.
GRACE = 23

# Calls that one worker of the multi-model mode has in work, over all models.
PLACES = 512


class Application(BaseApplication):  # type: ignore[misc]
    """What is the same for one model and for many."""

    inline: inline.Inline  # what the poller answers; made by `load`

    def __init__(self, config: Config, plan: Plan) -> None:
        self._config, self._plan = config, plan
        self._counts = WorkerCounts(config)
        self.balancer = Balancer(places(plan.workers), plan.workers)
        self._said, self._say = os.pipe()  # why a worker could not start, told to the master
        super().__init__()

    def run(self) -> None:
        """Run until gunicorn ends. Raises StartError in the master if a worker could not start."""
        master = os.getpid()
        try:
            Arbiter(self).run()
        except SystemExit:
            if os.getpid() == master:
                self.end()
                os.set_blocking(self._said, False)
                with suppress(BlockingIOError):
                    sentences = os.read(self._said, select.PIPE_BUF).split(b"\0")
                    raise StartError(sentences[0].decode()) from None
            raise

    def load_config(self) -> None:
        config, plan = self._config, self._plan
        options = {
            "bind": f"0.0.0.0:{config.port}",
            "workers": plan.workers,
            "worker_class": Worker,
            # Only a worker whose poller is blocked is killed by this; a slow prediction is not.
            "timeout": int(config.timeout) + 10,
            "graceful_timeout": GRACE,
            "control_socket_disable": True,
            # Who we are now: gunicorn's own default is who we were when it was imported.
            "user": os.geteuid(),
            "group": os.getegid(),
            "logger_class": Log,
            "proc_name": "skserve",
            "pre_fork": self._counts.about_to_fork,
            "post_fork": self._counts.forked,
            "worker_exit": _worker_exit,
            "child_exit": self._worker_ended,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    @property
    def limits(self) -> Limits:
        return Limits.make(self._config, self._plan)

    def bodies(self) -> Bodies:
        """Return what counts the bodies of a worker: its part of a share of the memory."""
        config = self._config
        return Bodies(max(config.in_flight // self._plan.workers, config.max_whole))

    def mind(self) -> None:
        """Look after what must not end before the master. Called often, in the master."""
        self._counts.look()

    def _worker_ended(self, arbiter: Arbiter, worker: Worker) -> None:
        """Note that a worker has ended. Called in the master."""
        worker.give_up_place()
        self._counts.ended(arbiter, worker)

    def end(self) -> None:
        """End what must not outlive the master. Called in the master."""

    def warm(self) -> bool:
        """Whether this worker can predict. Called often, in the worker."""
        return True

    def hung(self) -> bool:
        """Whether this worker can answer nothing any more."""
        return False

    def retires(self) -> str:
        """Return why this worker is to be replaced although it is well, or nothing."""
        return ""

    def cannot_start(self, sentence: str) -> None:
        """Tell the master why this worker cannot start. Called in the worker, before it ends."""
        os.write(self._say, sentence.encode(errors="replace")[: select.PIPE_BUF - 1] + b"\0")

    def start_failed(self) -> bool:
        """Whether a worker has said that it cannot start. Called in the master."""
        return bool(select.select([self._said], [], [], 0)[0])


class SingleModelApplication(Application):
    """Serves one model, loaded before the fork (`model`) or in each worker."""

    def __init__(
        self, config: Config, plan: Plan, model: Model | None, code: Source | None
    ) -> None:
        self._model, self._code = model, code
        self._registry: LocalModel | None = None
        self._retirement: Retirement | None = None
        telemetry.share(places(plan.workers), config.metrics)
        super().__init__(config, plan)

    def load(self) -> Any:
        """Make this worker's application. Called after the fork."""
        config, plan = self._config, self._plan
        machine, bodies = config.machine, self.bodies()
        self._retirement = Retirement(config.max_requests, machine.memory, machine.left)
        slots = Slots(
            plan.threads, config.queue, config.timeout, plan.native_threads, config.longest_wait
        )
        self._registry = LocalModel(slots, batching=config.batching, bodies=bodies)
        metrics = self._exposition() if config.metrics else None
        self.inline = inline.single(
            self._registry, lambda: self.balancer.complete and self.warm(), config, metrics
        )
        if self._model is not None and not self._model.script.model_warmup_fn:
            self._registry.fill(self._model)
            self._counts.ready()
        else:
            threading.Thread(target=self._load_here, name="load", daemon=True).start()
        config = replace(config, workers=plan.workers)
        return create_app(self._registry, config, bodies, metrics)

    def warm(self) -> bool:
        return self._registry is not None and self._registry.ready()

    def _exposition(self) -> Exposition:
        columns: Callable[[], Sequence[str]] = list
        if self._config.metrics_columns:
            columns = self._columns
        return Exposition(self._labels, columns, False)

    def _columns(self) -> Sequence[str]:
        """Return the names of the model's columns, or their numbers."""
        model = self._registry.model if self._registry else None
        return summary.column_names(model) if model else []

    def _labels(self) -> dict[str, str] | None:
        """Return what /metrics says of the model in this process, if there is one."""
        model = self._registry.model if self._registry else None
        return None if model is None else summary.labels(model)

    def hung(self) -> bool:
        hung = self._registry is not None and self._registry.hung()
        if hung:
            self._counts.hung()
        return hung

    def retires(self) -> str:
        if self._registry is None or self._retirement is None:
            return ""
        why = self._retirement.reason(self._registry.answered)
        if why:
            telemetry.ends("recycled")
        return why

    def _load_here(self) -> None:
        """Load or warm up in the worker, which answers /ping with 503 meanwhile."""
        assert self._registry is not None
        try:
            with failures_said(self._config):
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


class MultiModelApplication(Application):
    """Serves the models that are loaded while it runs, as the client of their processes."""

    def __init__(self, config: Config, plan: Plan, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        super().__init__(config, plan)

    def load(self) -> Any:
        """Make this worker's application. Called after the fork."""
        self._supervisor.forget()
        client = ModelClient(self._supervisor.control, self._config, PLACES)
        metrics = Exposition(lambda: None, list, True) if self._config.metrics else None
        self.inline = inline.many(client, self._config, metrics)
        self._counts.ready()
        return multi_model_api.create_app(client, self._config, self.bodies(), metrics)

    def mind(self) -> None:
        self._supervisor.mind()
        super().mind()

    def end(self) -> None:
        self._supervisor.stop()


class Log(Logger):  # type: ignore[misc]
    """gunicorn's logger without handlers of its own: `telemetry.configure` has set one for all."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True


def _worker_exit(arbiter: Any, worker: Worker) -> None:
    """End a worker whose predictions hang: Python would wait for their threads without limit."""
    if worker.app.hung():
        os._exit(0)
