"""What a call is refused with, as the service's own clients read it."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal: the service's code and sentence, the HTTP status, and the body's other fields."""

    def __init__(self, code: str, message: str, status: int = 400, **extra: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.extra = code, message, status, extra


class StartError(Exception):
    """An instance or a job cannot start or go on; the sentence becomes its FailureReason."""


def invalid(message: str) -> ApiError:
    """Return SageMaker's refusal of a request."""
    return ApiError("ValidationException", message)


def not_modelled(what: str) -> ApiError:
    """Return the refusal of what this cloud does not do. AWS may well do it."""
    sentence = f"local cloud: {what} is not modelled here; docs/35-cloud.md lists what is"
    return ApiError("NotModelledByLocalCloud", sentence, 501)
