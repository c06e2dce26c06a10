"""What gunicorn runs for many models: its workers are clients of the models' processes."""

from __future__ import annotations

import logging
import resource
from typing import Any, NoReturn

from skserve import __version__, privileges, telemetry
from skserve.config import Config
from skserve.inference import source
from skserve.multi_model import warm_up
from skserve.multi_model.client import ModelClient
from skserve.multi_model.log_capture import shown
from skserve.multi_model.supervisor import Supervisor
from skserve.serving import multi_model_api, summary
from skserve.serving.gunicorn_base import Application
from skserve.serving.head import Line, Request
from skserve.serving.inline import Handler, Inline, always, invoke
from skserve.serving.metrics import Exposition
from skserve.serving.preload import failures_said
from skserve.serving.sizing import Plan, places

log = logging.getLogger("skserve")

# Calls that one worker has in work, over all models.
PLACES = 512

_TARGET = "x-amzn-sagemaker-target-model"


def serve(config: Config) -> NoReturn:
    """Serve the models that are loaded while this runs: each has a process of its own.

    The zygote they are forked from is made first, while this process has one thread and no port.
    Root is not given up here: the process of each model does so, before it reads the model.
    """
    privileges.shield()  # those of the workers, of the zygote and of the models as well
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with failures_said(config):
        code = source.shared(config)
    warm_up.warm()
    telemetry.phases.clear()  # those of a model that no caller asked for
    telemetry.took("import", telemetry.process_age())
    workers = config.workers or max(1, int(config.machine.cpus))
    telemetry.share(places(workers), config.metrics)
    supervisor = Supervisor(config, code)
    supervisor.start()
    plan = Plan(workers, PLACES + multi_model_api.MANAGED, 1)
    facts = {"model": "many, a process each"} | summary.of_machine(config, plan)
    log.info("skserve %s serves", __version__, extra={"facts": facts})
    MultiModelApplication(config, plan, supervisor).run()
    raise AssertionError("gunicorn ends the process")


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
        self.inline = _inline(client, self._config, metrics)
        self._counts.ready()
        return multi_model_api.create_app(client, self._config, self.bodies(), metrics)

    def mind(self) -> None:
        self._supervisor.mind()
        super().mind()

    def end(self) -> None:
        self._supervisor.stop()


def _inline(client: ModelClient, config: Config, metrics: Exposition | None) -> Inline:
    """Return what is answered inline where many models are served."""

    def name_in(line: Line) -> str | None:
        return multi_model_api.invoked(f"{line.method} {line.target}".encode("latin-1"))

    def facts_of(request: Request) -> dict[str, str] | None:
        name = name_in(request.line)
        return None if name is None else _facts(name, request)

    def called(request: Request) -> Handler | None:
        name = name_in(request.line)
        if name is None or not client.cheap(name, len(request.body)):
            return None
        facts, model = _facts(name, request), client.model(name)
        return lambda request: invoke(model, request, multi_model_api.fault, facts)

    return Inline(always(client.ready, config, metrics), called, facts_of)


def _facts(name: str, request: Request) -> dict[str, str]:
    """Return what the log says of a call of one of many models."""
    facts = {"model": shown(name)}
    if target := request.headers.get(_TARGET):
        facts["target"] = shown(target)
    return facts
