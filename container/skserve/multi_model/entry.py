"""What the zygote knows of one model."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from skserve.multi_model.events import Ended, Failed

# So many deaths within so many seconds, and a model is not started again until some have passed.
DEATHS = 5
DEATHS_WITHIN = 300


class State(Enum):
    NEW = "new"
    READY = "ready"
    DEAD = "dead"
    STARTING = "starting"
    RETIRING = "retiring"
    LEAVING = "leaving"
    GONE = "gone"


@dataclass(eq=False)
class Entry:
    """A model: its name, where it is, its state, and who waits for that to change."""

    name: str
    url: str
    patience: float = 0.0  # seconds that its process has to end once it was told to
    state: State = State.DEAD
    scripted: bool = False  # its calls need their headers
    asker: Hashable = None  # who loads or unloads it
    callers: list[Hashable] = field(default_factory=list)
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS))
    last_error: str = ""
    reason: str = ""  # why its process was killed, if it was
    failure: Failed | None = None  # why its process could not load, in its own words
    planned: bool = False  # its process ends to be replaced by another

    @property
    def registered(self) -> bool:
        return self.state not in (State.NEW, State.LEAVING, State.GONE)

    def how_it_ended(self, end: Ended) -> str:
        """Say how its process ended."""
        if self.reason:
            return self.reason
        if end.out_of_memory:
            return "its process ran out of memory"
        if end.code < 0:
            with suppress(ValueError):
                return f"its process was ended by {signal.Signals(-end.code).name}"
            return f"its process was ended by signal {-end.code}"
        return f"its process ended by itself (exit status {end.code})"

    def dies_often(self, now: float) -> bool:
        return len(self.deaths) == DEATHS and now - self.deaths[0] < DEATHS_WITHIN

    def why_not(self, now: float) -> str:
        """Say why it is not started again."""
        if not self.dies_often(now):
            return f"Model {self.name} cannot be started again: {self.last_error}"
        return (
            f"Model {self.name} died {DEATHS} times, the last time because {self.last_error} It "
            f"may be started again in {DEATHS_WITHIN - (now - self.deaths[0]):.0f} s, or now if it "
            "is unloaded and loaded."
        )
