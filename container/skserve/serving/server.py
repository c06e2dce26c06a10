"""The start: what is loaded before gunicorn, and in which order.

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
import signal
from typing import NoReturn

from skserve import __version__, logs, prints, privileges, telemetry
from skserve.config import Config
from skserve.inference import source
from skserve.log_sink import sink
from skserve.machine import resident
from skserve.multi_model import warm_up
from skserve.multi_model.supervisor import Supervisor
from skserve.serving import multi_model_api, summary
from skserve.serving.gunicorn_apps import PLACES, MultiModelApplication, SingleModelApplication
from skserve.serving.preload import failures_said, preloaded
from skserve.serving.sizing import Plan, places

log = logging.getLogger("skserve")


def serve(config: Config) -> NoReturn:
    """Serve the model of `config` until SIGTERM. Raises StartError; ends the process otherwise."""
    # PID 1 would ignore it until gunicorn; a script could catch what is raised.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sink.open()
    logs.configure(config.log_level, config.log_format, config.log_values)
    telemetry.took("import", telemetry.process_age())
    if config.multi_model:
        _serve_many(config)
    prints.label_prints()
    privileges.give_up_root(config)
    with failures_said(config), telemetry.phase("code"):
        code = source.fetch(config.model_dir, config)
    scripted = code is not None and code.program is not None
    if scripted:
        gc.enable()  # it may leave garbage
    model = preloaded(config, code)
    held = resident()
    plan = Plan.make(config, scripted, held)
    facts = summary.of_model(model) | summary.of_machine(config, plan, scripted, held)
    log.info("skserve %s serves", __version__, extra={"facts": facts})
    application = SingleModelApplication(config, plan, model, code)
    gc.collect()
    gc.freeze()  # a collection in a worker would write to, and so copy, every shared page
    gc.enable()
    application.run()
    raise AssertionError("gunicorn ends the process")


def _serve_many(config: Config) -> NoReturn:
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
