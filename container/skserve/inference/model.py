"""One model, from a body to an answer, without any HTTP in it.

This is the page to read first. A request is decoded, predicted and encoded. Which functions do it
is chosen once, when the model is loaded: `EstimatorHandler` is ours and needs no code,
`ScriptHandler` puts the functions of the user's script in its place, one by one. Routes, tests and
everything else call `Model.invoke`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skserve.config import Config
from skserve.estimators.accelerate.jobs import brings_code, limit_jobs
from skserve.estimators.declared import Declared
from skserve.estimators.outline import outline
from skserve.formats.catalogue import DECODERS, ENCODERS
from skserve.formats.json_text import dumps
from skserve.formats.media_types import JSON
from skserve.formats.sizes import expected_size
from skserve.formats.spool import check_spool
from skserve.inference import artifact, calls, declaration, hooks, source
from skserve.inference.calls import Call, Reply, Request
from skserve.inference.chunked import ChunkedBody
from skserve.inference.context import Context
from skserve.inference.estimator_handler import EstimatorHandler
from skserve.inference.hooks import Hooks
from skserve.inference.script_handler import ScriptHandler
from skserve.inference.script_reply import finish
from skserve.inference.source import Source
from skserve.inference.versions import installed
from skserve.telemetry import phase, predicted, stage

Predict = Callable[[Request, Context], Any]


@dataclass(frozen=True)
class Model:
    """A loaded model and its handler; `invoke` may be called from several threads at once.

    `saved_with` is the scikit-learn that pickled the model, where that is known.
    """

    directory: Path
    estimator: Any
    script: Hooks
    handler: EstimatorHandler | ScriptHandler
    config: Config
    saved_with: str | None
    declared: Declared | None = None

    @classmethod
    def load(
        cls, directory: Path, config: Config, code: Source | None = None, jobs: int = 1
    ) -> Model:
        """Load what `directory` holds and choose its handler. Raises StartError.

        `code` is the user's code where it has been fetched already. `jobs` is how many threads one
        prediction may use.
        """
        script = hooks.load(code or source.fetch(directory, config))
        path, context, saved_with = str(directory), Context(str(directory)), None
        with (
            phase("model"),
            artifact.main_classes(script.lookup if script.folder else None),
        ):
            if script.pre_model_fn:
                script.pre_model_fn.at_start(path, context=context)
            if script.model_fn:
                estimator = script.model_fn.at_start(path, context=context)
            else:
                if not script:  # one may use pandas wherever it likes, and in any thread
                    artifact.import_scikit_learn()
                estimator, saved_with = artifact.load(directory, config)
        with phase("check"):
            limit_jobs(estimator, jobs)
            check_spool(config)
            declared = declaration.read(directory)
            kind = ScriptHandler if script else EstimatorHandler
            handler = kind.of(estimator, script, config, declared)
        return cls(directory, estimator, script, handler, config, saved_with, declared)

    def invoke(self, call: Call, predict: Predict | None = None) -> Reply:
        """Answer one call. Raises ServeError; anything else is a bug.

        `predict` stands in for the handler's own, and does its own timing.
        """
        headers = dict(call.headers) if self.script else {}  # only a script reads them
        context = Context(str(self.directory), headers)
        with stage("decode"):
            request = self.handler.decode(call, context)
        if predict:
            y = predict(request, context)
        else:
            predicted()
            with stage("predict"):
                y = self.handler.predict(request, context)
        with stage("encode"):
            return self.handler.encode(y, request, context)

    def expected_size(self, call: Call) -> int:
        """Return the bytes that a call's table and its answer will take; 0 where a script reads."""
        if self.script.input_fn or self.script.transform_fn:
            return 0
        return expected_size(call.body, calls.content_type(call).name, self.handler.schema)

    def transform(self, call: Call) -> ChunkedBody | None:
        """Take on a call whose body is still to come, if it can be answered in chunks."""
        context = Context(str(self.directory), dict(call.headers))
        work = ChunkedBody(self.handler, call, context, self.config)
        return work if work.possible else None

    def execution_parameters(self, ours: dict[str, Any]) -> Reply:
        """Answer what batch transform asks first: by the script if it says, else by `ours`."""
        hook = self.script.execution_parameters_fn
        if hook is None:
            return Reply(dumps(ours))
        context = Context(str(self.directory))
        return finish(hook(context=context), JSON, context, "execution_parameters_fn")

    def warm_up(self) -> Call | None:
        """Make the first request as fast as the second, and return a call that can be repeated.

        The script's model_warmup_fn does it; where no code was brought, a made-up row is answered,
        which is that call.
        """
        if self.script.model_warmup_fn:
            path = str(self.directory)
            self.script.model_warmup_fn.at_start(path, self.estimator, context=Context(path))
        elif not self.script and not brings_code(self.estimator):
            example = dumps(self.handler.schema.describe()["example"]["body"])
            with suppress(Exception):  # its values are made up
                self.invoke(Call(example, JSON))
                return Call(example, JSON)
        return None

    @property
    def title(self) -> str:
        """The model in a few words, for the log; an old pickle may not survive printing itself."""
        return f"{type(self.estimator).__name__}.{self.handler.method}"

    def _example(self) -> dict[str, Any] | None:
        """Return a body that can be sent, or None where it is the script that knows."""
        example = self.declared and self.declared.example
        if example is not None:
            return {"content_type": JSON, "body": example}
        if self.script.input_fn or self.script.transform_fn:
            return None
        return self.handler.schema.example()

    def describe(self) -> dict[str, Any]:
        """Describe for people and programs what the model takes and answers."""
        return {
            "model": type(self.estimator).__name__,
            "method": self.handler.method,
            "steps": outline(self.estimator),
            **self.handler.schema.describe(),
            "example": self._example(),
            "script": [name for name in hooks.HOOKS if getattr(self.script, name)],
            "content_types": list(DECODERS),
            "accept": list(ENCODERS),
            "versions": {
                "python": sys.version.split()[0],
                "scikit-learn": installed("scikit-learn"),
                "numpy": installed("numpy"),
                "saved_with_scikit-learn": self.saved_with,
            },
        }
