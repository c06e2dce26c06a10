"""Requests that wait at the same moment are answered by one call.

For many models 32 rows cost hardly more than one. There is no timer: a lone request is answered at
once. While a call runs, arrivals gather, and the next call takes them all, up to a bound on rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from skserve import telemetry
from skserve.formats.answer import Answer
from skserve.inference.calls import Request
from skserve.scheduling.costs import cost_since
from skserve.scheduling.independence import WIDE
from skserve.scheduling.slot_errors import hangs, no_slot, safely, took_too_long
from skserve.scheduling.slots import Slots

# Rows of one call: more of them take longer and save no more, while others wait.
ROWS = 256

Predict = Callable[[Request, Any], Any]


@dataclass(eq=False)
class _Piece:
    """One request in the queue, and what became of it."""

    request: Request
    kind: tuple[Any, ...]
    since: float = field(default_factory=time.perf_counter)
    told: threading.Event = field(default_factory=threading.Event)  # to lead, or the outcome
    began: float = 0.0
    ended: float = 0.0
    cost: float = 0.0  # seconds of work of the call that it was in
    joined: int = 1  # requests in that call
    answer: Any = None
    error: Exception | None = None
    record: telemetry.Record | None = field(default_factory=telemetry.current)

    @property
    def over(self) -> bool:
        return self.ended > 0

    @property
    def rows(self) -> int:
        return self.request.n_rows or 0

    def finish(self, answer: Any, error: Exception | None) -> None:
        self.answer, self.error, self.ended = answer, error, time.perf_counter()
        self.began = self.began or self.ended
        self.told.set()


class Batcher:
    """Stands in for a `predict`: the same answers, with fewer calls of it.

    One call of it runs at a time, in a slot. The first who waits leads: it waits for the slot, and
    the call takes all that wait by then. Afterwards the next one leads.
    """

    def __init__(self, predict: Predict, slots: Slots) -> None:
        self._predict, self._slots = predict, slots
        self._lock = threading.Lock()
        self._waiting: list[_Piece] = []
        self._led = False

    def __call__(self, request: Request, context: Any, costs: list[tuple[float, bool]]) -> Any:
        """Return what `predict` says of the request's rows, or raise what it raises.

        `costs` gets the seconds of work of the call, and whether the request was alone in it.
        """
        kind = _kind(request)
        if kind is None:
            return self._slots.run(lambda: self._alone(request, context), refusable=True)
        piece = _Piece(request, kind)
        if piece.record is not None:
            piece.record.wait()
        # Look and entry under one lock: whenever something waits, one of them leads.
        with self._lock:
            self._slots.check_wait(sum(one.rows for one in self._waiting) // ROWS)
            self._waiting.append(piece)
            leads, self._led = not self._led, True
        if leads or self._leads_at_last(piece):
            self._lead(piece, context)
        telemetry.spent("predict", piece.ended - piece.began)
        telemetry.note(joined=piece.joined)
        if piece.error is not None:
            raise piece.error
        costs.append((piece.cost, piece.joined == 1))
        return piece.answer

    def _alone(self, request: Request, context: Any) -> Any:
        telemetry.predicted()
        with telemetry.stage("predict"):
            return self._predict(request, context)

    def _leads_at_last(self, piece: _Piece) -> bool:
        """Wait until the piece is answered, or is to lead. Raises TimedOut, or Overloaded."""
        deadline = piece.since + self._slots.timeout
        while not piece.told.is_set():
            left = min(deadline - time.perf_counter(), self._slots.hangs_in())
            if left <= 0:
                break
            piece.told.wait(left)
        with self._lock:
            if piece.over:
                return False
            if piece.told.is_set():
                return True
            if piece in self._waiting:
                self._waiting.remove(piece)
                raise hangs() if self._slots.hung else no_slot(self._slots.timeout)
        raise took_too_long(self._slots.timeout)

    def _lead(self, piece: _Piece, context: Any) -> None:
        """Make the next call, and name who leads after it."""
        taken: list[_Piece] = []
        try:
            self._slots.run(lambda: self._call(taken, context), piece.since)
        except Exception as error:  # no slot, or none in time, or the call took too long
            with self._lock:
                if piece in self._waiting:
                    self._waiting.remove(piece)
            if not piece.over:  # the others of its call have more time
                piece.finish(None, error)
        finally:
            with self._lock:
                self._led = bool(self._waiting)
                if self._led:
                    self._waiting[0].told.set()

    def _call(self, taken: list[_Piece], context: Any) -> None:
        """Answer those who wait now, in this slot."""
        with self._lock:
            taken += self._next()
        began, work = time.perf_counter(), cost_since()
        for one in taken:
            one.began, one.joined = began, len(taken)
            if one.record is not None:
                one.record.waited()
        if len(taken) > 1:
            answers = self._joined([one.request for one in taken], context)
            cost = work()
            if answers is not None:
                for one, answer in zip(taken, answers, strict=True):
                    one.cost = cost
                    one.finish(answer, None)
                return
        for one in taken:
            answer, error = None, None
            telemetry.predicted()
            try:
                answer = safely(lambda one=one: self._predict(one.request, context))  # type: ignore[misc]
            except Exception as failure:
                error = failure
            one.cost = work()
            one.finish(answer, error)

    def _next(self) -> list[_Piece]:
        """Take the first that waits, and those that can go with it."""
        taken, rows = [self._waiting[0]], self._waiting[0].rows
        for one in self._waiting[1:]:
            if one.kind == taken[0].kind and rows + one.rows <= ROWS:
                taken.append(one)
                rows += one.rows
        self._waiting = [one for one in self._waiting if one not in taken]
        return taken

    def _joined(self, requests: list[Request], context: Any) -> list[Any] | None:
        """Return an answer for each request; None where they have to be asked one by one.

        That is so where any of them fails: its fault is not the others'.
        """
        tables = [request.X for request in requests]
        counts = [len(X) for X in tables]
        X: Any
        if isinstance(tables[0], np.ndarray):
            X = np.concatenate(tables)
        elif isinstance(tables[0], list):
            X = [text for texts in tables for text in texts]
        else:
            X = type(tables[0]).joined(tables)
        try:
            telemetry.predicted()
            y = safely(lambda: self._predict(requests[0]._replace(X=X, n_rows=len(X)), context))
        except Exception:
            return None
        ends = np.cumsum(counts).tolist()
        pieces = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        if isinstance(y, Answer):
            return [replace(y, parts=tuple(part[one] for part in y.parts)) for one in pieces]
        if isinstance(y, np.ndarray) and y.ndim and len(y) == len(X):
            return [y[one] for one in pieces]
        return None


def _kind(request: Request) -> tuple[Any, ...] | None:
    """Return what requests must agree in to travel together; None for one that travels alone."""
    X = request.X
    if request.method in WIDE or not 0 < (request.n_rows or 0) <= ROWS:
        return None
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return request.method, X.dtype, X.shape[1]
    if isinstance(X, list):
        return request.method, str
    return (request.method, *X.kinds()) if hasattr(type(X), "joined") else None
