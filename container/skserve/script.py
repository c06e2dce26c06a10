"""The line of a user's script: its functions where it has them, ours where it has not.

What the functions are given and may return is section 3 of the contract, as AWS's scikit-learn
container does it, or would have if it had not answered 500.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skserve import codec
from skserve.answer import Answer
from skserve.codec import Call, Reply, Request
from skserve.config import Config
from skserve.encoders import ENCODERS, dumps, encoded
from skserve.errors import ModelFault
from skserve.estimator import EstimatorLine
from skserve.hooks import Context, Hooks
from skserve.media import JSON


class ScriptLine:
    """Decode, predict and encode by the functions of `script`, and else by those of `own`."""

    def __init__(self, estimator: Any, script: Hooks, own: EstimatorLine, accept: str) -> None:
        self.schema = own.schema
        self.method = "transform_fn" if script.transform_fn else own.method
        self._estimator, self._script, self._own, self._accept = estimator, script, own, accept

    @classmethod
    def of(cls, estimator: Any, script: Hooks, config: Config) -> ScriptLine:
        """Make the line of a model with a script. Raises StartError if it cannot answer."""
        own = EstimatorLine(estimator, config)
        if not (script.predict_fn or script.transform_fn):
            own.check_method(estimator)
            own.accelerate(estimator, config.accelerate)
        if not (script.output_fn or script.transform_fn):
            own.check_accept()
        return cls(estimator, script, own, config.accept)

    def decode(self, call: Call, context: Context) -> Request:
        accept = self._answer_type(call)
        if not (self._script.input_fn or self._script.transform_fn):
            return codec.decode(call, self.schema, accept)
        kind = codec.content_type(call)
        X: Any = codec.hook_body(call.body, kind), kind.name
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
            return finish(y, request.accept, context)
        if self._script.output_fn:
            y = y.plain() if isinstance(y, Answer) else y
            y = self._script.output_fn(y, request.accept, context=context)
            return finish(y, request.accept, context)
        if isinstance(y, Answer):
            return self._own.encode(y, request, context)
        media_type = context.media_type or request.accept
        body = _written(y, request.accept, request.enveloped)
        return Reply(body, media_type, context.status or 200, dict(context.reply_headers))

    def _answer_type(self, call: Call) -> str:
        """Ours can be refused here; what an output_fn can write only the script knows."""
        if self._script.output_fn or self._script.transform_fn:
            return codec.wanted_type(call.accept, self._accept)
        return codec.answer_type(call.accept, self._accept)


def finish(result: Any, accept: str, context: Context) -> Reply:
    """Make a reply of what output_fn or transform_fn returned (contract 3.5).

    bytes and str leave as they are under the negotiated type, a `(body, content_type)` pair under
    its own, a Flask response with its own status; anything else is encoded as Accept asks.
    """
    status, headers = 200, {}
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
        result, accept = result
    elif callable(getattr(result, "get_data", None)) and hasattr(result, "status_code"):
        status, headers = result.status_code, dict(result.headers)
        headers.pop("Content-Length", None)
        accept = headers.pop("Content-Type", accept)
        result = result.get_data()
    media_type = context.media_type or accept
    headers.update(context.reply_headers)
    return Reply(_body(result, media_type), media_type, context.status or status, headers)


def _body(result: Any, media_type: str) -> bytes:
    if isinstance(result, bytes | bytearray | memoryview):
        return bytes(result)
    if isinstance(result, str):
        return encoded(result)
    name = media_type.split(";")[0].strip().lower()
    if name not in ENCODERS:
        raise ModelFault(
            f"The script returned {type(result).__name__}, which cannot be written as {name}.",
            f"Return bytes or str, or ask for one of {', '.join(ENCODERS)}.",
        )
    return _written(result, name)


def _written(value: Any, name: str, enveloped: bool = False) -> bytes:
    """Write what a script returned: tables in rows; in JSON all else as it is, as AWS's image does.

    The body of a request may ask for an envelope; a dict or a text is one of the script's own.
    """
    if value is None:
        raise ModelFault("The script returned None.", "Return bytes, str, or something to encode.")
    table = isinstance(value, np.ndarray) or any(
        hasattr(value, method) for method in ("to_numpy", "toarray")
    )
    if name == JSON and not table:
        listed = enveloped and isinstance(value, list | tuple)
        return dumps({"predictions": value} if listed else value)
    if isinstance(value, dict | str | bytes):
        raise ModelFault(
            f"The script returned a {type(value).__name__}, which has no rows to write as {name}.",
            "Return an array or a list, or ask for JSON.",
        )
    return ENCODERS[name](Answer.of(value), enveloped)
