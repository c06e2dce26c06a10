"""What a plan is made of: calls with their final arguments, and waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Call:
    """One API call. `undo` takes back what it made, `file` is sent as the body."""

    service: str
    operation: str  # boto3's name, for example create_model
    arguments: Mapping[str, Any]
    why: str
    undo: Call | None = field(default=None, compare=False)
    effect: Literal["add", "change", "remove", "none", ""] = ""  # "": as the operation's verb says
    file: Path | None = field(default=None, compare=False)  # its digest is in the object's key


@dataclass(frozen=True)
class Wait:
    """Wait until the endpoint is `InService` with `config`, `settled` in any state, or `gone`."""

    endpoint: str
    until: Literal["in service", "settled", "gone"]
    limit_seconds: int
    config: str = ""


Step = Call | Wait


@dataclass(frozen=True)
class Plan:
    """`steps` in order, and what is told beside them.

    `restore` puts back on failure what had to be taken away meanwhile, `on_failure` notes that the
    config failed. `reasons` are old and new values, a line each; `notes` what stays as it is.
    """

    endpoint: str
    steps: tuple[Step, ...]
    restore: tuple[Call, ...] = ()
    config: str = ""
    on_failure: tuple[Call, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Say whether applying the plan would change anything."""
        return bool(self.steps)
