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
    """`steps` in order; `restore` puts back on failure what had to be taken away meanwhile."""

    endpoint: str
    steps: tuple[Step, ...]
    restore: tuple[Call, ...] = ()
    config: str = ""

    @property
    def changes(self) -> bool:
        """Say whether applying the plan would change anything."""
        return bool(self.steps)
