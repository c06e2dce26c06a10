"""The vocabulary of failure: each class carries the exit code of the command.

The layer that knows why chooses the class; `commands.run` alone turns it into text and an exit
code. Any other exception is a bug.
"""

from __future__ import annotations


class DeployError(Exception):
    """A failure with a sentence, and where there is one the way out."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Failed(DeployError):
    """AWS, or the endpoint itself, did not do what was asked."""


class Usage(DeployError):
    """The words or the settings file are wrong; nothing was called."""

    exit_code = 2


class NoRegion(Usage):
    """Neither the settings nor the environment name a region."""


class Refused(DeployError):
    """What is asked cannot work, or would surprise: found before anything that bills."""

    exit_code = 3


class Unauthorised(Failed):
    """No credentials, expired ones, or not enough of them. `code` is the API's own."""

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


class ApiError(Failed):
    """AWS answered with an error. `code` is the API's own, for example `ValidationException`.

    `tried_again` says that an earlier attempt got no answer, so it may have taken effect.
    """

    def __init__(
        self, message: str, code: str, operation: str, tried_again: bool = False, hint: str = ""
    ) -> None:
        super().__init__(message, hint)
        self.code = code
        self.operation = operation
        self.tried_again = tried_again


class ModelAnswered(ApiError):
    """The container answered a call with an error: its status, and its body as AWS passes it on."""

    def __init__(
        self, message: str, operation: str, status: int, body: str, hint: str = ""
    ) -> None:
        super().__init__(message, "ModelError", operation, hint=hint)
        self.status = status
        self.body = body


class Unreachable(Failed):
    """No answer came, so whether the call took effect is not known."""
