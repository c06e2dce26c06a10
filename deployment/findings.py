"""What a check of preflight looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from deployment.aws import Cloud
from deployment.state import State, Target
from deployment.step import Plan

Level = Literal["ok", "unknown", "warn", "refuse"]


@dataclass(frozen=True)
class Finding:
    level: Level
    subject: str
    text: str
    hint: str = ""


@dataclass(frozen=True)
class Look:
    """What a check looks at."""

    cloud: Cloud
    target: Target
    state: State
    planned: Plan


Check = Callable[[Look], Iterator[Finding]]
