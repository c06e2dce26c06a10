"""What gunicorn runs for one model, which its workers share, or load each."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from skserve import telemetry
from skserve.config import Config
from skserve.errors import StartError
from skserve.inference.integrity import check_digest
from skserve.inference.model import Model
from skserve.inference.source import Source
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.retirement import Retirement
from skserve.scheduling.slots import Slots
from skserve.serving import inline, summary
from skserve.serving.gunicorn_base import Application
from skserve.serving.metrics import Exposition
from skserve.serving.preload import failures_said
from skserve.serving.routes import create_app
from skserve.serving.sizing import Plan, places

log = logging.getLogger("skserve")


class SingleModelApplication(Application):
    """Serves one model, loaded before the fork (`model`) or in each worker.

    All that needs no process of its own is made before the fork: it is then in memory once.
    """

    def __init__(
        self, config: Config, plan: Plan, model: Model | None, code: Source | None
    ) -> None:
        self._model, self._code = model, code
        self._retirement: Retirement | None = None
        telemetry.share(places(plan.workers), config.metrics)
        super().__init__(config, plan)
        bodies = self.bodies()
        slots = Slots(
            plan.threads, config.queue, config.timeout, plan.native_threads, config.longest_wait
        )
        self._registry = LocalModel(slots, batching=config.batching, bodies=bodies)
        if model is not None and not model.script.model_warmup_fn:
            if plan.native_threads == 1:  # else it may leave threads here, which no fork survives
                self._registry.warm_up(model)
            self._registry.fill(model)
        metrics = self._exposition() if config.metrics else None
        self.inline = inline.single(
            self._registry, lambda: self.balancer.complete and self.warm(), config, metrics
        )
        config = replace(config, workers=plan.workers)
        self._app = create_app(self._registry, config, bodies, metrics)

    def load(self) -> Any:
        """Return this worker's application; its model may still load. Called after the fork."""
        machine = self._config.machine
        self._retirement = Retirement(self._config.max_requests, machine.memory, machine.left)
        if (model := self._registry.model) is not None:
            if self._plan.native_threads > 1:
                self._registry.warm_up(model)
            self._counts.ready()
        else:
            threading.Thread(target=self._load_here, name="load", daemon=True).start()
        return self._app

    def warm(self) -> bool:
        return self._registry.ready()

    def _exposition(self) -> Exposition:
        columns: Callable[[], Sequence[str]] = list
        if self._config.metrics_columns:
            columns = self._columns
        return Exposition(self._labels, columns, False)

    def _columns(self) -> Sequence[str]:
        """Return the names of the model's columns, or their numbers."""
        model = self._registry.model
        return summary.column_names(model) if model else []

    def _labels(self) -> dict[str, str] | None:
        """Return what /metrics says of the model in this process, if there is one."""
        model = self._registry.model
        return None if model is None else summary.labels(model)

    def hung(self) -> bool:
        hung = self._registry.hung()
        if hung:
            self._counts.hung()
        return hung

    def retires(self) -> str:
        if self._retirement is None:
            return ""
        why = self._retirement.reason(self._registry.answered)
        if why:
            telemetry.ends("recycled")
        return why

    def _load_here(self) -> None:
        """Load or warm up in the worker, which answers /ping with 503 meanwhile."""
        try:
            with failures_said(self._config):
                if self._model is None:  # its files are read again
                    check_digest(self._config.model_dir, self._config)
                model = self._model or Model.load(
                    self._config.model_dir, self._config, self._code, self._plan.native_threads
                )
                self._registry.warm_up(model)
        except StartError as error:
            self.cannot_start(str(error))  # the master then stops instead of starting another
            os._exit(1)
        except BaseException:
            log.exception("The model cannot be loaded.", extra={"at_start": True})
            self.cannot_start("The model cannot be loaded; the log has the traceback.")
            os._exit(1)
        self._registry.fill(model)
        self._counts.ready()
