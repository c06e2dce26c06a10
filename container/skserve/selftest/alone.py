"""The model by itself, in a process of its own: what its method answers, how long its load takes.

No decoder and no fast path has a part in it: what the server answers can be held against it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from skserve.config import Config
from skserve.estimators.methods import find
from skserve.formats.answer import Answer
from skserve.formats.json_text import dumps
from skserve.formats.media_types import JSON
from skserve.inference import artifact
from skserve.inference.model import Model
from skserve.selftest.answers import Cells, read
from skserve.selftest.bodies import rows
from skserve.selftest.tables import Table

LIMIT = 300.0  # seconds


class Alone(NamedTuple):
    """What the process found: `phases` in seconds, `cells` where it had rows to answer.

    `failure` says why it has no cells.
    """

    phases: dict[str, float]
    cells: Cells | None = None
    failure: str = ""


def ask(config: Config, table: Table | None, method: str, types: list[str]) -> Alone:
    """Load the model of `config` and let `method` answer `table`; `types` are its columns'.

    To be called while this program has one thread.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, config, table, method, types))
    process.start()
    there.close()
    try:
        found = here.recv() if here.poll(LIMIT) else Alone({}, failure=f"no answer in {LIMIT} s")
    except EOFError:
        found = Alone({}, failure="its process ended")
    finally:
        process.kill()
        process.join()
    return found if isinstance(found, Alone) else Alone({}, failure=str(found))


def _answer(
    there: Connection, config: Config, table: Table | None, method: str, types: list[str]
) -> None:
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123  # what the model prints is no report
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    phases: dict[str, float] = {}
    try:
        began = time.perf_counter()
        artifact.import_scikit_learn()
        phases["scikit-learn imported"] = time.perf_counter() - began
        began = time.perf_counter()
        model = Model.load(config.model_dir, replace(config, accelerate="off"))
        phases["the model read"] = time.perf_counter() - began
        own = find(model.estimator, method)
        if table is None or own is None:
            there.send(Alone(phases))
            return
        began = time.perf_counter()
        answer = Answer.of(own(_x(table, types)), method)
        phases["the first prediction"] = time.perf_counter() - began
        there.send(Alone(phases, read(JSON, dumps(answer.rows()))))
    except BaseException as error:  # whatever a model raises
        there.send(Alone(phases, failure=f"{type(error).__name__}: {error}"[:300]))


def _x(table: Table, types: list[str]) -> Any:
    """Return what the estimator was fitted on: a DataFrame where it knows names, else an array."""
    if table.text:
        return rows(table)
    if table.names is None and "category" not in types:
        return np.array(table.rows, np.float64 if table.numeric else object)
    import pandas

    frame = pandas.DataFrame(table.rows, columns=table.names).infer_objects()
    for name, kind in zip(frame.columns, types, strict=True):
        if kind in ("text", "number", "category"):
            frame[name] = frame[name].astype(
                {"text": "object", "number": "float64"}.get(kind, kind)
            )
    return frame
