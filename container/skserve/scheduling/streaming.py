"""A stream on its way from the slot that makes its parts to the thread that sends them.

The slot is held until the stream ends, as a prediction holds it. Each part may take as long as a
request: to be made, and to be taken by the client.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future

from skserve.errors import TimedOut
from skserve.scheduling.slots import Slots

log = logging.getLogger("skserve")


class StreamQueue:
    """The parts of one stream: `pump` is the slot's side, to iterate and to `close` the sender's.

    While one part is sent the next one is made, and no more than that.
    """

    def __init__(self, parts: Iterator[bytes], slots: Slots) -> None:
        self._parts, self._slots = parts, slots
        self._taken = threading.Semaphore(0)
        self._left = False  # the reader is gone
        # Two names for the same future, until the slot has moved on to the one after.
        self._making: Future[bytes | None] = _running()
        self._coming = self._making

    def pump(self) -> None:
        """Make the parts until they end, fail, or the reader is gone. Run in the slot."""
        try:
            while self._made():
                if not self._taken.acquire(timeout=self._slots.timeout):
                    self._making.set_exception(
                        TimedOut(f"The client took no part within {self._slots.timeout:g} s.")
                    )
                    break
                if self._left:
                    break
        finally:
            _close(self._parts)

    def _made(self) -> bool:
        """Make one part and hand it over; whether there was one."""
        future = self._making
        try:
            with self._slots.working():
                part = next(self._parts, None)
        except BaseException as error:
            future.set_exception(error)
            return False
        # The next future before this one's result: the reader looks at it as soon as it has that.
        self._making = _running()
        future.set_result(part)
        return part is not None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        part = self._slots.wait(self._coming)
        if part is None:
            raise StopIteration
        self._coming = self._making
        self._taken.release()
        return part

    def close(self) -> None:
        """Take no more parts: what makes them is closed as soon as it has made this one."""
        self._left = True
        self._taken.release()


def _running() -> Future[bytes | None]:
    future: Future[bytes | None] = Future()
    future.set_running_or_notify_cancel()
    return future


def _close(parts: Iterator[bytes]) -> None:
    """Close a generator. What it raises then concerns no caller."""
    close = getattr(parts, "close", None)  # an iterator need not have one
    try:
        if close:
            close()
    except BaseException:
        log.warning("A stream failed while it was closed.", exc_info=True)
