"""The handler of a user's script: its functions where it has them, ours where it has not.

What the functions are given and may return is section 3 of docs/80-contract.md, as AWS's
scikit-learn container does it, or would have if it had not answered 500.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from skserve.config import ModelSettings
from skserve.estimators.declared import Declared
from skserve.estimators.frame import plain
from skserve.estimators.methods import look
from skserve.estimators.schema import Schema
from skserve.formats.answer import Answer
from skserve.formats.charsets import text_of, utf8_of
from skserve.formats.csv_header import Header
from skserve.formats.media_types import CSV, JSON, MediaType
from skserve.formats.negotiation import answer_type, wanted_type
from skserve.inference import calls
from skserve.inference.calls import Call, Reply, Request
from skserve.inference.context import Context
from skserve.inference.estimator_handler import EstimatorHandler
from skserve.inference.hooks import Hooks
from skserve.inference.script_reply import begun, finish, streamed, written
from skserve.telemetry import note_rows


class ScriptHandler:
    """Decode, predict and encode by the functions of `script`, and else by those of `own`."""

    def __init__(
        self, estimator: Any, script: Hooks, own: EstimatorHandler, config: ModelSettings
    ) -> None:
        self.schema = own.schema
        self.method = "transform_fn" if script.transform_fn else own.method
        self._estimator, self._script, self._own = estimator, script, own
        self._accept, self._batch = config.accept, config.batch
        ours = not (script.predict_fn or script.transform_fn)
        self.fast = own.fast if ours else frozenset()

    @classmethod
    def of(
        cls, estimator: Any, script: Hooks, config: ModelSettings, declared: Declared | None = None
    ) -> ScriptHandler:
        """Make the handler of a model with a script. Raises StartError if it cannot answer."""
        own = EstimatorHandler(estimator, config, declared)
        if not (script.predict_fn or script.transform_fn):
            holder = "The script's model_fn returned" if script.model_fn else "The model file holds"
            own.check_method(estimator, holder)
            own.accelerate(estimator, config.accelerate)
        if not (script.output_fn or script.transform_fn):
            own.check_accept()
        return cls(estimator, script, own, config)

    def decode(self, call: Call, context: Context) -> Request:
        accept = self.answer_type(call)
        if not (self._script.input_fn or self._script.transform_fn):
            call = _settled(call, self.schema) if self._batch else call
            return self._own.decoded(call, accept)
        kind = calls.content_type(call)
        X: Any = _hook_body(call.body, kind), kind.name
        if self._script.input_fn:
            X = self._script.input_fn(*X, context=context)
            _note_rows(X)
        return Request(X, accept)

    def predict(self, request: Request, context: Context) -> Any:
        script, estimator = self._script, self._estimator
        if script.transform_fn:
            return script.transform_fn(estimator, *request.X, request.accept, context=context)
        if script.predict_fn:
            X = plain(request.X)
            if isinstance(X, np.ndarray) and not X.flags.writeable:
                X = X.copy()  # it is the body itself, but a script may write into what it is given
            return script.predict_fn(X, estimator, context=context)
        return self._own.predict(request, context)

    def encode(self, y: Any, request: Request, context: Context) -> Reply:
        if self._script.transform_fn:
            return finish(y, request.accept, context, "transform_fn")
        if self._script.output_fn:
            y = y.plain() if isinstance(y, Answer) else y
            y = self._script.output_fn(y, request.accept, context=context)
            return finish(y, request.accept, context, "output_fn")
        if isinstance(y, Answer):
            return self._own.encode(y, request, context)
        body: bytes | Iterator[bytes]
        if isinstance(y, Iterator):
            body = streamed(begun(y, "predict_fn"), request.accept, request.enveloped)
        else:
            body = written(y, request.accept, request.enveloped)
        media_type = context.media_type or request.accept
        return Reply(body, media_type, context.status or 200, dict(context.reply_headers))

    def takes_chunks(self, lined: bool) -> bool:
        """Whether a body can be cut: by us, and not behind a function that may look at all rows.

        Where there is a line for each line, batch transform cuts where it likes anyway.
        """
        script = self._script
        whole = script.input_fn or script.output_fn or script.transform_fn
        return not whole and (lined or not script.predict_fn)

    def answer_type(self, call: Call) -> str:
        """Ours can be refused here; what an output_fn can write only the script knows."""
        if self._script.output_fn or self._script.transform_fn:
            return wanted_type(call.accept, self._accept or calls.family(call))
        return answer_type(call.accept, self._accept or calls.family(call))


def _hook_body(body: bytes, kind: MediaType) -> str | bytes:
    """Return a body as scripts for AWS's image expect it: text for JSON and CSV, else bytes."""
    return text_of(body, kind) if kind.name in (JSON, CSV) else body


def _note_rows(X: Any) -> None:
    """Say how many rows a script has made of a body, where it is a table or a list."""
    shape = look(X, "shape")
    if isinstance(shape, tuple) and shape:
        note_rows(int(shape[0]))
    elif isinstance(X, list):
        note_rows(len(X))


def _settled(call: Call, schema: Schema) -> Call:
    """Say of a whole body of batch transform whether it has a header. Raises BadRequest."""
    kind = calls.content_type(call)
    if kind.name != CSV:
        return call
    body = utf8_of(call.body, kind)
    found = Header.of(body, kind, schema, batch=True)
    said = f"{CSV}; header={'present' if found else 'absent'}"
    return call._replace(body=body, content_type=said)
