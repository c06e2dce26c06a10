"""One model, from a body to an answer, without any HTTP in it.

This is the page to read first. A request is decoded, predicted and encoded. Which functions do it
is chosen once, when the model is loaded: ours, or those of the user's script. Routes, tests and
everything else call `Model.invoke`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from skserve import artifact, codec, hooks, source
from skserve.answer import Answer
from skserve.codec import Call, Reply, Request
from skserve.config import Config
from skserve.decoders import DECODERS
from skserve.encoders import ENCODERS
from skserve.errors import BadRequest, ModelFault, StartError
from skserve.hooks import Context, Hooks
from skserve.methods import METHODS, find
from skserve.schema import Schema
from skserve.table import missing_values
from skserve.telemetry import note, stage


class Model:
    """A loaded model and the functions that make its line; `invoke` is safe in several threads."""

    def __init__(
        self,
        estimator: Any,
        script: Hooks,
        config: Config,
        directory: Path,
        saved: str | None = None,
    ) -> None:
        self.estimator = estimator
        self.script = script
        self.directory = directory
        self.saved = saved  # the scikit-learn that pickled it, where that is known
        # A script's predict_fn gets arrays, as in AWS's image, unless a column holds text.
        self.schema = replace(Schema.of(estimator), frames=script.predict_fn is None)
        self._methods = {
            name: method for name in METHODS if (method := find(estimator, name)) is not None
        }
        self.method = config.method or next(iter(self._methods), None)
        self.accept = config.accept
        self._decode = self._call_input_fn if script.input_fn else self._decode_table
        self._predict = self._call_predict_fn if script.predict_fn else self._ask_estimator
        self._encode = self._call_output_fn if script.output_fn else self._encode_answer
        if script.transform_fn:
            self._decode = self._undecoded
            self._predict = self._call_transform_fn
            self._encode = self._finish
        elif not script.predict_fn:
            self._check_method()

    @classmethod
    def load(cls, directory: Path, config: Config) -> Model:
        """Load what `directory` holds. Raises StartError."""
        script = hooks.load(source.fetch(directory, config))
        context = Context(str(directory))
        with artifact.main_classes(script.lookup if script.module else None):
            if script.pre_model_fn:
                script.pre_model_fn.at_start(str(directory), context=context)
            if script.model_fn:
                estimator = script.model_fn.at_start(str(directory), context=context)
                return cls(estimator, script, config, directory)
            found = artifact.load(directory, config)
        return cls(found.estimator, script, config, directory, found.pickled_with)

    def invoke(self, call: Call) -> Reply:
        """Answer one call. Raises ServeError; anything else is a bug."""
        context = Context(str(self.directory), call.headers)
        with stage("decode"):
            request = self._decode(call, context)
        with stage("predict"):
            y = self._predict(request, context)
        with stage("encode"):
            return self._encode(y, request, context)

    def warm_up(self) -> None:
        """Run the script's model_warmup_fn, in the process that is going to predict."""
        if self.script.model_warmup_fn:
            directory = str(self.directory)
            self.script.model_warmup_fn.at_start(
                directory, self.estimator, context=Context(directory)
            )

    # Our own line: the schema says what X is, the estimator answers, the format tables do the rest.

    def _decode_table(self, call: Call, context: Context) -> Request:
        request = codec.decode(call, self.schema, self._answer_type(call))
        note(rows=request.n_rows)
        return request

    def _ask_estimator(self, request: Request, context: Context) -> Answer:
        method = request.method or self.method
        assert method is not None  # checked at load
        try:
            y = self._methods[method](request.X)
        except ValueError as error:
            # The table has the right shape and dtypes by now, so it is the values: NaN or infinity
            # where the model takes none, an unknown category. scikit-learn says so best.
            raise BadRequest(
                missing_values(request.X) + str(error),
                "Change the values, or fit a model for them.",
            ) from error
        answer = Answer.of(y, method)
        if request.n_rows is not None and answer.n_rows != request.n_rows:
            raise ModelFault(
                f"{method} returned {answer.n_rows} rows for {request.n_rows}.",
                "A step of the model changes the number of rows; it cannot be served row by row.",
            )
        return answer

    def _encode_answer(self, y: Any, request: Request, context: Context) -> Reply:
        return codec.encode(y if isinstance(y, Answer) else Answer.of(y), request)

    # The user's line, function by function.

    def _call_input_fn(self, call: Call, context: Context) -> Request:
        assert self.script.input_fn
        kind = codec.content_type(call)
        X = self.script.input_fn(codec.hook_body(call.body, kind), kind.name, context=context)
        return Request(X, accept=self._answer_type(call))

    def _call_predict_fn(self, request: Request, context: Context) -> Any:
        assert self.script.predict_fn
        return self.script.predict_fn(request.X, self.estimator, context=context)

    def _call_output_fn(self, y: Any, request: Request, context: Context) -> Reply:
        assert self.script.output_fn
        y = y.plain() if isinstance(y, Answer) else y
        return self._finish(
            self.script.output_fn(y, request.accept, context=context), request, context
        )

    def _undecoded(self, call: Call, context: Context) -> Request:
        kind = codec.content_type(call)
        return Request((codec.hook_body(call.body, kind), kind.name), self._answer_type(call))

    def _call_transform_fn(self, request: Request, context: Context) -> Any:
        assert self.script.transform_fn
        return self.script.transform_fn(self.estimator, *request.X, request.accept, context=context)

    def _finish(self, y: Any, request: Request, context: Context) -> Reply:
        return hooks.finish(y, request.accept, context)

    def _answer_type(self, call: Call) -> str:
        """Ours can be refused here; what a script's output_fn can write only the script knows."""
        if self.script.output_fn or self.script.transform_fn:
            return codec.wanted_type(call.accept, self.accept)
        return codec.answer_type(call.accept, self.accept)

    def _check_method(self) -> None:
        """Raise StartError unless the estimator has the method that is to answer."""
        kind, has = type(self.estimator).__name__, ", ".join(self.schema.methods)
        if self.method is None:
            raise StartError(f"{kind} has no method that can answer requests, such as predict.")
        if self.method not in self.schema.methods:
            raise StartError(f"SKSERVE_METHOD is {self.method}, but {kind} has only: {has}.")

    @property
    def title(self) -> str:
        """The model in a few words, for the log; it is never asked to print itself."""
        method = "transform_fn" if self.script.transform_fn else self.method
        return f"{type(self.estimator).__name__}.{method}"

    def describe(self) -> dict[str, Any]:
        """Describe for people and programs what the model takes and answers."""
        return {
            "model": type(self.estimator).__name__,
            "method": self.method,
            **self.schema.describe(),
            "script": [name for name in hooks.HOOKS if getattr(self.script, name)],
            "content_types": list(DECODERS),
            "accept": list(ENCODERS),
            "versions": {
                "python": sys.version.split()[0],
                "scikit-learn": artifact.installed("scikit-learn"),
                "numpy": artifact.installed("numpy"),
                "saved_with_scikit-learn": self.saved,
            },
        }
