"""How much memory a process takes, of what it shares and of its own."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from skserve.telemetry import counters

# Seconds between two looks at the memory of a process, and how often that may cost as much as the
# look itself: it takes longer where there is much.
LOOK, RARELY = 10, 200


def memory() -> tuple[int, int] | None:
    """Return this process's part of the memory it shares with others and its own, in bytes.

    Added up over all processes that share, the parts are what is shared, once.
    """
    kib = {}
    try:
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
            name, size = line.split()[:2]
            kib[name] = int(size)
    except (OSError, ValueError):
        return None
    private = kib.get("Private_Clean:", 0) + kib.get("Private_Dirty:", 0)
    return 1024 * (kib.get("Pss:", 0) - private), 1024 * private


class MemoryLook:
    """Looks at the memory of this process now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def due(self) -> tuple[int, int] | None:
        """Return what `memory` says, if the last look is long enough ago."""
        began = time.monotonic()
        if began < self._next:
            return None
        found = memory()
        ended = time.monotonic()
        self._next = ended + max(LOOK, RARELY * (ended - began))
        return found

    def put(self) -> None:
        """Put what `memory` says where `/metrics` finds it, if the last look is long enough ago."""
        if (found := self.due()) is not None:
            for kind, size in zip(("shared", "private"), found, strict=True):
                counters.put("skserve_memory_bytes", kind, size)

    def keep_putting(self) -> None:
        """Do so as long as this process lives, in a thread."""

        def look() -> None:
            while True:
                self.put()
                time.sleep(LOOK)

        threading.Thread(target=look, name="memory", daemon=True).start()
