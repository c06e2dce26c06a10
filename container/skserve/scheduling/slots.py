"""What one worker runs and lets wait at once, and for how long.

A request waits in a thread of the server, of which there are more than can ever wait here, so
`/ping` always finds one free.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from skserve import telemetry
from skserve.errors import Overloaded
from skserve.scheduling.costs import Durations, wait_for_slot
from skserve.scheduling.native_threads import limit_native_threads
from skserve.scheduling.slot_errors import (
    about,
    hangs,
    late,
    no_place,
    no_slot,
    safely,
    took_too_long,
    whole_seconds,
)

T = TypeVar("T")

# Seconds for which an answer is still waited for that is being made when its time is up.
LEEWAY = 0.05

# How much longer than allowed a wait may be by the estimate, which is as exact as that at best.
MARGIN = 1.1


@dataclass(eq=False)
class _Job(Generic[T]):
    """Work for a slot. `size` is that of its body in bytes, where it has one of its own."""

    work: Callable[[], T]
    after: Callable[[T], object] | None
    size: int | None
    asked: float
    record: telemetry.Record | None = field(default_factory=telemetry.current)
    at_once: bool = False  # a slot was free when it was asked for
    future: Future[T] = field(default_factory=Future)


class Slots:
    """`running` threads that predict, and places for as many requests and `waiting` more.

    A request has `timeout` seconds, waiting included. One that would wait for more than
    `longest_wait` seconds, by what the last ones took, is refused. The threads start with the first
    work, which must come after the fork: threads do not survive one.
    """

    def __init__(
        self,
        running: int,
        waiting: int,
        timeout: float,
        native_threads: int = 1,
        longest_wait: float = math.inf,
    ) -> None:
        self._places = threading.BoundedSemaphore(running + waiting)
        self.timeout, self._longest_wait = timeout, longest_wait
        self._pool = ThreadPoolExecutor(
            running, "predict", initializer=limit_native_threads, initargs=(native_threads,)
        )
        self._lock = threading.RLock()  # `run` holds it while it asks `hung` and `check_wait`
        self._running = running
        self._waiting: dict[_Job[Any], None] = {}  # in the order in which they were asked for
        self._held: dict[_Job[Any], float] = {}  # what holds a slot, and since when
        self._worked: dict[object, float] = {}  # what the user's code works on, and since when
        self._answers, self._holds = Durations(), Durations()

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    @property
    def in_progress(self) -> int:
        """How many hold a slot."""
        return len(self._held)

    @property
    def hung(self) -> bool:
        """Whether every slot holds work that has run for as long as a request may take."""
        return self.hangs_in() <= 0

    def hangs_in(self) -> float:
        """Return the seconds until every slot hangs, unless some work ends before."""
        with self._lock:
            if len(self._worked) < self._running:
                return math.inf
            return max(self._worked.values()) + self.timeout - time.perf_counter()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place from before a body is read until its answer has left.

        Raises Overloaded at once where there is none, so slow clients are bounded like slow models,
        or where it would wait for too long.
        """
        self.check_wait()
        if not self._places.acquire(blocking=False):
            raise no_place(self._holds.expected(None))
        try:
            yield
        finally:
            self._places.release()

    def check_wait(self, calls: int = 0) -> None:
        """Raise Overloaded where a request would wait for too long, behind so many `calls` more."""
        with self._lock:
            wait = self._wait() + calls * self._holds.expected(None)
        if wait > MARGIN * self._longest_wait:
            rest = wait - self._longest_wait
            raise Overloaded(
                f"The request would wait for about {about(wait)}; "
                f"{self._longest_wait:g} s are allowed.",
                f"Try again in {whole_seconds(rest)} s, or raise SKSERVE_QUEUE_SECONDS.",
                "time",
                whole_seconds(rest),
            )

    def _wait(self) -> float:
        """Return the seconds after which what is asked for now would start."""
        now = time.perf_counter()
        left = [self._holds.expected(job.size) - (now - at) for job, at in self._held.items()]
        queued = (self._holds.expected(job.size) for job in self._waiting)
        return wait_for_slot(left, self._running, queued)

    def run(
        self,
        work: Callable[[], T],
        since: float | None = None,
        after: Callable[[T], object] | None = None,
        size: int | None = None,
        refusable: bool = False,
    ) -> T:
        """Run `work` in a slot. Raises TimedOut when its time is up, or Overloaded.

        Its time begins now, or at `since` (of `time.perf_counter`).
        A prediction cannot be stopped: after a timeout its slot is lost until it ends by itself.
        `after` gets the result in the same slot, while it is returned here already. Where it is
        `refusable` it is refused if it would wait for too long; the work on a part of a body which
        others have answered before is not.
        """
        job = _Job(work, after, size, time.perf_counter() if since is None else since)
        with self._lock:
            if self.hung:
                raise hangs()
            if refusable:
                self.check_wait()
            job.at_once = len(self._held) + len(self._waiting) < self._running
            if job.record is not None:
                job.record.wait()
            # Both under the lock: `_waiting` is in the order in which the pool takes them.
            self._waiting[job] = None
            self._pool.submit(contextvars.copy_context().run, self._do, job)
        try:
            return self.wait(job.future, None if since is None else since + self.timeout)
        finally:
            with self._lock:
                self._waiting.pop(job, None)

    def _do(self, job: _Job[Any]) -> None:
        """Do the work of a slot, if its request still waits for it and it can end in time."""
        began = time.perf_counter()
        with self._lock:
            self._waiting.pop(job, None)
            # From here on its request cannot cancel it, and waits for its end.
            if not job.future.set_running_or_notify_cancel():
                return
            self._held[job] = began
        if job.record is not None:
            job.record.waited()
        try:
            if not job.at_once and self._too_late(job.asked + self.timeout, job.size):
                job.future.set_exception(late(began - job.asked, self.timeout))
                return
            try:
                with self.working(job.asked if job.at_once else began):
                    result = job.work()
            except BaseException as error:
                job.future.set_exception(error)
                return
            finally:
                self._answers.learn(job.size, time.perf_counter() - began)
            job.future.set_result(result)
            if job.after:
                job.after(result)
            self._holds.learn(job.size, time.perf_counter() - began)
        finally:
            with self._lock:
                del self._held[job]

    def _too_late(self, deadline: float, size: int | None) -> bool:
        """Whether a body of `size` bytes that is begun now is hardly answered by `deadline`."""
        return time.perf_counter() + self._answers.expected(size) > deadline

    @contextmanager
    def working(self, began: float | None = None) -> Iterator[None]:
        """Count what is done inside as work that hangs once it has run for the timeout."""
        token = object()
        with self._lock:
            self._worked[token] = time.perf_counter() if began is None else began
        try:
            yield
        finally:
            with self._lock:
                del self._worked[token]

    def wait(self, future: Future[T], deadline: float | None = None) -> T:
        """Wait for what a slot does. Raises TimedOut at the `deadline`, or Overloaded."""
        if deadline is None:
            deadline = time.perf_counter() + self.timeout
        while not future.done():
            left = deadline - time.perf_counter() + LEEWAY * future.running()
            if left <= 0:
                self._give_up(future)
                break
            # This worker is replaced before a slot comes free that hangs: do not wait for that.
            patience = left if future.running() else min(left, self.hangs_in())
            if patience <= 0 and future.cancel():
                raise hangs()
            with suppress(TimeoutError):
                future.exception(max(0.0, patience))
        return safely(future.result)

    def _give_up(self, future: Future[Any]) -> None:
        """Raise TimedOut for a request whose time is up, unless it ends at this very moment."""
        if future.cancel():
            raise no_slot(self.timeout)
        if not future.done():
            raise took_too_long(self.timeout)
