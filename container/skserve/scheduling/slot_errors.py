"""How work in a slot fails: the errors of a request that gets none, or no answer in its time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from skserve.errors import ModelFault, Overloaded, TimedOut

T = TypeVar("T")


def no_place(seconds: float = 0.0) -> Overloaded:
    """Return the error of a request that gets no place; one may be free after `seconds`."""
    rest = whole_seconds(seconds)
    return Overloaded(
        "As many requests are running and waiting as may.", f"Try again in {rest} s.", "queue", rest
    )


def no_slot(timeout: float) -> TimedOut:
    return TimedOut(f"No prediction slot was free within {timeout:g} s.", "Send fewer at a time.")


def took_too_long(timeout: float) -> TimedOut:
    return TimedOut(
        f"The prediction took longer than {timeout:g} s, waiting included.",
        "Send fewer rows, or raise SAGEMAKER_MODEL_SERVER_TIMEOUT.",
    )


def late(waited: float, timeout: float) -> Overloaded:
    return Overloaded(
        f"After {about(waited)} of waiting too little was left of the {timeout:g} s of this "
        "request, so it was not started.",
        "Send fewer at a time.",
        "late",
    )


def hangs() -> Overloaded:
    return Overloaded("Every prediction of this worker hangs.", "Try again in a second.", "hang")


def whole_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def about(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole_seconds(seconds)} s"


def safely(work: Callable[[], T]) -> T:
    """Return or raise what the work did. Nothing that it raises ends the thread of the server."""
    try:
        return work()
    except Exception:
        raise
    except BaseException as error:
        raise ModelFault(
            f"The model tried to end the server ({type(error).__name__}).",
            "The log has the traceback.",
        ) from error
