"""JSON as text, read of a body and written of an answer. For both, only this imports orjson."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from skserve.errors import BadRequest, ModelFault, quote
from skserve.formats.charsets import text_of
from skserve.formats.media_types import MediaType


def dumps(value: Any) -> bytes:
    """Write JSON: arrays as lists, NaN and infinity as null.

    Raises ModelFault, because what is written here was made by a model or a script.
    """
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(value, default=_plain, option=options)
    except TypeError as error:
        why = error.__cause__ or error
    try:
        # Python's own writes a little more: integers beyond 64 bits, halves of surrogate pairs.
        return json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        raise ModelFault(
            f"The answer cannot be written as JSON: {quote(why)}.",
            "Return lists, dicts with text as keys, arrays, numbers and text.",
        ) from why


def dumps_anyway(value: Any) -> bytes:
    """Write JSON of whatever it is; what JSON has no form for is written as text."""
    try:
        return dumps(value)
    except ModelFault:
        return json.dumps(value, default=str, skipkeys=True).encode()


def _plain(value: Any) -> Any:
    """Give orjson something it can write for what it cannot."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise TypeError(f"it holds a {type(value).__name__}")


loads, JSONError = orjson.loads, orjson.JSONDecodeError  # for text that is known to be UTF-8

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parsed(body: bytes, kind: MediaType, where: str = "The body") -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # Python writes NaN and Infinity, which JSON does not have; other charsets are rare.
    text = text_of(body, kind)
    try:
        document = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeEncodeError:
        raise BadRequest(f"{where} holds half of a surrogate pair, which is no text.") from None
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            _way_out(text, error),
        ) from None
    except (ValueError, RecursionError):
        raise BadRequest(f"{where} is not JSON that can be read here.") from None


def _way_out(text: str, error: json.JSONDecodeError) -> str:
    """Say what to do about a text that is not JSON."""
    rest = text[error.pos :].strip()
    if error.msg == "Extra data":
        if rest.startswith(","):
            return "CSV is announced by Content-Type: text/csv."
        return "JSON Lines is announced by Content-Type: application/jsonlines."
    if not text.strip():
        return "It is empty: send rows, such as [[1, 2], [3, 4]]."
    if not rest or error.msg.startswith("Unterminated string"):
        return "It breaks off there: send all of it, and close every bracket and quote."
    if rest.startswith("'") or "double quotes" in error.msg:
        return "JSON has names and texts between double quotes, and no comma behind the last."
    return "Send JSON, or name another format in Content-Type, such as text/csv."


# Bytes of plain numbers, or else cells, that are Python objects at one time. With more of them
# parsing is slower, because the objects no longer fit into the processor's cache.
BLOCK = 1 << 17


def rectangle(text: bytes, between: bytes, width: int) -> NDArray[np.float64] | None:
    """Parse JSON numbers and nulls, in rows with `between` between them, to (n_rows, width).

    None where there is anything else. A text without quotes holds no string, so an empty one tells
    where each row ends, and nothing but numbers can stand for the rest.
    """
    if b'"' in text:
        return None
    try:
        values = orjson.loads(b'[%b,""]' % text.replace(between, b',"",'))
        ends = values[width :: width + 1]
        del values[width :: width + 1]
        if ends.count("") != len(ends):
            return None
        try:
            packed = struct.Struct(f"{len(values)}d").pack(*values)  # twice as fast as numpy
            return np.frombuffer(bytearray(packed)).reshape(-1, width)
        except struct.error:  # there is a null
            return np.fromiter(values, np.float64, len(values)).reshape(-1, width)
    except (ValueError, TypeError):
        return None
