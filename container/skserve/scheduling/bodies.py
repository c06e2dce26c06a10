"""How many bytes the bodies in work take at once, and what is made of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from skserve.errors import Overloaded


class Bodies:
    """Counts bytes held at once against a limit."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held, self._lock = limit, 0, threading.Lock()

    @property
    def held(self) -> int:
        return self._held

    @contextmanager
    def hold(self, size: int, own: int = 0) -> Iterator[None]:
        """Count `size` bytes in. Raises Overloaded where they do not fit beside the others.

        Of what is counted, `own` bytes are of the same request: a request that is alone always
        fits.
        """
        # One lock around the look and the count: two requests would both find the last room free.
        with self._lock:
            if self._held > own and self._held + size > self._limit:
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
