"""From what a script's functions return to a reply: bodies, pairs, Flask responses, generators.

What they may return is section 3.5 of docs/80-contract.md.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from skserve.errors import ModelFault, ServeError
from skserve.formats.answer import Answer
from skserve.formats.catalogue import ENCODERS
from skserve.formats.charsets import encoded
from skserve.formats.chunks import FRAMES, resumed
from skserve.formats.json_text import dumps
from skserve.formats.media_types import CSV, JSON
from skserve.inference.calls import Reply
from skserve.inference.context import Context
from skserve.inference.hooks import answer_to


def finish(result: Any, accept: str, context: Context, hook: str) -> Reply:
    """Make a reply of what output_fn or transform_fn returned (docs/80-contract.md, 3.5).

    bytes and str leave as they are under the negotiated type, a `(body, content_type)` pair under
    its own, a Flask response with its own status; anything else is encoded as Accept asks. The
    parts of a generator leave one by one. `hook` is the name of the function.
    """
    status, headers = 200, {}
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
        result, accept = result
    elif callable(getattr(result, "get_data", None)) and hasattr(result, "status_code"):
        status, headers = result.status_code, dict(result.headers)
        accept = headers.pop("Content-Type", accept)
        streamed = getattr(result, "is_streamed", False)
        result = _encoded_parts(result) if streamed else result.get_data()
    if isinstance(result, Iterator):
        result = begun(result, hook)  # until its first part is there, it may say what it is
    media_type = context.media_type or accept
    headers.update(context.reply_headers)
    return Reply(_body(result, media_type), media_type, context.status or status, headers)


def _encoded_parts(response: Any) -> Parts:
    """Return the parts of a Flask response that streams."""
    try:
        yield from response.iter_encoded()
    finally:
        response.close()


def _body(result: Any, media_type: str) -> bytes | Iterator[bytes]:
    raw = _raw(result)
    if raw is not None:
        return raw
    name = media_type.split(";")[0].strip().lower()
    if isinstance(result, Generator):
        return streamed(result, name)
    if name not in ENCODERS:
        raise _unwritable(result, name)
    return written(result, name)


def _raw(value: Any) -> bytes | None:
    """Return what leaves as it is; None of what is to be encoded."""
    if isinstance(value, str):
        return encoded(value)
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


def _unwritable(value: Any, name: str) -> ModelFault:
    return ModelFault(
        f"The script returned {type(value).__name__}, which cannot be written as {name}.",
        f"Return bytes or str, or ask for one of {', '.join(ENCODERS)}.",
    )


def written(value: Any, name: str, enveloped: bool = False) -> bytes:
    """Write what a script returned: tables in rows; in JSON all else as it is, as AWS's image does.

    The body of a request may ask for an envelope; a dict or a text is one of the script's own.
    """
    if value is None:
        raise ModelFault("The script returned None.", "Return bytes, str, or something to encode.")
    if name == JSON and not _is_table(value):
        listed = enveloped and isinstance(value, list | tuple)
        return dumps({"predictions": value} if listed else value)
    if isinstance(value, dict | str | bytes):
        raise ModelFault(
            f"The script returned a {type(value).__name__}, which has no rows to write as {name}.",
            "Return an array or a list, or ask for JSON.",
        )
    return ENCODERS[name](Answer.of(value), enveloped)


def _is_table(value: Any) -> bool:
    return isinstance(value, np.ndarray) or any(
        hasattr(value, method) for method in ("to_numpy", "toarray")
    )


Parts = Generator[Any, None, None]


def begun(parts: Iterator[Any], hook: str) -> Parts:
    """Make the first part now, while a failure can still be an answer with a status of its own."""
    guarded = _guarded(parts, hook)
    for first in guarded:
        return resumed(first, guarded)
    return guarded


def _guarded(parts: Iterator[Any], hook: str) -> Parts:
    """Turn the failures of a generator into those of the function that returned it."""
    try:
        yield from parts
    except ServeError:
        raise
    except (Exception, SystemExit) as error:
        raise answer_to(hook, error) from error


def streamed(values: Parts, name: str, enveloped: bool = False) -> Iterator[bytes]:
    """Encode values as they come: bytes and str as they are, others as the rows of one answer."""
    parts = _parts(values, name, enveloped)
    for first in parts:  # what cannot be written at all is said before anything has left
        return resumed(first, parts)
    return parts


def _parts(values: Parts, name: str, enveloped: bool) -> Parts:
    start, between, end = FRAMES.get(name, (b"", b"", b""))
    if start and enveloped:
        start, end = b'{"predictions":' + start, end + b"}"
    before, own = start, False  # a script that writes text writes all of it
    with closing(values):
        for value in values:
            raw = _raw(value)
            own = own or (raw is not None and before == start)
            if raw is not None and (own or not start):
                yield raw
            elif raw is None and name in FRAMES and not (own and start):
                yield before + _element(value, name)
                before = between
            else:
                raise _unwritable(value, f"a part of {name}")
    if start and not own:
        yield (start if before == start else b"") + end


def _element(value: Any, name: str) -> bytes:
    """Write one value of a stream: a table or a list as its rows, anything else as one of them."""
    rows = isinstance(value, list) or _is_table(value)
    if name == JSON:
        return written(value, name)[1:-1] if rows else written(value, name)
    return dumps(value) + b"\n" if name != CSV and isinstance(value, dict) else written(value, name)
