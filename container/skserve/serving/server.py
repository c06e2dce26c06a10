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

from skserve import __version__, privileges, telemetry
from skserve.config import Config
from skserve.inference import source
from skserve.machine import resident
from skserve.multi_model import warm_up
from skserve.multi_model.supervisor import Supervisor
from skserve.serving import multi_model_api
from skserve.serving.applications import PLACES, MultiModelApplication, SingleModelApplication
from skserve.serving.preload import failures_said, preloaded
from skserve.serving.sizing import Plan

log = logging.getLogger("skserve")


def serve(config: Config) -> NoReturn:
    """Serve the model of `config` until SIGTERM. Raises StartError; ends the process otherwise."""
    # PID 1 would ignore it until gunicorn; a script could catch what is raised.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    telemetry.configure(config.log_level, config.log_format)
    if config.multi_model:
        _serve_many(config)
    privileges.give_up_root(config)
    with failures_said(config):
        code = source.fetch(config.model_dir, config)
    model = preloaded(config, code)
    plan = Plan.make(config, code is not None and code.program is not None, resident())
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
    SingleModelApplication(config, plan, model, code).run()
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
    keeper = Supervisor(config, code)
    keeper.start()
    workers = config.workers or max(1, int(config.machine.cpus))
    log.info(
        "skserve %s: many models, %d workers on %.1f CPUs and %.1f GiB",
        __version__,
        workers,
        config.machine.cpus,
        config.machine.memory / 2**30,
    )
    plan = Plan(workers, PLACES + multi_model_api.MANAGED, 1)
    MultiModelApplication(config, plan, keeper).run()
    raise AssertionError("gunicorn ends the process")
