"""Parquet and Arrow: what pyarrow writes is read, and what breaks pyarrow breaks one request."""

from __future__ import annotations

import datetime
import io
import json
import os
import signal
import struct
import threading
import time
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skserve.errors import BadRequest, NotAcceptable, ServeError, TooLarge, UnsupportedMediaType
from skserve.estimators.columns import NUMBER, TEXT, UNUSED, Column
from skserve.estimators.frame import plain
from skserve.estimators.schema import Schema
from skserve.formats import arrow
from skserve.formats.answer import Answer
from skserve.formats.catalogue import ENCODERS
from skserve.formats.media_types import ARROW_FILE, ARROW_STREAM, JSON, PARQUET, X_PARQUET
from skserve.formats.negotiation import answer_type
from skserve.inference import calls
from skserve.inference.calls import Call

FORMS = [PARQUET, X_PARQUET, ARROW_STREAM, ARROW_FILE]
NAMED = Schema(n_features=3, columns=(NUMBER,) * 3, names=("a", "b", "c"))
PLAIN = Schema(n_features=3, columns=(NUMBER,) * 3)
MIXED = Schema(n_features=3, columns=(TEXT, NUMBER, UNUSED), names=("a", "b", "c"))
NUMBERS = pa.table({"a": [0.1, 1e-300, -0.0], "b": [1.5, None, 3.0], "c": [1, 2**53, None]})
EXPECTED = np.array([[0.1, 1.5, 1], [1e-300, np.nan, 2**53], [-0.0, 3, np.nan]])


def written(table: pa.Table, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    if form in (PARQUET, X_PARQUET):
        pq.write_table(table, stream, **options)
    else:
        make = pa.ipc.new_stream if form == ARROW_STREAM else pa.ipc.new_file
        with make(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return stream.getvalue()


def decoded(body: bytes, form: str, schema: Schema = NAMED):
    return plain(calls.decode(Call(body, form), schema, JSON).X)


@pytest.mark.parametrize("form", FORMS)
def test_numbers_arrive_bit_for_bit(form):
    for schema in (NAMED, PLAIN):
        X = decoded(written(NUMBERS, form), form, schema)
        assert X.dtype == np.float64
        assert np.array_equal(X, EXPECTED, equal_nan=True)


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
def test_every_compression_of_parquet_is_read(compression):
    body = written(NUMBERS, PARQUET, compression=compression)

    assert np.array_equal(decoded(body, PARQUET), EXPECTED, equal_nan=True)


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_matched_by_name(form):
    X = decoded(written(NUMBERS.select(["c", "a", "b"]), form), form)

    assert np.array_equal(X, EXPECTED, equal_nan=True)
    with pytest.raises(BadRequest, match="Missing: 'b'. Unexpected: 'x'"):
        decoded(written(NUMBERS.rename_columns(["a", "x", "c"]), form), form)
    with pytest.raises(BadRequest, match="Row 1 has 2 values, expected 3"):
        decoded(written(NUMBERS.select(["a", "b"]), form), form, PLAIN)


def test_the_index_of_a_frame_is_no_column():
    frame = pd.DataFrame({"a": [1.0], "b": [2.0], "c": [3.0]}, index=["row"])
    stream = io.BytesIO()
    frame.to_parquet(stream)

    assert decoded(stream.getvalue(), PARQUET).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, 2], pa.int8()), [1, 2]),
        (pa.array([2**63, None], pa.uint64()), [2**63, np.nan]),
        (pa.array([1.5, 2.5], pa.float32()), [1.5, 2.5]),
        (pa.array([1.5, None], pa.float16()), [1.5, np.nan]),
        (pa.array([True, None]), [1, np.nan]),
        (pa.array([Decimal("1.25"), None]), [1.25, np.nan]),
        (pa.array([None, None]), [np.nan, np.nan]),
        (pa.array([1.5, None, 1.5]).dictionary_encode()[:2], [1.5, np.nan]),
        (pa.chunked_array([[1.0], [2.0]]), [1, 2]),
    ],
    ids=str,
)
def test_numbers_of_every_type_become_float64(values, expected):
    schema = Schema(n_features=1, columns=(NUMBER,), names=("a",))

    X = decoded(written(pa.table({"a": values}), ARROW_STREAM), ARROW_STREAM, schema)

    assert np.array_equal(X[:, 0], np.array(expected, float), equal_nan=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), "str")])
