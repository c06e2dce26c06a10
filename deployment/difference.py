"""Why a plan changes something: the wanted documents beside those that AWS describes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from deployment.step import Call, Plan

# Beside these, AWS's answers hold names, times and defaults that were never asked for.
_MODEL = ("ExecutionRoleArn", "PrimaryContainer", "EnableNetworkIsolation", "VpcConfig")
_CONFIG = (
    *("ProductionVariants", "ShadowProductionVariants", "AsyncInferenceConfig"),
    *("DataCaptureConfig", "KmsKeyId", "MetricsConfig"),
)
# Defaults that AWS adds to what it answers; their absence in a request is no change.
_ADDED = ("Mode", "VariantStatus", "CurrentWeight", "DesiredWeight", "AcceleratorType")
_OF_PACKAGE = ("Image", "ModelDataUrl")  # a container of a model package may be told with these
_ABSENT = "(not set)"


def lines(
    model: Mapping[str, Any],
    config: Mapping[str, Any],
    found_model: Mapping[str, Any],
    found_config: Mapping[str, Any],
) -> tuple[str, ...]:
    """Return `field: old -> new` for each field that differs. Models' names are left to `model`."""
    container = dict(found_model.get("PrimaryContainer") or {})
    if (model.get("PrimaryContainer") or {}).get("ModelPackageName"):
        container = {key: container[key] for key in container if key not in _OF_PACKAGE}
    found_model = {**found_model, "PrimaryContainer": container}
    return (
        *_compared(_chosen(found_model, _MODEL), _chosen(model, _MODEL)),
        *_compared(_chosen(found_config, _CONFIG), _chosen(config, _CONFIG)),
    )


def summary(plan: Plan) -> dict[str, int]:
    """Return how many things the plan adds, changes and removes."""
    counted = Counter(effect(step) for step in plan.steps if isinstance(step, Call))
    return {kind: counted[kind] for kind in ("add", "change", "remove")}


_VERBS = {"create": "add", "put": "add", "register": "add", "update": "change", "add": "change",
          "delete": "remove", "deregister": "remove"}  # fmt: skip


def effect(call: Call) -> str:
    """Return what a call does to the thing it names: add, change, remove or none."""
    return call.effect or _VERBS.get(call.operation.split("_")[0], "none")


def _chosen(document: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, str]:
    return {
        path: value for key in keys if key in document for path, value in _flat(key, document[key])
    }


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield each leaf below `value` with its path; elements of lists by name, or by number."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            if key not in ("ModelName", "VariantName", *_ADDED):
                yield from _flat(f"{path}.{key}", below)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        for number, below in enumerate(value):
            yield from _flat(f"{path}[{below.get('VariantName', number)}]", below)
    elif isinstance(value, list | tuple):
        yield path, ", ".join(map(str, value))
    elif value is not None and value != "":
        yield path, f"{value:g}" if isinstance(value, float) else str(value)


def _compared(found: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[str]:
    for path in [*found, *(path for path in wanted if path not in found)]:
        old, new = found.get(path, _ABSENT), wanted.get(path, _ABSENT)
        if old != new:
            yield f"{path}: {old} -> {new}"
