"""What a body will take is known before it is made."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skserve.errors import Overloaded, ServeError
from skserve.estimators.schema import Schema
from skserve.formats.catalogue import DECODERS
from skserve.formats.media_types import MediaType
from skserve.formats.sizes import ANSWER, expected_size
from skserve.scheduling.bodies import Bodies
from skserve.serving.compression import claimed, packed

SCHEMA = Schema(n_features=4)
X = np.arange(4000.0).reshape(1000, 4)


def saved(write: Callable[..., object], *arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    write(file, *arrays)
    return file.getvalue()


CSV = "\n".join(",".join(map(str, row)) for row in X.tolist()).encode()
BODIES = {
    "text/csv": CSV,
    "application/json": json.dumps(X.tolist()).encode(),
    "application/jsonlines": b"".join(json.dumps(row).encode() + b"\n" for row in X.tolist()),
    "application/x-npy": saved(np.save, X),
    "application/x-npz": saved(np.savez_compressed, X),
}


@pytest.mark.parametrize("media_type", BODIES)
def test_a_table_takes_its_numbers_and_its_answers(media_type):
    real = X.nbytes + ANSWER * len(X)

    assert real <= expected_size(BODIES[media_type], media_type, SCHEMA) <= 1.1 * real


def test_small_values_take_as_much_as_large_ones():
    body = saved(np.savez_compressed, np.zeros((1000, 4), bool))

    assert expected_size(body, "application/x-npz", SCHEMA) >= X.nbytes
    assert expected_size(body, "application/x-npz", SCHEMA) > 10 * len(body)


def test_a_header_is_not_believed_beyond_what_its_bytes_can_hold():
    body = saved(np.save, X[:1]).replace(b"(1, 4)", b"(9999999, 4)")
    assert expected_size(body, "application/x-npy", SCHEMA) < 1000


@pytest.mark.parametrize("media_type", DECODERS)
@given(body=st.binary(max_size=300))
def test_any_bytes_have_a_size(media_type, body):
    assert 0 <= expected_size(body, media_type, SCHEMA) <= 64 << 20


@pytest.mark.parametrize("media_type", BODIES)
@given(cut=st.integers(0, 3000), data=st.binary(min_size=1, max_size=8))
def test_a_damaged_body_has_a_size(media_type, cut, data):
    body = BODIES[media_type]
    body = body[:cut] + data + body[cut + len(data) :]
    expected_size(body, media_type, SCHEMA)
    try:
        decoded = DECODERS[media_type](body, MediaType.parse(media_type), SCHEMA)
    except ServeError:
        return
    rows = decoded.table.rows
    if isinstance(rows, np.ndarray):
        assert rows.nbytes <= expected_size(body, media_type, SCHEMA) + 64


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=3))
def test_gzip_says_what_it_unpacks_to(parts):
    whole = b"".join(parts)
    assert claimed(packed(whole), 1 << 20) == len(whole)
    many = b"".join(gzip.compress(part, mtime=0) for part in parts)
    assert claimed(many, 1 << 20) >= len(whole)


def test_gzip_is_not_believed_beyond_what_it_can_hold():
    body = packed(b"x" * 100)
    assert claimed(body[:-4] + b"\xff" * 4, sys.maxsize) <= 1032 * len(body)
    assert zlib.decompress(body, 31) == b"x" * 100


def test_a_body_is_let_in_alone_and_beside_others_only_as_far_as_there_is_room():
    bodies = Bodies(100)
    with bodies.hold(10), bodies.hold(500, own=10):  # it is alone with what it came in
        with pytest.raises(Overloaded) as refused, bodies.hold(1):
            pass
        assert refused.value.reason == "memory"
    assert bodies.held == 0