def test_text_stays_text(form, kind):
    table = pa.table({"a": pa.array(["007", None], kind), "b": [1, None], "c": ["x", None]})

    X = decoded(written(table, form), form, MIXED)

    assert X["a"].tolist()[0] == "007"
    assert pd.isna(X["a"][1])
    assert X["b"].tolist()[0] == 1
    texts = decoded(written(table.select(["a"])[:1], form), form, Schema(text=True))
    assert texts == ["007"]


def test_truth_stays_truth_where_the_model_learned_it():
    column = Column("text", (True, False, "maybe"))
    table = pa.table({"a": pa.array([True, False])})

    X = decoded(written(table, PARQUET), PARQUET, Schema(1, ("a",), (column,)))

    assert X["a"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["x", "y"], "Row 1, column 'b': expected a number, got 'x'"),
        ([datetime.date(2020, 1, 2)] * 2, "expected a number, got '2020-01-02'"),
        ([datetime.datetime(2020, 1, 2)] * 2, "expected a number, got '2020-01-02 00:00"),
        ([[1.0], [2.0]], "column 'b' is of type list"),
        ([{"x": 1}] * 2, "column 'b' is of type struct"),
        ([b"\xff", b""], "column 'b' is of type binary"),
    ],
)
def test_what_is_no_number_is_named(values, sentence):
    table = pa.table({"a": [1, 2], "b": values, "c": [1, 2]})
    with pytest.raises(BadRequest, match=sentence):
        decoded(written(table, ARROW_FILE), ARROW_FILE)


def test_no_rows_and_no_columns_are_refused():
    with pytest.raises(BadRequest, match="no rows"):
        decoded(written(NUMBERS[:0], PARQUET), PARQUET)
    with pytest.raises(BadRequest, match="no columns"):
        decoded(written(pa.table({}), ARROW_STREAM), ARROW_STREAM)


# ------------------------------------------------------------------------------------------- out


def read(body: bytes, form: str) -> dict[str, list[object]]:
    if form in (PARQUET, X_PARQUET):
        return pq.read_table(io.BytesIO(body)).to_pydict()
    opened = pa.ipc.open_stream(body) if form == ARROW_STREAM else pa.ipc.open_file(body)
    return opened.read_all().to_pydict()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("y", "method", "columns"),
    [
        (np.array([0.1, -0.0]), None, {"values": [0.1, -0.0]}),
        (np.array([3, 2**60]), None, {"values": [3, 2**60]}),
        (np.array([[0.1, 2.0]]), None, {"values_0": [0.1], "values_1": [2.0]}),
        (np.array(["a", "b"]), None, {"values": ["a", "b"]}),
        (np.array(["a", None], dtype=object), None, {"values": ["a", "None"]}),
        (np.array([True, False]), None, {"values": [True, False]}),
        (
            (np.array([[0.5]]), np.array([[3]])),
            "kneighbors",
            {"distances_0": [0.5], "indices_0": [3]},
        ),
    ],
    ids=str,
)
def test_what_leaves_is_what_was_answered(form, y, method, columns):
    assert read(ENCODERS[form](Answer.of(y, method), False), form) == columns


# --------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("form", [PARQUET, ARROW_STREAM, ARROW_FILE])
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_damage_is_read_or_refused(form, data):
    body = bytearray(written(NUMBERS, form, **({"compression": "zstd"} if "parq" in form else {})))
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.one_of(st.just(len(body)), st.integers(0, len(body))))
    try:
        decoded(bytes(body[:cut]), form)
    except ServeError as error:
        assert error.status in (400, 413)
        assert len(error.message) < 600


