"""A body given to a decoder, for the fuzz and for the corpus of what once failed."""

from __future__ import annotations

from pathlib import Path

from skserve.errors import ServeError
from skserve.estimators.columns import Column
from skserve.estimators.schema import Schema
from skserve.formats.catalogue import DECODERS
from skserve.formats.media_types import JSON
from skserve.formats.sizes import expected_size
from skserve.inference import calls
from skserve.inference.calls import Call

CORPUS = Path(__file__).parent / "corpus"

# What models may say of their columns.
SCHEMAS = (
    Schema(),
    Schema(text=True),
    Schema(n_features=3, columns=(Column(),) * 3),
    Schema(n_features=3, columns=(Column(),) * 3, names=("a", "b", "c")),
)


def decode(content_type: str, body: bytes) -> None:
    """Decode a body for models of each kind; what it raises is a fault of ours.

    A body is read, or refused by a 4xx; either way, its size can be told before.
    """
    for schema in SCHEMAS:
        assert expected_size(body, content_type, schema) >= 0
        try:
            calls.decode(Call(body, content_type), schema, JSON)
        except ServeError as error:
            if not 400 <= error.status < 500:
                raise


def folder_of(content_type: str) -> Path:
    """Return where the bodies of a type that once failed are kept."""
    return CORPUS / content_type.replace("/", "_")


def kinds() -> list[str]:
    """Return the types whose decoders differ: jsonlines and ndjson have one."""
    return list({decoder: kind for kind, decoder in reversed(DECODERS.items())}.values())
