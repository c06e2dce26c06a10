"""The handler that needs no code: the schema says what X is, the estimator answers.

`decode`, `predict` and `encode` take the request's context last, as the handler of a script does;
here nothing asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.config import ModelSettings
from skserve.errors import BadRequest, ModelFault, StartError
from skserve.estimators.accelerate import accelerate
from skserve.estimators.declared import Declared
from skserve.estimators.drift import Learned
from skserve.estimators.frame import plain
from skserve.estimators.methods import METHODS, find, fitted_steps, look, named
from skserve.estimators.schema import Schema
from skserve.formats.answer import Answer
from skserve.formats.catalogue import ENCODERS
from skserve.formats.negotiation import answer_type
from skserve.inference import calls
from skserve.inference.calls import Call, Reply, Request
from skserve.inference.fitted import check_fitted, check_model, check_new_rows, no_method
from skserve.inference.model_errors import (
    of_a_booster,
    of_a_silent_step,
    other_rows,
    refused,
    unlike,
)
from skserve.telemetry import look_at_cells

Asked = Callable[[Any], Any]


class EstimatorHandler:
    """Decode a table, ask one method of the estimator, encode its answer."""

    def __init__(
        self, estimator: object, config: ModelSettings, declared: Declared | None = None
    ) -> None:
        schema = replace(Schema.of(estimator, declared), libsvm_base=config.libsvm_base)
        self.schema = schema
        if schema.names is not None or schema.open or _writes_frames(estimator):
            import pandas  # noqa: F401  # the workers share what is imported now
        # Numbers travel as an array, and get their names where scikit-learn itself is asked. Names
        # that are only declared are for bodies: a model fitted on an array warns of them.
        fitted = Schema.of(estimator) if declared else schema
        names = schema.names if fitted.open or fitted.names else None
        self._methods = {
            name: self._taking(own, names)
            for name in METHODS
            if (own := find(estimator, name)) is not None
        }
        self._chosen = config.method
        preferred = declared.method if declared and declared.method in self._methods else None
        self.method = config.method or preferred or next(iter(self._methods), None)
        self._accept = config.accept
        self.fast: frozenset[str] = frozenset()  # the methods that have a fast path
        self._learned = Learned(schema)

    def _taking(self, own: Callable[[Any], Any], names: tuple[str, ...] | None) -> Asked:
        """Return a method that takes what is decoded for this model."""
        if self.schema.numeric:
            return named(own, names)
        if self.schema.text and self.schema.open:
            return taking_texts(own, self.schema.reads)
        return taking_frames(own)

    @classmethod
    def of(
        cls,
        estimator: object,
        script: object,
        config: ModelSettings,
        declared: Declared | None = None,
    ) -> EstimatorHandler:
        """Make the handler of a model without a script. Raises StartError if it cannot answer."""
        handler = cls(estimator, config, declared)
        handler.check_method(estimator)
        handler.accelerate(estimator, config.accelerate)
        handler.check_accept()
        return handler

    def decode(self, call: Call, context: object) -> Request:
        return self.decoded(call, self.answer_type(call))

    def decoded(self, call: Call, accept: str) -> Request:
        """Decode a call whose answer is to be in the format `accept`."""
        request = calls.decode(call, self.schema, accept)
        if not (request.complete and self._learned.only_missing):
            look_at_cells(self._learned.count, request.X)
        return request

    def predict(self, request: Request, context: object) -> Answer:
        method = request.method or self.method
        assert method is not None  # checked at load
        try:
            y = self._ask(method, request.X)
        except Exception as error:
            if isinstance(error, TypeError) and hasattr(request.X, "tocsr"):
                raise BadRequest(
                    "This model takes no sparse rows.", "Send them dense: JSON, CSV or npy."
                ) from error
            if of_a_silent_step(error, self.schema):
                raise unlike(request, self.schema, error) from error
            of_values = self.schema.records and isinstance(error, TypeError)
            if not (of_values or isinstance(error, ValueError) or of_a_booster(error)):
                raise
            ask = self._methods[method]
            raise refused(request, method, ask, self.schema, error) from error
        answer = Answer.of(y, method)
        if request.n_rows is not None and answer.n_rows != request.n_rows:
            if self.schema.open and hasattr(request.X, "columns"):
                raise other_rows(method, answer.n_rows, request.n_rows)
            raise ModelFault(
                f"{method} returned {answer.n_rows} rows for {request.n_rows}.",
                "A step of the model changes the number of rows; it cannot be served row by row.",
            )
        return answer

    def _ask(self, method: str, X: Any) -> Any:
        """Call one method; on a copy where a step works in place and X is the body's own bytes."""
        try:
            return self._methods[method](X)
        except ValueError:
            if not isinstance(X, np.ndarray) or X.flags.writeable:
                raise
            return self._methods[method](X.copy())

    def encode(self, y: Answer, request: Request, context: object) -> Reply:
        return calls.encode(y, request)

    def answer_type(self, call: Call) -> str:
        return answer_type(call.accept, self._accept or calls.family(call))

    def takes_chunks(self, lined: bool) -> bool:
        """Whether a body can be cut, which changes nothing here: a row's answer is its own."""
        return True

    def check_method(self, estimator: object, holder: str = "The model file holds") -> None:
        """Raise StartError unless the estimator is fitted and has the method that is to answer."""
        check_model(estimator, holder)
        if not self._chosen:  # its neighbours may be asked for by name
            check_new_rows(estimator)
        if self.method is None:
            raise no_method(estimator)
        kind = type(estimator).__name__
        if self.method not in self._methods:
            has = ", ".join(self._methods)
            raise StartError(f"SKSERVE_METHOD is {self.method}, but {kind} has only: {has}.")
        example: Any = np.zeros((1, self.schema.n_features or 1))
        if self.schema.text or self.schema.records:
            example = ["text"] if self.schema.text else [{}]
        check_fitted(estimator, self._methods[self.method], example)

    def accelerate(self, estimator: object, mode: str) -> None:
        """Put fast paths in the place of methods. Raises StartError where a required one lacks."""
        fast: dict[str, Callable[[Any], Any]] = {}
        if mode != "off" and (self.schema.text or self.schema.n_features):
            fast = accelerate(estimator, self._methods, self.schema)
        if mode == "require" and self.method not in fast:
            raise StartError(
                f"SKSERVE_ACCELERATE is require, but {self.method} of this "
                f"{type(estimator).__name__} has no fast path; with auto it is served as "
                "scikit-learn does it."
            )
        self._methods |= fast
        self.fast = frozenset(fast)

    def check_accept(self) -> None:
        """Raise StartError unless the default format can be written."""
        if self._accept and self._accept not in ENCODERS:
            raise StartError(
                f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is {self._accept!r}; "
                f"expected one of {', '.join(ENCODERS)}."
            )


