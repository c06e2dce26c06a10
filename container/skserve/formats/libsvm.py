"""libsvm text: a row a line, `label index:value index:value ...`, of which the label is ignored."""

from __future__ import annotations

from operator import methodcaller

import numpy as np

from skserve.errors import BadRequest, quote
from skserve.estimators.schema import Schema
from skserve.formats import sparse
from skserve.formats.charsets import utf8_of
from skserve.formats.media_types import MediaType
from skserve.formats.table import Decoded, Table


def read_libsvm(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read sparse rows. Indices start at `base`, or else where the setting says."""
    if schema.n_features is None:
        raise BadRequest(
            "The model does not say how many columns it takes, and libsvm does not either.",
            "Send application/x-npz.",
        )
    base = kind.parameters.get("base", str(schema.libsvm_base))
    if base not in ("0", "1"):
        raise BadRequest(f"base={base[:40]} is not known.", "Send base=0 or base=1.")
    pairs: list[bytes] = []
    starts = [0]
    for line in utf8_of(body, kind).splitlines():
        words = line.partition(b"#")[0].split()
        if words:
            pairs += words[_before(words) :]
            starts.append(len(pairs))
        elif b"#" not in line:
            raise BadRequest(f"Row {len(starts)} is a blank line.", "Leave no line empty.")
    try:
        joined = b":".join(pairs)
        if not set(map(methodcaller("count", b":"), pairs)) <= {1} or b"_" in joined:
            raise ValueError  # Python reads 1_000, no file format does
        flat = joined.split(b":") if pairs else []
        columns = np.array(list(map(int, flat[::2])), np.int64) - int(base)
        values = np.array(list(map(float, flat[1::2])), np.float64)
    except (ValueError, OverflowError):
        raise _first_fault(pairs, starts) from None
    beyond = np.flatnonzero((columns < 0) | (columns >= schema.n_features))
    if len(beyond):
        row = int(np.searchsorted(starts, beyond[0], side="right"))
        raise BadRequest(
            f"Row {row} has the index {columns[beyond[0]] + int(base)}; the model has "
            f"{schema.n_features} columns, and indices start at {base}.",
            f"Send ;base={1 - int(base)} with the type, or set SKSERVE_LIBSVM_BASE, if they start "
            f"at {1 - int(base)}.",
        )
    return Decoded(Table(sparse.rows_of(values, columns, np.array(starts), schema.n_features)))


def _before(words: list[bytes]) -> int:
    """Return how many words come before the pairs: a label, and the number of a query."""
    label = b":" not in words[0]
    return label + (len(words) > label and words[label].startswith(b"qid:"))


def _first_fault(pairs: list[bytes], starts: list[int]) -> BadRequest:
    """Find the malformed pair."""
    hint = "Send label index:value ..., with spaces between."
    for at, pair in enumerate(pairs):
        index, colon, value = pair.partition(b":")
        try:
            if b"_" in pair or not colon or not -(2**63) <= int(index) < 2**63:
                raise ValueError
            float(value)
        except ValueError:
            row = int(np.searchsorted(starts, at, side="right"))
            text = pair[:40].decode("utf-8", "replace")
            return BadRequest(f"Row {row}: expected index:value, got {quote(repr(text))}.", hint)
    return BadRequest("The body is not libsvm text.", hint)
