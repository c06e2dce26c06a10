"""How much faster than AWS's this cloud's clocks run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speed:
    """Waits, periods and cooldowns are divided by `factor`; a start may take `startup_seconds`."""

    factor: float = 60.0
    startup_seconds: float = 60.0

    def seconds(self, asked: float) -> float:
        """Return how long something that AWS does in `asked` seconds takes here."""
        return asked / self.factor

    def startup(self, asked: float) -> float:
        """Return how long a container may take to its first good ping."""
        return min(asked, self.startup_seconds)
