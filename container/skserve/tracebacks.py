"""Exceptions without their messages, which may quote what a caller sent."""

from __future__ import annotations

import traceback
from collections.abc import Iterator


def raised(error: BaseException) -> str:
    """Say of which type an exception is and where it was raised, without its message."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None:
        return type(error).__name__
    code = at.tb_frame.f_code
    path = "/".join(code.co_filename.split("/")[-3:])
    return f"{type(error).__name__} at {path}:{at.tb_lineno} in {code.co_name}"


def without_messages(error: BaseException) -> Iterator[str]:
    """Format an exception with those that led to it as Python does, but without their messages."""
    chain: list[tuple[str, BaseException]] = []
    following: BaseException | None = error
    link = ""
    while following is not None and all(following is not one for _, one in chain):
        chain.append((link, following))
        link = "was the direct cause of" if following.__cause__ else "was being handled before"
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)
    for link, one in reversed(chain):
        if one.__traceback__ is not None:
            yield "Traceback (most recent call last):\n"
            yield from traceback.format_tb(one.__traceback__)
        yield f"{type(one).__module__}.{type(one).__qualname__}\n".removeprefix("builtins.")
        if link:
            yield f"\nThe above exception {link} the following exception:\n\n"
