"""What calls cost: which are cheap enough for the poller, and how long the others take."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapreplace
from typing import TypeVar

T = TypeVar("T")

# Bytes in a small body: it is decoded without a slot, and may be answered by the poller.
SMALL = 64 << 10


class Pace:
    """Knows for which sizes of body the answers are cheap: less work than a hand-over to a thread.

    Sizes of the same `int.bit_length` count as one. A size is cheap after PROOF cheap answers, or
    where `expect` says so. An answer that cost n times CHEAP makes it dear until n times PROOF
    cheap answers have followed. One among MANY cheap ones does not: the machine was busy with
    something else.
    """

    CHEAP = 2e-3  # seconds of work
    PROOF, MANY = 4, 100  # answers

    def __init__(self) -> None:
        steps = SMALL.bit_length()
        self._needed, self._in_a_row = [self.PROOF] * steps, [0] * steps

    def cheap(self, size: int) -> bool:
        """Whether a body of `size` bytes was lately answered at little cost."""
        step = size.bit_length()
        return step < len(self._needed) and self._in_a_row[step] >= self._needed[step]

    def watch(self, size: int, work: Callable[[], T]) -> T:
        """Learn from the answer to a body of `size` bytes, which `work` makes in this thread."""
        cost = cost_since()
        answer = work()
        self.learn(size, cost())
        return answer

    def expect(self, size: int, seconds: float) -> None:
        """Take those sizes as cheap that are, if a body of `size` bytes costs `seconds`.

        One that is several times as large is taken to cost as many times as much. A dear answer
        then counts as one by chance: the first in a process costs more than the next.
        """
        for step in range(len(self._needed)):
            if seconds * 2 ** max(0, step - size.bit_length()) <= self.CHEAP:
                self._in_a_row[step] = max(self._in_a_row[step], self.MANY)

    def learn(self, size: int, seconds: float, alone: bool = True) -> None:
        """Learn what an answer to a body of `size` bytes cost, or one that was made with others."""
        step = size.bit_length()
        if step >= len(self._needed):
            return
        cost = seconds / self.CHEAP
        if cost <= 1:
            self._in_a_row[step] += 1
        elif alone:  # its part in a dear one is not known
            by_chance = self._in_a_row[step] >= self.MANY
            self._needed[step] = self.PROOF if by_chance else int(cost * self.PROOF)
            self._in_a_row[step] = self.PROOF if by_chance else 0


def cost_since() -> Callable[[], float]:
    """Return a clock of the work of this thread from now on, in seconds.

    A thread may have to wait for a processor or for the interpreter: waiting counts a twentieth, so
    that only what waits by itself, say for a disk, is dear for that.
    """
    began, worked = time.perf_counter(), time.thread_time()

    def cost() -> float:
        passed = time.perf_counter() - began
        if passed < Pace.CHEAP / 4:  # no more work than that; the other clock costs a system call
            return passed
        return max(time.thread_time() - worked, passed / 20)

    return cost


class Durations:
    """Expects that a body takes as long as the last ones of about its size: their median.

    One that is longer or shorter by chance, such as the first of all, does not change that: until
    there are a few, nothing is expected.
    """

    LAST, FEW = 9, 3

    def __init__(self) -> None:
        self._last: dict[int | None, deque[float]] = defaultdict(lambda: deque(maxlen=self.LAST))
        self._medians: dict[int | None, float] = {}

    def expected(self, size: int | None) -> float:
        """Return the seconds of a body of `size` bytes, or of any; 0 while unknown."""
        step = None if size is None else size.bit_length()
        return self._medians.get(step, self._medians.get(None, 0.0))

    def learn(self, size: int | None, seconds: float) -> None:
        """Learn how long a body of `size` bytes took."""
        for step in {None, None if size is None else size.bit_length()}:
            last = self._last[step]
            last.append(seconds)
            if len(last) >= self.FEW:
                self._medians[step] = statistics.median(last)


def wait_for_slot(left: Sequence[float], slots: int, queued: Iterable[float]) -> float:
    """Return the seconds until one of `slots` is free for a call that comes now.

    `left` are those that running calls still take, `queued` those of the calls that come before it.
    """
    free = sorted([max(0.0, one) for one in left] + [0.0] * (slots - len(left)))
    for seconds in queued:  # each goes into the slot that comes free first
        heapreplace(free, free[0] + seconds)
    return free[0]
