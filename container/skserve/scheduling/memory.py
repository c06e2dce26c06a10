"""How many bytes the bodies in work take at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from skserve.errors import Overloaded


class Bodies:
    """Counts the bytes of bodies held at once against a limit."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held, self._lock = limit, 0, threading.Lock()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count `size` bytes in. Raises Overloaded where they do not fit beside the others."""
        with self._lock:
            if self._held and self._held + size > self._limit:
                raise Overloaded(
                    f"Bodies of {self._held:,} bytes are in work; {size:,} more do not fit.",
                    "Try again in a second, or send smaller bodies.",
                    "memory",
                )
            self._held += size
        try:
            yield
        finally:
            with self._lock:
                self._held -= size
