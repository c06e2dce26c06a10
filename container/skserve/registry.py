"""A name to something that can be invoked. Single: the one model in this process.

`Slots` is where requests meet their bounds: so many predictions run, so many wait, each so long.
Whoever waits does so in a thread of the server, of which there are more than can ever wait here,
so `/ping` always finds one free.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Protocol, TypeVar

from skserve.codec import Call, Reply
from skserve.errors import NotReady, Overloaded, TimedOut
from skserve.model import Model

log = logging.getLogger("skserve")
T = TypeVar("T")


class Slots:
    """`running` threads that predict, `waiting` requests that may wait for one.

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

    def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a slot. Raises Overloaded at once, or TimedOut after the timeout (seconds).

        A prediction cannot be stopped: after a timeout its slot is lost until it ends by itself.
        """
        if not self._places.acquire(blocking=False):
            raise Overloaded(
                "As many requests are running and waiting as may.", "Try again in a second."
            )
        future = self._pool.submit(contextvars.copy_context().run, work)
        future.add_done_callback(lambda _: self._places.release())
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


class Registry(Protocol):
    """What the routes need of a registry."""

    def ready(self) -> bool: ...

    def invoke(self, call: Call) -> Reply: ...

    def describe(self) -> dict[str, object]: ...


class Single:
    """The registry of one model: loaded before the fork, or `fill`ed later."""

    def __init__(self, slots: Slots, model: Model | None = None) -> None:
        self._slots = slots
        self._model = model

    def fill(self, model: Model) -> None:
        self._model = model

    def ready(self) -> bool:
        """Whether a prediction could run now: a model is loaded and not every slot hangs."""
        return self._model is not None and not self.hung()

    def hung(self) -> bool:
        """Whether every slot holds a prediction that outlived its request."""
        return self._slots.stuck >= self._slots.running

    def invoke(self, call: Call) -> Reply:
        model = self._loaded()
        return self._slots.run(lambda: model.invoke(call))

    def describe(self) -> dict[str, object]:
        return self._loaded().describe()

    def _loaded(self) -> Model:
        if self._model is None:
            raise NotReady("The model is still loading.", "GET /ping says when it is ready.")
        return self._model
