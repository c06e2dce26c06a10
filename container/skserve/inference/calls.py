"""From a call to a request, from an answer to a reply: what the formats have in common.

The formats themselves are two tables, `DECODERS` and `ENCODERS`. The caller's faults are
`BadRequest`, `UnsupportedMediaType` and `NotAcceptable`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from skserve.errors import BadRequest, UnsupportedMediaType, quote
from skserve.estimators.schema import Schema
from skserve.formats import arrow, media_types
from skserve.formats.answer import Answer
from skserve.formats.catalogue import DECODERS, ENCODERS
from skserve.formats.conform import conform
from skserve.formats.media_types import CSV, FORM, JSON
from skserve.telemetry import note_rows

_NONE: Mapping[str, str] = MappingProxyType({})

# Named tuples, because a frozen dataclass takes three times as long to make: a request makes three.


class Call(NamedTuple):
    """One request as it arrived, without any HTTP in it.

    `attributes` is the text of X-Amzn-SageMaker-Custom-Attributes; `headers` are for user scripts.
    """

    body: bytes
    content_type: str = ""
    accept: str = ""
    attributes: str = ""
    headers: Mapping[str, str] = _NONE


class Request(NamedTuple):
    """A decoded call: the model's X, the format to answer in, the method asked for.

    `n_rows` is None where a script made X. `enveloped` bodies get an enveloped answer. In what is
    `complete` no cell is missing.
    """

    X: Any
    accept: str = JSON
    n_rows: int | None = None
    method: str | None = None
    enveloped: bool = False
    complete: bool = False


class Reply(NamedTuple):
    """An answer on its way out: whole, or in parts that leave as they are made."""

    body: bytes | Iterator[bytes]
    media_type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = _NONE
    length: int | None = None  # bytes of a body in parts, where that is known


def decode(call: Call, schema: Schema, accept: str) -> Request:
    """Read a call into the X that the model takes; `accept` is the format negotiated for it.

    Raises UnsupportedMediaType, or BadRequest.
    """
    kind = content_type(call)
    decoder = DECODERS.get(kind.name)
    if decoder is None:
        way_out = f"Send one of {', '.join(DECODERS)}."
        if kind.name in arrow.FORMS:
            way_out = arrow.WAY_OUT
        if kind.name == FORM:
            way_out = "With curl: -H 'Content-Type: application/json'. " + way_out
        raise UnsupportedMediaType(f"Content-Type {kind.name} is not read here.", way_out)
    decoded = decoder(call.body, kind, schema)
    X = conform(decoded.table, schema)
    method = decoded.method or attribute(call, "method")
    check_method(method, schema)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)  # a sparse matrix has no len
    note_rows(n_rows)
    return Request(X, accept, n_rows, method, decoded.enveloped, decoded.table.complete)


def encode(answer: Answer, request: Request) -> Reply:
    """Write an answer in the format negotiated for `request`."""
    return Reply(ENCODERS[request.accept](answer, request.enveloped), request.accept)


def content_type(call: Call) -> media_types.MediaType:
    """Return the call's media type; a missing one is JSON, as in AWS's image."""
    try:
        return media_types.MediaType.parse(call.content_type or JSON)
    except ValueError as error:
        raise UnsupportedMediaType(
            f"Content-Type: {error}.", f"Send one of {', '.join(DECODERS)}."
        ) from None


def family(call: Call) -> str:
    """Return the format of an answer to be read beside its input: the input's own, or its kin."""
    name = content_type(call).name
    return name if name in ENCODERS else CSV if name.startswith("text/") else JSON


def check_method(method: str | None, schema: Schema) -> None:
    """Raise BadRequest where a call asks for a method that the model has not."""
    if method is not None and method not in schema.methods:
        raise BadRequest(
            f"This model has no method {quote(repr(method))}.",
            f"It has {', '.join(schema.methods)}.",
        )


def attribute(call: Call, name: str) -> str | None:
    """Find `name=value` among pairs split on comma or semicolon; other text is the caller's own."""
    if not call.attributes:
        return None
    for pair in call.attributes.replace(";", ",").split(","):
        key, equals, value = pair.partition("=")
        if equals and key.strip() == name:
            return value.strip()
    return None
