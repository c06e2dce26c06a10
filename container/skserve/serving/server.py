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
import signal
from typing import NoReturn

from skserve import __version__, logs, prints, privileges, telemetry
from skserve.config import Config
from skserve.inference import source
from skserve.log_sink import sink
from skserve.machine import resident
from skserve.serving import summary
from skserve.serving.preload import failures_said, preloaded
from skserve.serving.single_model_app import SingleModelApplication
from skserve.serving.sizing import Plan

log = logging.getLogger("skserve")


def serve(config: Config) -> NoReturn:
    """Serve the model of `config` until SIGTERM. Raises StartError; ends the process otherwise."""
    # PID 1 would ignore it until gunicorn; a script could catch what is raised.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sink.open()
    logs.configure(config.log_level, config.log_format, config.log_values)
    telemetry.took("import", telemetry.process_age())
    if config.multi_model:
        from skserve.serving import multi_model_app  # a server of one model has no use for it

        multi_model_app.serve(config)
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
