"""Which format an answer is written in: what Accept asks for, of what is written here."""

from __future__ import annotations

from functools import lru_cache

from skserve.errors import NotAcceptable
from skserve.formats import arrow
from skserve.formats.catalogue import ENCODERS
from skserve.formats.media_types import negotiate, preferences


@lru_cache(256)  # callers say few different things, and all of them every time
def answer_type(accept: str, default: str) -> str:
    """Choose the format of the answer. Raises NotAcceptable where none fits."""
    chosen = negotiate(accept, ENCODERS, default)
    if chosen not in ENCODERS:
        missing = any(form in accept for form in arrow.FORMS)
        raise NotAcceptable(
            f"Accept {accept or default!r} names no format that is written here.",
            arrow.WAY_OUT if missing else f"Ask for one of {', '.join(ENCODERS)}.",
        )
    return chosen


def wanted_type(accept: str, default: str) -> str:
    """Return the format a script is asked to write, which may be one that only it knows."""
    wanted = preferences(accept)
    return negotiate(accept, ENCODERS, default) or (wanted[0] if wanted else default)
