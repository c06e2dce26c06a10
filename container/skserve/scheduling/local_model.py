"""What answers calls: the protocols that `serving` uses, and the one model of this process."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from skserve.errors import NotReady
from skserve.formats.chunks import Read
from skserve.inference.calls import Call, Reply
from skserve.inference.model import Model
from skserve.scheduling.batching import Batcher
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.costs import SMALL, Pace, cost_since
from skserve.scheduling.independence import joinable
from skserve.scheduling.slot_errors import safely
from skserve.scheduling.slots import Slots
from skserve.scheduling.streaming import StreamQueue


class Invocable(Protocol):
    """What answering a call needs."""

    def place(self) -> AbstractContextManager[None]: ...

    def invoke(self, call: Call, here: bool = False) -> Reply: ...

    def transform(self, call: Call, read: Read, duplex: bool) -> Reply | None: ...


class Registry(Invocable, Protocol):
    """What the routes of a single model need."""

    def ready(self) -> bool: ...

    def cheap(self, size: int) -> bool: ...

    def execution_parameters(self, ours: dict[str, object]) -> Reply: ...

    def describe(self) -> dict[str, object]: ...


class LocalModel:
    """The registry of one model: loaded before the fork, or `fill`ed later."""

    def __init__(
        self,
        slots: Slots,
        model: Model | None = None,
        batching: str = "off",
        bodies: Bodies | None = None,
    ) -> None:
        self._slots = slots
        self.answered = 0  # calls, so far
        self._bodies = bodies or Bodies(sys.maxsize)
        self._batching = batching
        self._batcher: Batcher | None = None
        self._filled = threading.Event()
        self._pace = Pace()
        self._model: Model | None = None
        if model is not None:
            self.fill(model)

    def warm_up(self, model: Model) -> None:
        """Make the first call as fast as the second, and learn what a row costs."""
        call = model.warm_up()
        if call is not None:
            cost = cost_since()
            with suppress(Exception):  # its values are made up
                model.invoke(call)
                self._pace.expect(len(call.body), cost())

    def fill(self, model: Model) -> None:
        """Answer with `model` from now on."""
        if self._batching != "off" and joinable(
            model.estimator, model.handler.method, model.script, self._batching
        ):
            self._batcher = Batcher(model.handler.predict, self._slots)
        self._model = model
        self._filled.set()

    @property
    def model(self) -> Model | None:
        """The model, once it is loaded."""
        return self._model

    def ready(self) -> bool:
        """Whether a prediction could run now: a model is loaded and not every slot hangs."""
        return self._model is not None and not self.hung()

    def hung(self) -> bool:
        """Whether every slot holds work that has run for as long as a request may take."""
        return self._slots.hung

    def hangs_in(self) -> float:
        """Return the seconds until that is so, unless some work ends before."""
        return self._slots.hangs_in()

    def place(self) -> AbstractContextManager[None]:
        """Hold a place for one request. Raises Overloaded."""
        return self._slots.place()

    def cheap(self, size: int) -> bool:
        """Whether a body of `size` bytes may be answered by the thread that answers /ping.

        Never where a script may do whatever it likes, nor in batch, which may try a record often.
        """
        model = self._model
        if model is None or model.script or model.config.batch:
            return False
        return self._pace.cheap(size)

    def invoke(self, call: Call, here: bool = False) -> Reply:
        """Answer a call in a slot, or `here` in this thread."""
        self.answered += 1  # one that is lost among threads does not matter
        model = self._loaded()
        if self._batcher and not here and len(call.body) < SMALL:
            return self._with_others(model, self._batcher, call)
        if here:  # it is small, and the only one: not worth counting
            return safely(lambda: self._answer(model, call))

        def work() -> Reply:
            with self._counted(model, call):
                return self._answer(model, call)

        return self._slots.run(work, None, _pump, len(call.body), refusable=True)

    def transform(self, call: Call, read: Read, duplex: bool) -> Reply | None:
        """Answer a body as it is read, each portion in its turn; None where it is needed whole."""
        work = self._loaded().transform(call)
        if work is None:
            return None
        return work.answer(read, self._slots.run, self._slots.timeout, duplex)

    def execution_parameters(self, ours: dict[str, object]) -> Reply:
        model = self._loaded()
        return self._slots.run(lambda: model.execution_parameters(ours))

    def _answer(self, model: Model, call: Call) -> Reply:
        """Answer a call in this thread, and learn what calls of its size cost."""
        reply = self._pace.watch(len(call.body), lambda: model.invoke(call))
        if isinstance(reply.body, bytes):
            return reply
        return reply._replace(body=StreamQueue(reply.body, self._slots))

    def _with_others(self, model: Model, batcher: Batcher, call: Call) -> Reply:
        """Decode and encode in this thread; only the prediction needs a slot."""
        costs: list[tuple[float, bool]] = []
        own = time.thread_time()
        with self._counted(model, call):
            reply = model.invoke(call, lambda request, context: batcher(request, context, costs))
        own = time.thread_time() - own
        for cost, alone in costs:
            self._pace.learn(len(call.body), own + cost, alone)
        return reply

    def _counted(self, model: Model, call: Call) -> AbstractContextManager[None]:
        """Count what will be made of a call while it is worked on. Raises Overloaded."""
        return self._bodies.hold(model.expected_size(call), len(call.body))

    def describe(self) -> dict[str, object]:
        return self._loaded().describe()

    def _loaded(self) -> Model:
        """Return the model; while it loads, wait for it as for a slot. Raises NotReady.

        Another worker may be ready already, so that this one is asked before it is.
        """
        if self._model is None:
            self._filled.wait(self._slots.timeout)
        if self._model is None:
            raise NotReady("The model is still loading.", "GET /ping says when it is ready.")
        return self._model


def _pump(reply: Reply) -> None:
    if isinstance(reply.body, StreamQueue):
        reply.body.pump()
