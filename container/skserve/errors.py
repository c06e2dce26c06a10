"""The vocabulary of failure.

A `ServeError` is an answer: it carries the HTTP status, a stable code, the useful sentence,
and the way out. The layer that knows why chooses the class, `serving` turns it into HTTP, and any
exception that is not a `ServeError` is a bug: a 500 whose traceback stays in the log. A
`StartError` ends the process instead: its text is the one sentence printed on stderr.
"""

from __future__ import annotations

import re

# Around what was quoted of a request; no message holds these characters otherwise.
_OPEN, _CLOSE = "\x0e", "\x0f"
_QUOTED = re.compile(f"{_OPEN}[^{_CLOSE}]*{_CLOSE}?")
_MARKS = str.maketrans("", "", _OPEN + _CLOSE)


def quote(said: object) -> str:
    """Mark what a message quotes of a request: its caller reads it, the log leaves it out."""
    return f"{_OPEN}{str(said).translate(_MARKS)}{_CLOSE}"


class ServeError(Exception):
    """A failure with an answer. `message` says what was seen, `hint` the way out.

    `marked` is the message with the marks of `quote`, for one that is made into another.
    """

    status = 500
    code = "internal_error"
    reason = ""  # why the load of the server refused it, see `series.REJECTED`

    def __init__(self, message: str, hint: str = "") -> None:
        self.marked = message
        self.message = message.translate(_MARKS)
        self.hint = hint.translate(_MARKS)
        super().__init__(self.message)

    @property
    def logged(self) -> str:
        """The message without what it quotes of a request."""
        return _QUOTED.sub("[...]", self.marked)


class BadRequest(ServeError):
    """The body, its shape or a value in it is not what the model takes."""

    status = 400
    code = "bad_request"


class NotAcceptable(ServeError):
    """No format in Accept is one we can write."""

    status = 406
    code = "not_acceptable"


class TooSlow(ServeError):
    """The body came so slowly that it would keep others waiting."""

    status = 408
    code = "request_timeout"


class TooLarge(ServeError):
    """The body, or the answer it asks for, is over a limit."""

    status = 413
    code = "payload_too_large"


class UnsupportedMediaType(ServeError):
    """The body is in a format, charset or encoding that we do not read."""

    status = 415
    code = "unsupported_media_type"


class ModelFault(ServeError):
    """The model or the user's script failed on a request that may be fine."""

    status = 500
    code = "model_error"


class HookError(ServeError):
    """An exception of the user's script that carries a status of its own."""

    code = "script_error"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Overloaded(ServeError):
    """A request that is refused for the sake of those before it.

    `reason` is one word for it: `places` (as many wait as may), `wait` (it would wait too long),
    `late` (too little of its time is left), `memory`, `hung` or `model`. `retry_after` is in
    seconds.
    """

    status = 503
    code = "overloaded"

    def __init__(
        self, message: str, hint: str = "", reason: str = "other", retry_after: int = 1
    ) -> None:
        super().__init__(message, hint)
        self.reason, self.retry_after = reason, retry_after


class NotReady(ServeError):
    """No model can predict in this process yet."""

    status = 503
    code = "not_ready"
    reason = "not_ready"


class Refused(ServeError):
    """A call of the multi-model contract that cannot be done; 409 and 507 mean what it says."""

    code = "refused"

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


class OutOfMemory(ServeError):
    """The model ran out of memory on this request. Only the multi-model contract has a 507."""

    status = 507
    code = "out_of_memory"


class TimedOut(ServeError):
    """The prediction took longer than SAGEMAKER_MODEL_SERVER_TIMEOUT."""

    status = 504
    code = "timeout"


class StartError(Exception):
    """The process cannot start or go on; the text is one readable sentence."""


class NoRoom(StartError):
    """The model does not fit into the memory, or another resource, that is left."""
