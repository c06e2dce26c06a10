"""What is said of the server and its model at the start, and in the labels of `/metrics`."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import fields
from typing import Protocol

from skserve import archive, telemetry
from skserve.config import Config
from skserve.inference.model import Model
from skserve.inference.versions import installed

# Columns that are listed one by one, and digits of a digest.
LISTED, DIGITS = 12, 12

# Where the type of a column comes from, by what is known of it.
_SOURCES = {
    "number": "the estimator takes nothing else",
    "text": "the values that an encoder or imputer learned",
    "category": "the categories that a booster keeps",
    "any": "the model does not say; cells stay as they were sent",
    "unused": "no step reads it",
    "date": "the dates that an encoder learned",
}


class Plan(Protocol):
    """How the container is shared out."""

    @property
    def workers(self) -> int: ...

    @property
    def threads(self) -> int: ...

    @property
    def native_threads(self) -> int: ...


def of_model(model: Model | None) -> dict[str, str]:
    """Return what is known of the model, as lines to read."""
    if model is None:
        return {"model": "loads in each worker"}
    schema, fast = model.handler.schema, model.handler.fast
    slow = [name for name in schema.methods if name not in fast]
    return {
        "model": model.title,
        "versions": f"Python {sys.version.split()[0]}, "
        + ", ".join(f"{name} {installed(name)}" for name in ("scikit-learn", "numpy"))
        + (f", saved with {model.saved_with}" if model.saved_with else ""),
        "columns": _columns(model),
        "fast path": ", ".join(sorted(fast)) or "none",
        "as scikit-learn does it": ", ".join(slow) or "nothing",
    }


def of_machine(
    config: Config, plan: Plan, scripted: bool = False, resident: int = 0
) -> dict[str, str]:
    """Return how the machine is used and why, as lines to read; `resident` is in bytes."""
    machine, many = config.machine, config.multi_model
    why = "as set" if config.workers else f"for {machine.cpus:g} CPUs"
    if not (config.workers or many) and plan.workers < int(machine.cpus):
        why += f", as many as {machine.memory / 2**30:.1f} GiB of memory have room for"
    facts = {"workers": f"{plan.workers}, {why}"}
    if not many:
        what = "as set" if config.threads else "a script" if scripted else "no script"
        facts["threads"] = (
            f"{plan.threads} in each worker ({what}), "
            f"{plan.native_threads} of OpenMP and BLAS in each of these"
        )
    size = f", of which the model and its libraries take {resident >> 20} MiB" if resident else ""
    return facts | {
        "memory": f"{machine.memory / 2**30:.1f} GiB{size}",
        "settings": ", ".join(_settings(config)) or "as by default",
        "seconds": ", ".join(f"{name} {took:.2f}" for name, took in telemetry.phases.items()),
    }


def _columns(model: Model) -> str:
    schema = model.handler.schema
    if schema.text:
        return "one text, for the vectorizer"
    if schema.records:
        return "an object of values by their names"
    if not schema.columns:
        return "not known; each cell goes on as it was sent"
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, column in zip(column_names(model), schema.columns, strict=True):
        source = _SOURCES[column.kind] if column.source == "model" else column.source
        kinds.setdefault((column.kind, source), []).append(name)
    return "; ".join(
        f"{len(names)} of type {kind} ({source}): {_listed(names)}"
        for (kind, source), names in kinds.items()
    )


def column_names(model: Model) -> list[str]:
    """Return the names of the columns, or their numbers from 1 where they have none."""
    schema = model.handler.schema
    return list(schema.names or (str(at + 1) for at in range(len(schema.columns))))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _settings(config: Config) -> list[str]:
    """Name the settings that are not as by default, with their values."""
    return [
        f"{one.metadata['name']}={getattr(config, one.name)}"
        for one in fields(Config)
        if one.metadata and getattr(config, one.name) != one.default
    ]


def labels(model: Model) -> dict[str, str]:
    """Return what /metrics says of a model."""
    return {
        "estimator": type(model.estimator).__name__,
        "method": model.handler.method or "",
        "scikit_learn": installed("scikit-learn") or "",
        "saved_with": model.saved_with or "",
        "digest": telemetry.counters.digest,
        "accelerated": str(model.handler.method in model.handler.fast).lower(),
    }


def find_digest(config: Config) -> None:
    """Let the digest of the model's file be known, the first digits of its SHA-256.

    It takes a second for some 500 MB, so one worker makes it while all of them serve.
    """
    with suppress(OSError):
        found = archive.find_models(config.model_dir)
        if config.model_file:
            found = [config.model_dir / config.model_file]
        if len(found) == 1:
            telemetry.counters.digest = archive.sha256(found[0].open("rb"))[:DIGITS]
