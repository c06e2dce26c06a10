"""The handler of a user's script: its functions where it has them, ours where it has not.

What the functions are given and may return is section 3 of the contract, as AWS's scikit-learn
container does it, or would have if it had not answered 500.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from skserve.config import Config
from skserve.errors import ModelFault, ServeError
from skserve.estimators.schema import Schema
from skserve.formats.answer import Answer
from skserve.formats.catalogue import ENCODERS
from skserve.formats.charsets import encoded, text_of, utf8_of
from skserve.formats.chunks import FRAMES, resumed
from skserve.formats.csv_header import Header
from skserve.formats.json_text import dumps
from skserve.formats.media_types import CSV, JSON, MediaType
from skserve.formats.negotiation import answer_type, wanted_type
from skserve.inference import calls
from skserve.inference.calls import Call, Reply, Request
from skserve.inference.estimator_handler import EstimatorHandler
from skserve.inference.hooks import Context, Hooks, answer_to


class ScriptHandler:
    """Decode, predict and encode by the functions of `script`, and else by those of `own`."""

    def __init__(
        self, estimator: Any, script: Hooks, own: EstimatorHandler, config: Config
    ) -> None:
        self.schema = own.schema
        self.method = "transform_fn" if script.transform_fn else own.method
        self._estimator, self._script, self._own = estimator, script, own
        self._accept, self._batch = config.accept, config.batch

    @classmethod
    def of(cls, estimator: Any, script: Hooks, config: Config) -> ScriptHandler:
        """Make the handler of a model with a script. Raises StartError if it cannot answer."""
        own = EstimatorHandler(estimator, config)
        if not (script.predict_fn or script.transform_fn):
            own.check_method(estimator)
            own.accelerate(estimator, config.accelerate)
        if not (script.output_fn or script.transform_fn):
            own.check_accept()
        return cls(estimator, script, own, config)

    def decode(self, call: Call, context: Context) -> Request:
        accept = self.answer_type(call)
        if not (self._script.input_fn or self._script.transform_fn):
            call = _settled(call, self.schema) if self._batch else call
            return calls.decode(call, self.schema, accept)
        kind = calls.content_type(call)
        X: Any = _hook_body(call.body, kind), kind.name
        if self._script.input_fn:
            X = self._script.input_fn(*X, context=context)
        return Request(X, accept)

    def predict(self, request: Request, context: Context) -> Any:
        script, estimator = self._script, self._estimator
        if script.transform_fn:
            return script.transform_fn(estimator, *request.X, request.accept, context=context)
        if script.predict_fn:
            X = request.X
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
            body = _streamed(_begun(y, "predict_fn"), request.accept, request.enveloped)
        else:
            body = _written(y, request.accept, request.enveloped)
        media_type = context.media_type or request.accept
        return Reply(body, media_type, context.status or 200, dict(context.reply_headers))

    def takes_portions(self, lined: bool) -> bool:
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


def finish(result: Any, accept: str, context: Context, hook: str) -> Reply:
    """Make a reply of what output_fn or transform_fn returned (contract 3.5).

    bytes and str leave as they are under the negotiated type, a `(body, content_type)` pair under
    its own, a Flask response with its own status; anything else is encoded as Accept asks. The
    parts of a generator leave one by one. `hook` is the name of the function.
    """
    status, headers = 200, {}
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
        result, accept = result
    elif callable(getattr(result, "get_data", None)) and hasattr(result, "status_code"):
        status, headers = result.status_code, dict(result.headers)
        accept = headers.pop("Content-Type", accept)
        streamed = getattr(result, "is_streamed", False)
        result = _encoded_parts(result) if streamed else result.get_data()
    if isinstance(result, Iterator):
        result = _begun(result, hook)  # until its first part is there, it may say what it is
    media_type = context.media_type or accept
    headers.update(context.reply_headers)
    return Reply(_body(result, media_type), media_type, context.status or status, headers)


def _encoded_parts(response: Any) -> Parts:
    """Return the parts of a Flask response that streams."""
    try:
        yield from response.iter_encoded()
    finally:
        response.close()


def _body(result: Any, media_type: str) -> bytes | Iterator[bytes]:
    raw = _raw(result)
    if raw is not None:
        return raw
    name = media_type.split(";")[0].strip().lower()
    if isinstance(result, Generator):
        return _streamed(result, name)
    if name not in ENCODERS:
        raise _unwritable(result, name)
    return _written(result, name)


def _raw(value: Any) -> bytes | None:
    """Return what leaves as it is; None of what is to be encoded."""
    if isinstance(value, str):
        return encoded(value)
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


def _unwritable(value: Any, name: str) -> ModelFault:
    return ModelFault(
        f"The script returned {type(value).__name__}, which cannot be written as {name}.",
        f"Return bytes or str, or ask for one of {', '.join(ENCODERS)}.",
    )


def _written(value: Any, name: str, enveloped: bool = False) -> bytes:
    """Write what a script returned: tables in rows; in JSON all else as it is, as AWS's image does.

    The body of a request may ask for an envelope; a dict or a text is one of the script's own.
    """
    if value is None:
        raise ModelFault("The script returned None.", "Return bytes, str, or something to encode.")
    if name == JSON and not _is_table(value):
        listed = enveloped and isinstance(value, list | tuple)
        return dumps({"predictions": value} if listed else value)
    if isinstance(value, dict | str | bytes):
        raise ModelFault(
            f"The script returned a {type(value).__name__}, which has no rows to write as {name}.",
            "Return an array or a list, or ask for JSON.",
        )
    return ENCODERS[name](Answer.of(value), enveloped)


def _is_table(value: Any) -> bool:
    return isinstance(value, np.ndarray) or any(
        hasattr(value, method) for method in ("to_numpy", "toarray")
    )


Parts = Generator[Any, None, None]


def _begun(parts: Iterator[Any], hook: str) -> Parts:
    """Make the first part now, while a failure can still be an answer with a status of its own."""
    guarded = _guarded(parts, hook)
    for first in guarded:
        return resumed(first, guarded)
    return guarded


def _guarded(parts: Iterator[Any], hook: str) -> Parts:
    """Turn the failures of a generator into those of the function that returned it."""
    try:
        yield from parts
    except ServeError:
        raise
    except (Exception, SystemExit) as error:
        raise answer_to(hook, error) from error


def _streamed(values: Parts, name: str, enveloped: bool = False) -> Iterator[bytes]:
    """Encode values as they come: bytes and str as they are, others as the rows of one answer."""
    parts = _parts(values, name, enveloped)
    for first in parts:  # what cannot be written at all is said before anything has left
        return resumed(first, parts)
    return parts


def _parts(values: Parts, name: str, enveloped: bool) -> Parts:
    start, between, end = FRAMES.get(name, (b"", b"", b""))
    if start and enveloped:
        start, end = b'{"predictions":' + start, end + b"}"
    before, own = start, False  # a script that writes text writes all of it
    with closing(values):
        for value in values:
            raw = _raw(value)
            own = own or (raw is not None and before == start)
            if raw is not None and (own or not start):
                yield raw
            elif raw is None and name in FRAMES and not (own and start):
                yield before + _element(value, name)
                before = between
            else:
                raise _unwritable(value, f"a part of {name}")
    if start and not own:
        yield (start if before == start else b"") + end


def _element(value: Any, name: str) -> bytes:
    """Write one value of a stream: a table or a list as its rows, anything else as one of them."""
    rows = isinstance(value, list) or _is_table(value)
    if name == JSON:
        return _written(value, name)[1:-1] if rows else _written(value, name)
    return (
        dumps(value) + b"\n" if name != CSV and isinstance(value, dict) else _written(value, name)
    )


def _settled(call: Call, schema: Schema) -> Call:
    """Say of a whole body of batch transform whether it has a header. Raises BadRequest."""
    kind = calls.content_type(call)
    if kind.name != CSV:
        return call
    body = utf8_of(call.body, kind)
    found = Header.of(body, kind, schema, batch=True)
    said = f"{CSV}; header={'present' if found else 'absent'}"
    return replace(call, body=body, content_type=said)
