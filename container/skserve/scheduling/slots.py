"""What one worker runs, lets wait and holds at once.

A request waits in a thread of the server, of which there are more than can ever wait here, so
`/ping` always finds one free.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from skserve import telemetry
from skserve.errors import ModelFault, Overloaded, TimedOut

T = TypeVar("T")


class Slots:
    """`running` threads that predict, and places for as many requests and `waiting` more.

    Make it after the fork: threads do not survive one.
    """

    def __init__(self, running: int, waiting: int, timeout: float, native_threads: int = 1) -> None:
        self._places = threading.BoundedSemaphore(running + waiting)
        self.timeout = timeout
        self._pool = ThreadPoolExecutor(
            running, "predict", initializer=_limit_native_threads, initargs=(native_threads,)
        )
        self._lock = threading.Lock()
        self._asked: set[Future[Any]] = (
            set()
        )  # running or waiting, with a request that waits for it
        self._stuck = 0  # predictions that outlived their request
        self._running = running

    @property
    def hung(self) -> bool:
        """Whether every slot holds a prediction that outlived its request."""
        return self._stuck >= self._running

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

    def run(
        self,
        work: Callable[[], T],
        timeout: float | None = None,
        after: Callable[[T], object] | None = None,
    ) -> T:
        """Run `work` in a slot. Raises TimedOut after the timeout (seconds), or Overloaded.

        A prediction cannot be stopped: after a timeout its slot is lost until it ends by itself.
        `after` gets the result in the same slot, while it is returned here already.
        """
        future: Future[T] = Future()
        with self._lock:
            if self.hung:
                raise _hangs()
            if (record := telemetry.current()) is not None:
                record.wait()
            self._pool.submit(contextvars.copy_context().run, _do, future, work, after)
            self._asked.add(future)
        return self.wait(future, timeout)

    def wait(self, future: Future[T], timeout: float | None = None) -> T:
        """Wait for what a slot does. Raises TimedOut after the timeout (seconds), or Overloaded."""
        try:
            future.exception(self.timeout if timeout is None else timeout)
        except CancelledError:
            raise _hangs() from None
        except TimeoutError:
            self._give_up(future)
        finally:
            with self._lock:
                self._asked.discard(future)
        return safely(future.result)

    def _give_up(self, future: Future[T]) -> None:
        """Raise TimedOut for a request whose time is up, unless it ends at this very moment."""
        if future.cancel():
            raise TimedOut(
                f"No prediction slot was free within {self.timeout:g} s.", "Send fewer at a time."
            )
        if future.done():
            return
        with self._lock:
            self._stuck += 1
            # Answer all that wait now: this worker is replaced before a slot comes free.
            for one in self._asked if self.hung else ():
                one.cancel()
        future.add_done_callback(self._came_back)
        raise TimedOut(
            f"The prediction took longer than {self.timeout:g} s.",
            "Send fewer rows, or raise SAGEMAKER_MODEL_SERVER_TIMEOUT.",
        )

    def _came_back(self, _: Future[Any]) -> None:
        with self._lock:
            self._stuck -= 1


def _do(future: Future[T], work: Callable[[], T], after: Callable[[T], object] | None) -> None:
    """Do the work of a slot, if its request still waits for it."""
    if not future.set_running_or_notify_cancel():
        return
    if (record := telemetry.current()) is not None:
        record.waited()
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
        return
    future.set_result(result)
    if after:
        after(result)


def safely(work: Callable[[], T]) -> T:
    """Return or raise what the work did. Nothing that it raises ends the thread of the server."""
    try:
        return work()
    except Exception:
        raise
    except BaseException as error:
        raise ModelFault(
            f"The model tried to end the server ({type(error).__name__}).",
            "The log has the traceback.",
        ) from error


def _hangs() -> Overloaded:
    return Overloaded("Every prediction of this worker hangs.", "Try again in a second.", "hang")


def _limit_native_threads(count: int) -> None:
    """Give this thread its share of OpenMP threads; the process was started with one.

    One, because OpenMP does not survive the fork of a process that ran it in parallel.
    """
    if count > 1:
        from threadpoolctl import threadpool_limits

        threadpool_limits(count)


# Bytes in a small body: it is decoded without a slot, and may be answered by the poller.
SMALL = 64 << 10


class Pace:
    """Knows for which sizes of body the answers are cheap: less work than a hand-over to a thread.

    A size is what `int.bit_length` says of it. It is cheap after a few cheap answers in a row, and
    an answer that was not takes as many more as it was dearer.
    """

    CHEAP = 2e-3  # seconds of work
    PROOF = 4  # answers

    def __init__(self) -> None:
        self._missing = [self.PROOF] * SMALL.bit_length()

    def cheap(self, size: int) -> bool:
        """Whether a body of `size` bytes was lately answered at little cost."""
        step = size.bit_length()
        return step < len(self._missing) and not self._missing[step]

    def watch(self, size: int, work: Callable[[], T]) -> T:
        """Learn from the answer to a body of `size` bytes, which `work` makes in this thread."""
        cost = cost_since()
        answer = work()
        self.learn(size, cost())
        return answer

    def learn(self, size: int, seconds: float, alone: bool = True) -> None:
        """Learn what an answer to a body of `size` bytes cost, or one that was made with others."""
        step = size.bit_length()
        if step >= len(self._missing):
            return
        cost = seconds / self.CHEAP
        if cost <= 1:
            self._missing[step] = max(0, self._missing[step] - 1)
        elif alone:  # its part in a dear one is not known
            self._missing[step] = int(cost * self.PROOF)


def cost_since() -> Callable[[], float]:
    """Return a clock of the work of this thread from now on, in seconds.

    A thread may have to wait for a processor or for the interpreter: waiting counts a twentieth, so
    that only what waits by itself, say for a disk, is dear for that.
    """
    began, worked = time.perf_counter(), time.thread_time()
    return lambda: max(time.thread_time() - worked, (time.perf_counter() - began) / 20)


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
