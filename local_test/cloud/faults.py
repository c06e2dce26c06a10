"""Faults on request: POST /_cloud/faults, one JSON object a fault. docs/35-cloud.md lists them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ApiError, StartError, invalid

_FIELDS = {
    "container-dies": {"endpoint"},
    "slow-start": {"endpoint", "seconds"},
    "no-capacity": {"endpoint"},
    "throttle": {"operation"},
    "denied": {"operation"},
    "error": {"operation", "code"},
}
# What a fault may hold, and the type of each.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "fault": (str,), "endpoint": (str,), "operation": (str,), "seconds": (int, float),
    "code": (str,), "message": (str,), "status": (int,), "extra": (dict,),
    "times": (int,), "skip": (int,), "after": (bool,),
}  # fmt: skip
_REFUSALS: Mapping[str, Callable[[Mapping[str, Any]], ApiError]] = {
    "throttle": lambda fault: ApiError("ThrottlingException", "Rate exceeded"),
    "denied": lambda fault: ApiError(
        "AccessDeniedException",
        f"User is not authorized to perform: {fault['operation']} because no identity-based "
        "policy allows the action",
        403,
    ),
    "error": lambda fault: ApiError(
        fault["code"], fault.get("message", ""), fault.get("status", 400), **fault.get("extra", {})
    ),
}


class Faults:
    """What is to go wrong, each so many times."""

    def __init__(self) -> None:
        self._due: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self.kill: Callable[[str], None] = lambda endpoint: None

    def add(self, fault: Any) -> None:
        """Ask for a fault: `fault` names its kind, `times` how often it happens (default 1)."""
        if not isinstance(fault, dict):
            raise invalid(f"a fault is a JSON object, not {fault!r}")
        for key, value in fault.items():
            kinds = _TYPES.get(key)
            if kinds is None:
                raise invalid(f"a fault has no {key!r}, only {', '.join(_TYPES)}")
            if type(value) not in kinds:
                raise invalid(f"{key} of a fault is {' or '.join(k.__name__ for k in kinds)}, "
                              f"not {value!r}")  # fmt: skip
        kind = fault.get("fault", "")
        if kind not in _FIELDS:
            raise invalid(f"fault {kind!r} is none of {', '.join(_FIELDS)}")
        if missing := sorted(_FIELDS[kind] - set(fault)):
            raise invalid(f"the fault {kind} needs {', '.join(missing)}")
        if kind == "container-dies":
            self.kill(fault["endpoint"])
            return
        with self._lock:
            self._due.append({"times": 1, "skip": 0, **fault})

    def clear(self) -> None:
        """Take back all that has not happened yet."""
        with self._lock:
            self._due.clear()

    def list(self) -> list[dict[str, Any]]:
        """Return what has not happened yet."""
        with self._lock:
            return [dict(fault) for fault in self._due]

    def before_start(self, endpoint: str) -> None:
        """Let an instance's start be slow, or find no capacity."""
        if slow := self._take("slow-start", endpoint=endpoint):
            time.sleep(float(slow["seconds"]))
        if self._take("no-capacity", endpoint=endpoint):
            raise StartError(
                "Unable to provision requested ML compute capacity due to "
                "InsufficientInstanceCapacity error. Please retry using a different ML instance "
                "type or after some time."
            )

    def before_call(self, operation: str) -> tuple[ApiError, bool] | None:
        """Return the refusal that is due for a call; and whether it comes after it took effect."""
        for kind, refusal in _REFUSALS.items():
            if fault := self._take(kind, operation=operation):
                return refusal(fault), bool(fault.get("after"))
        return None

    def _take(self, kind: str, **where: str) -> dict[str, Any] | None:
        with self._lock:
            for fault in self._due:
                if fault["fault"] != kind or any(
                    fault[key] not in (value, "*") for key, value in where.items()
                ):
                    continue
                fault["skip"] -= 1
                if fault["skip"] >= 0:
                    return None
                fault["times"] -= 1
                if fault["times"] <= 0:
                    self._due.remove(fault)
                return fault
        return None
