"""What one worker runs, lets wait and holds at once.

Whoever waits does so in a thread of the server, of which there are more than can ever wait here, so
`/ping` always finds one free.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import TypeVar

from skserve.errors import Overloaded, TimedOut

T = TypeVar("T")


class Slots:
    """`running` threads that predict, and places for as many requests and `waiting` more.

    Make it after the fork: threads do not survive one.
    """

    def __init__(self, running: int, waiting: int, timeout: float, native_threads: int = 1) -> None:
        self._places = threading.BoundedSemaphore(running + waiting)
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(
            running, "predict", initializer=_limit_native_threads, initargs=(native_threads,)
        )
        self.stuck = 0  # predictions that outlived their request
        self.running = running

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place from before a body is read until its answer has left.

        Raises Overloaded at once where there is none, so slow clients are bounded like slow models.
        """
        if not self._places.acquire(blocking=False):
            raise Overloaded(
                "As many requests are running and waiting as may.", "Try again in a second."
            )
        try:
            yield
        finally:
            self._places.release()

    def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a slot. Raises TimedOut after the timeout (seconds).

        A prediction cannot be stopped: after a timeout its slot is lost until it ends by itself.
        """
        future = self._pool.submit(contextvars.copy_context().run, work)
        try:
            return future.result(self._timeout)
        except FutureTimeout:
            if future.done():
                raise  # the work itself raised TimeoutError
            raise self._timed_out(future) from None

    def _timed_out(self, future: Future[T]) -> TimedOut:
        if future.cancel():
            return TimedOut(
                f"No prediction slot was free within {self._timeout:g} s.", "Send fewer at a time."
            )
        self.stuck += 1
        future.add_done_callback(lambda _: self._came_back())
        return TimedOut(
            f"The prediction took longer than {self._timeout:g} s.",
            "Send fewer rows, or raise SAGEMAKER_MODEL_SERVER_TIMEOUT.",
        )

    def _came_back(self) -> None:
        self.stuck -= 1


def _limit_native_threads(count: int) -> None:
    """Give this thread its share of OpenMP threads; the process was started with one.

    One, because OpenMP does not survive the fork of a process that ran it in parallel.
    """
    if count > 1:
        from threadpoolctl import threadpool_limits

        threadpool_limits(count)


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
                )
            self._held += size
        try:
            yield
        finally:
            with self._lock:
                self._held -= size