def taking_frames(own: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a method that takes a Frame too."""
    return lambda X: own(plain(X))


def taking_texts(own: Callable[[Any], Any], reads: Collection[str] = ()) -> Asked:
    """Return a method that takes a list of texts, for a first step of which nothing is known.

    It may have been written for a Series, an array or a list; a Series can do most of the others.
    Or it reads a column by its name: by the one that it asks a Series for, or one that it `reads`.
    """
    import pandas as pd

    other_form = (AttributeError, IndexError, KeyError, TypeError, pd.errors.IndexingError)

    def ask(X: Any) -> Any:
        if not isinstance(X, list):
            return own(plain(X))
        try:
            return own(pd.Series(X))
        except other_form as error:
            failed = error
        if (name := _name_asked(failed)) is not None:
            return own(pd.DataFrame({name: X}))
        names = [*sorted(reads), "text"]  # what takes a column by its place takes any name
        frames = [partial(pd.DataFrame, columns=[one]) for one in names]
        forms: list[Asked] = [list, _objects, *frames]
        for form in forms:
            with suppress(*other_form):
                return own(form(X))
        raise failed

    return ask


def _objects(texts: list[str]) -> NDArray[Any]:
    return np.array(texts, dtype=object)


def _name_asked(error: Exception) -> str | None:
    """Return the name of the column that a step asked a Series for, where that made it fail."""
    at = error.__traceback__
    while at and at.tb_next:
        at = at.tb_next
    within = at.tb_frame.f_globals.get("__name__", "") if at else ""
    if not (isinstance(error, KeyError) and within.startswith("pandas.")):
        return None
    name = error.args[0]
    listed = _NO_SUCH.match(name) if isinstance(name, str) else None
    return listed[1] if listed else name if isinstance(name, str) else None


# What pandas says of a list of columns, such as X[["text"]], of which there is none.
_NO_SUCH = re.compile(r"None of \[Index\(\['(.*?)'\], ")


def _writes_frames(estimator: object) -> bool:
    """Whether a step was told to answer with frames: `set_output(transform="pandas")`."""
    steps = [estimator, *fitted_steps(estimator)]
    return {"transform": "pandas"} in [look(step, "_sklearn_output_config") for step in steps]