def footed(body: bytes, old: bytes, new: bytes) -> bytes:
    """Replace bytes in the footer of a Parquet file."""
    (length,) = struct.unpack("<I", body[-8:-4])
    footer = body[-8 - length : -8].replace(old, new)
    assert footer != body[-8 - length : -8]
    return body[: -8 - length] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def zigzag(value: int) -> bytes:
    value, spelled = 2 * value, bytearray()
    while value > 127:
        spelled.append(value & 127 | 128)
        value >>= 7
    return bytes([*spelled, value])


def test_a_footer_that_claims_a_petabyte_is_refused_at_once():
    table = pa.table({name: np.arange(12_345.0) for name in "abc"})
    body = written(table, PARQUET)
    decoded(body, PARQUET)  # the child is there now
    began = time.monotonic()
    for claim in (10**15, 2**62):
        with pytest.raises(ServeError) as raised:
            decoded(footed(body, zigzag(12_345), zigzag(claim)), PARQUET)
        assert raised.value.status in (400, 413)
    huge = body[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1"
    with pytest.raises(BadRequest, match="cannot be read"):
        decoded(huge, PARQUET)

    assert time.monotonic() - began < 5


def test_a_bomb_of_repeated_text_is_refused():
    text = pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int8), ["x" * 100_000])  # 2 GB of it
    body = written(pa.table({"a": text, "b": range(20_000), "c": range(20_000)}), PARQUET)

    with pytest.raises(ServeError) as raised:
        decoded(body, PARQUET, MIXED)
    assert raised.value.status == 413


def test_a_bomb_of_zeros_is_refused():
    table = pa.table({name: np.zeros(2_000_000) for name in "abc"})

    with pytest.raises(TooLarge, match="unpacked"):
        decoded(written(table, PARQUET, compression="zstd"), PARQUET)


@pytest.mark.parametrize("wound", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_of_the_reader_costs_one_request(wound):
    body = written(NUMBERS, PARQUET)
    decoded(body, PARQUET)
    child = arrow._sandbox.pid
    os.kill(child, signal.SIGSTOP)  # in the middle of the job

    def crash() -> None:
        time.sleep(0.2)
        os.kill(child, wound)
        os.kill(child, signal.SIGCONT)

    threading.Thread(target=crash).start()
    with pytest.raises(BadRequest, match="breaks its reader"):
        decoded(body, PARQUET)

    assert np.array_equal(decoded(body, PARQUET), EXPECTED, equal_nan=True)
    assert arrow._sandbox.pid != child


def test_a_reader_that_hangs_is_ended(monkeypatch):
    body = written(NUMBERS, PARQUET)
    decoded(body, PARQUET)
    child = arrow._sandbox.pid
    os.kill(child, signal.SIGSTOP)
    monkeypatch.setattr(arrow._sandbox, "_timeout", 0.3)
    with pytest.raises(BadRequest, match="breaks its reader"):
        decoded(body, PARQUET)
    monkeypatch.undo()

    assert np.array_equal(decoded(body, PARQUET), EXPECTED, equal_nan=True)


# ---------------------------------------------------------------------------- with and without it


def test_an_image_without_pyarrow_says_how_to_build_one(monkeypatch):
    for form in FORMS:
        monkeypatch.delitem(calls.DECODERS, form)
        monkeypatch.delitem(calls.ENCODERS, form)
    answer_type.cache_clear()

    with pytest.raises(UnsupportedMediaType) as raised:
        decoded(b"", PARQUET)
    assert "--build-arg FORMATS=parquet" in raised.value.hint
    with pytest.raises(NotAcceptable) as refused:
        answer_type(ARROW_STREAM, JSON)
    assert "--build-arg FORMATS=parquet" in refused.value.hint


def test_a_server_reads_and_writes_them(servers):
    named = servers("named")
    rows = [[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]
    table = pa.table(dict(zip("abc", zip(*rows, strict=True), strict=True)))
    expected = named.post(json.dumps(rows)).json()

    for form in FORMS:
        answer = named.post(written(table, form), form, Accept=form)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == form
        assert read(answer.content, form) == {"values": expected}
    broken = named.post(written(table, PARQUET)[:-9], PARQUET)
    assert broken.status_code == 400
