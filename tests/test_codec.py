"""Formats: what goes out comes back, a row's answer is its own, and nothing crashes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import time
import tracemalloc
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skserve.config import Config
from skserve.errors import ModelFault, NotAcceptable, ServeError, TooLarge
from skserve.estimators.schema import Column, Schema
from skserve.formats.answer import Answer
from skserve.formats.catalogue import DECODERS, ENCODERS
from skserve.formats.json_text import dumps_anyway
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NPY
from skserve.inference import calls
from skserve.inference.calls import Call, Request
from skserve.inference.estimator_handler import EstimatorHandler
from tests import zoo

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)
NUMBERS = Schema(n_features=3, columns=(Column(),) * 3)
NAMED = Schema(n_features=3, columns=(Column(),) * 3, names=("a", "b", "c"))


def written(rows: list[list[float]], content_type: str) -> bytes:
    """Write rows the way other programs do."""
    if content_type == JSON:
        return json.dumps(rows).encode()
    if content_type == CSV:
        stream = io.StringIO()
        csv.writer(stream).writerows(rows)
        return stream.getvalue().encode()
    if content_type == JSON_LINES:
        return "\n".join(json.dumps(row) for row in rows).encode()
    array = io.BytesIO()
    np.save(array, np.array(rows))
    return array.getvalue()


@pytest.mark.parametrize("content_type", [JSON, CSV, JSON_LINES, NPY])
@given(rows=st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=8))
def test_every_double_arrives_bit_for_bit(content_type, rows):
    request = calls.decode(Call(written(rows, content_type), content_type), NUMBERS, JSON)

    assert request.X.dtype == np.float64
    assert request.X.tolist() == rows


@pytest.mark.parametrize(
    ("accept", "read"),
    [
        (JSON, lambda body: json.loads(body)),
        (JSON_LINES, lambda body: [json.loads(line) for line in body.splitlines()]),
        (
            CSV,
            lambda body: [
                [float(cell) for cell in row] for row in csv.reader(io.StringIO(body.decode()))
            ],
        ),
        (NPY, lambda body: np.load(io.BytesIO(body), allow_pickle=False).tolist()),
    ],
)
@given(rows=st.lists(st.lists(FLOATS, min_size=2, max_size=2), min_size=1, max_size=8))
def test_every_double_leaves_bit_for_bit(accept, read, rows):
    reply = calls.encode(Answer.of(np.array(rows)), Request(None, accept))

    assert reply.media_type == accept
    assert read(reply.body) == rows


@given(
    cells=st.lists(
        st.lists(
            st.one_of(
                FLOATS.map(repr),
                st.sampled_from(
                    [
                        "",
                        "nan",
                        " 1 ",
                        "1e5",
                        "x",
                        "1_0",
                        "\u0661",
                        "0x1p3",
                        "1d3",
                        "inf",
                        "-inf",
                        "+.5",
                        "5.",
                        "1e400",
                        "-nan",
                        "True",
                        "\u00a01\x1c",
                    ]
                ),
            ),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    ),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=7, max_size=7),
    final=st.booleans(),
    header=st.sampled_from(["", "a,b,c", "c,a,b", '"c",b,"a"', "a,b", "a,b,x", "x,y,z"]),
    block=st.sampled_from([1, 4, 200_000]),
)
def test_the_fast_reading_of_csv_equals_the_careful_one(cells, ends, final, header, block):
    schema, kind = (NAMED, CSV) if "a" in header else (NUMBERS, CSV + ";header=present")
    if not header:
        kind = CSV
    lines = [",".join(row) for row in cells]
    quoted = [",".join(f'"{cell}"' for cell in row) for row in cells]

    def outcome(lines: list[str]) -> Any:
        lines = [header, *lines] if header else lines
        body = "".join(line + end for line, end in zip(lines, ends, strict=False))
        body = body if final else body.rstrip("\r\n")
        try:
            X = calls.decode(Call(body.encode(), kind), schema, JSON).X
        except ServeError as error:
            return error.message
        return [["nan" if math.isnan(value) else value for value in row] for row in X.tolist()]

    with pytest.MonkeyPatch.context() as patch:
        whole = outcome(quoted)
        patch.setattr("skserve.formats.csv_tables.BLOCK", block)
        # Blocks name the first cell of the body that does not fit, a whole table that of a column.
        for found in (outcome(lines), outcome(quoted)):
            assert found == whole or (isinstance(whole, str) and found.startswith("Row"))


FOUR = Schema(n_features=4, columns=(Column(),) * 4)


def test_a_zero_keeps_its_sign_before_a_space():
    X = calls.decode(Call(b"1,-0 ,-0\t,2\n", CSV), FOUR, JSON).X

    assert np.signbit(X).tolist() == [[False, True, True, False]]


def test_a_return_ends_a_record_before_a_block_with_quotes_too(monkeypatch):
    monkeypatch.setattr("skserve.formats.csv_tables.BLOCK", 8)

    with pytest.raises(ServeError, match=r"Row 2 has 2 values, expected 4"):
        calls.decode(Call(b'1,2,3,4\n1,2\r,3,4\n"1",2,3,4\n', CSV), FOUR, JSON)


ONE = Schema(n_features=1, columns=(Column(),))


@example(cells=["1", "", "2.5"], ends=["\n", "\r\n", "\n"])
@example(cells=["1", "", "2.5"], ends=["\r", "\r\n", "\n"])
@given(
    cells=st.lists(st.sampled_from(["1", "", " ", "\t", "\u00a0", "2.5"]), min_size=2, max_size=6),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=6, max_size=6),
)
def test_no_line_of_one_column_is_lost(cells, ends):
    body = "".join(cell + end for cell, end in zip(cells, ends, strict=False))
    lines = list(csv.reader(io.StringIO(body, newline=""), strict=True))

    X = calls.decode(Call(body.encode(), CSV), ONE, JSON).X

    expected = [float(line[0]) if line and line[0].strip() else math.nan for line in lines]
    assert np.array_equal(X.ravel(), expected, equal_nan=True)


DIGITS = ("1", "-0", "-0.0", "0.1", "1e-7", "5E+3", "4.9e-324", "1e400", "18446744073709551616")
ODD = (
    *("null", "true", "NaN", "-Infinity", '"1"', '"1_0"', '""', "[2]", "[]", "{}"),
    *("01", "+1", ".5", "1.", "", "1 2", "1],[2", "1]],[[2", "],[", "],", "],,[", "][", "],\v["),
)


@st.composite
def matrices(draw) -> str:
    """Write rows as JSON, mostly well."""
    width = draw(st.integers(1, 3))
    odd = draw(st.sampled_from([(), (), (), ("null", "true"), ODD]))
    cells = st.sampled_from([*DIGITS, *odd]) | FLOATS.map(repr)
    rows = [draw(st.lists(cells, min_size=width, max_size=width))]
    # With one more cell between them, two rows are as long as one.
    sizes = st.sampled_from(draw(st.sampled_from([[width], [width], [width, 2 * width + 1]])))
    for size in draw(st.lists(sizes, min_size=1, max_size=8)):
        rows.append(draw(st.lists(cells, min_size=size, max_size=size)))
    comma = draw(st.sampled_from([",", ", ", "\n ,"]))
    gaps = st.sampled_from(draw(st.sampled_from([["],["], ["], ["], ["]\n,\t["], ["],[", "], ["]])))
    text = "".join(comma.join(row) + draw(gaps) for row in rows[:-1]) + comma.join(rows[-1])
    start, end = st.sampled_from(["[["] * 4 + ["\n[[", "[ ["]), ["]]"] * 8 + ["]]\n", "]]]", "],]"]
    text = draw(start) + text + draw(st.sampled_from(end))
    if draw(st.integers(0, 3)):
        return text
    at, damage = draw(st.integers(0, len(text))), st.text('[],"{}0.-+enul \n\v:', max_size=3)
    return text[:at] + draw(damage) + text[at + draw(st.integers(0, 2)) :]


@example("[[1,2,3],[4,5,6],[]]")
@example("[[1,2,3],[4,5,6,7,8,9,1]]")
@example("[[1,2,3],[4,5,6,null,7,8,9]]")
@example('[[1,2,3],[4,5,6,"",7,8,9]]')
@example('[[1,2,3],[4,5,"1_0"]]')
@example("[[1,2,3],[4,5,{}]]")
@example("[[1,[2],[3],4,5,6]]")
@example("[12,2,3],[4,5,6]]")
@example("[[1,2,3],[4,5,66]")
@example("[[-0,-0.0,1],[1e-400,9007199254740993,0]]")
@example("[[1,2,3],[4,5,6]]\v")
@given(matrices())
@settings(max_examples=300, deadline=None)
def test_the_fast_reading_of_json_equals_the_careful_one(body):
    def outcome(schema: Schema, block: int) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("skserve.formats.json_tables.BLOCK", block)
            try:
                X = calls.decode(Call(body.encode(), JSON), schema, JSON).X
            except ServeError as error:
                return error.message, error.hint
            return X.shape, X.dtype, X.tobytes(), X.flags.writeable, X.flags.c_contiguous

    for schema in (ONE, NUMBERS, Schema(columns=())):
        careful = outcome(schema, 1 << 40)
        assert [outcome(schema, block) for block in (1, 20)] == [careful] * 2


def test_rows_are_counted_over_all_blocks(monkeypatch):
    monkeypatch.setattr("skserve.formats.csv_tables.BLOCK", 6)
    body = "c,b,a\n" + '"1",2,\n' * 7

    assert calls.decode(Call(body.encode(), CSV), NAMED, JSON).X.shape == (7, 3)
    for last, message in [
        ("1,x,3\n", "Row 8, column 'b': expected a number, got 'x'."),
        ("1,2\n", "Row 8 has 2 values, expected 3"),
        ("\n", "Row 8 is a blank line."),
        ('"1', "The body is not CSV"),
    ]:
        with pytest.raises(ServeError) as raised:
            calls.decode(Call((body + last).encode(), CSV), NAMED, JSON)
        assert raised.value.message.startswith(message)
        assert "header" not in raised.value.hint


@pytest.mark.parametrize(
    ("header", "last"), [("a,b\n", ""), ("a,b\n", "1,\n"), ("", "1,x\n"), ('"a\n\n",b\n', "")]
)
def test_a_long_csv_is_read_in_little_memory(header, last, monkeypatch):
    kind = CSV + (";header=present" if header else "")
    monkeypatch.setattr("skserve.formats.csv_tables.BLOCK", 20_000)
    schema = Schema(n_features=2, columns=(Column(),) * 2)
    body = (header + "1,2\n" * 100_000 + last).encode()
    tracemalloc.start()
    try:
        with contextlib.suppress(ServeError):
            assert calls.decode(Call(body, kind), schema, JSON).X.shape[1] == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 20 * len(body)  # 29 to 40 times, when all cells were strings at once


# Other names of formats that are read by the same code under their first name.
ALIASES = {"application/x-ndjson", "application/x-parquet", "text/x-libsvm"}


@pytest.mark.parametrize("content_type", [name for name in DECODERS if name not in ALIASES])
@given(body=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@settings(max_examples=300, deadline=None)
def test_no_body_is_more_than_a_refusal(content_type, body):
    for schema in (NUMBERS, NAMED, Schema(text=True), Schema()):
        try:
            calls.decode(Call(body, content_type), schema, JSON)
        except ServeError as error:
            assert 400 <= error.status < 500


@given(start=st.integers(0, 140), value=st.binary(min_size=1, max_size=4))
@settings(max_examples=500)
def test_a_damaged_npy_is_read_or_refused(start, value):
    body = bytearray(written([[1.0, 2.0, 3.0]] * 2, NPY))
    body[start : start + len(value)] = value
    try:
        calls.decode(Call(bytes(body), NPY), NUMBERS, JSON)
    except ServeError as error:
        assert 400 <= error.status < 500


MODELS = [name for name in zoo.MODELS if name != "outputs"]
CELLS = {
    "mixed": lambda rng: [rng.choice(["007", "7", "010", "10"]), rng.choice([1.5, None]), None],
    "objects": lambda rng: [rng.choice(["x", "y"]), float(rng.normal())],
    "text": lambda rng: " ".join(rng.choice(["good", "bad", "wine", "\u00fc"], 3)),
    "missing": lambda rng: [rng.choice([None, 0.5]), float(rng.normal())],
}


@cache
def made(name):
    return zoo.MODELS[name]()


@pytest.mark.parametrize("name", MODELS)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_a_rows_answer_is_the_same_alone_and_among_others(name, seed, count):
    model = made(name)
    schema = Schema.of(model)
    rng = np.random.default_rng(seed)
    make = CELLS.get(name, lambda rng: rng.normal(size=schema.n_features).round(3).tolist())
    rows = [make(rng) for _ in range(count)]
    line = EstimatorHandler.of(model, None, Config())

    def answers(rows: list[Any]) -> list[Any]:
        body = json.dumps({"instances": rows}, default=lambda one: one.item()).encode()
        return list(line.predict(line.decode(Call(body, JSON), None), None).cells())

    together, alone = answers(rows), [answers([row])[0] for row in rows]

    for one, other in zip(together, alone, strict=True):
        assert all(
            a == b if isinstance(a, str) else math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
            for a, b in zip(one, other, strict=True)
        )


ANSWERS = [
    (np.array([1, 2]), "[1,2]", "1\n2\n"),
    (np.array([True, False]), "[true,false]", "True\nFalse\n"),
    (np.array(["a,b", 'c"d']), '["a,b","c\\"d"]', '"a,b"\n"c""d"\n'),
    (np.array([1.5, np.nan, np.inf, -np.inf]), "[1.5,null,null,null]", "1.5\nnan\ninf\n-inf\n"),
    (np.array([0.1], dtype=np.float32), "[0.1]", "0.10000000149011612\n"),
    (np.array([[1, 2], [3, 4]]), "[[1,2],[3,4]]", "1,2\n3,4\n"),
    (np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), "[[1.0,2.0],[3.0,4.0]]", "1.0,2.0\n3.0,4.0\n"),
    (np.array([None, "x"], dtype=object), '[null,"x"]', "nan\nx\n"),
    (pd.DataFrame({"p": [0.5], "q": ["z"]}), '[[0.5,"z"]]', "0.5,z\n"),
    (pd.Series([1, 2]), "[1,2]", "1\n2\n"),
    (scipy.sparse.csr_matrix([[0, 1.0]]), "[[0.0,1.0]]", "0.0,1.0\n"),
    (
        [np.array([[0.5, 0.5]]), np.array([[1.0, 0.0, 0.0]])],
        "[[[0.5,0.5],[1.0,0.0,0.0]]]",
        "0.5,0.5,1.0,0.0,0.0\n",
    ),
    (7, "[7]", "7\n"),
    (np.array([np.float64(1.5), "x"], dtype=object), '[1.5,"x"]', "1.5\nx\n"),
]


@pytest.mark.parametrize(("y", "as_json", "as_csv"), ANSWERS, ids=str)
def test_every_shape_of_answer_is_written(y, as_json, as_csv):
    answer = Answer.of(y)

    assert ENCODERS[JSON](answer, False).decode() == as_json
    assert ENCODERS[JSON](answer, True).decode() == '{"predictions":' + as_json + "}"
    assert ENCODERS[CSV](answer, False).decode() == as_csv


def test_neighbours_are_named():
    pair = (np.array([[0.0, 0.5]]), np.array([[3, 1]]))
    answer = Answer.of(pair, "kneighbors")

    assert json.loads(ENCODERS[JSON](answer, False)) == [
        {"distances": [0.0, 0.5], "indices": [3, 1]}
    ]
    assert ENCODERS[CSV](answer, False) == b"0.0,0.5,3,1\n"
    assert np.load(io.BytesIO(ENCODERS[NPY](answer, False))).shape == (1, 2, 2)


def test_labels_are_written_as_strings_never_as_a_pickle():
    body = ENCODERS[NPY](Answer.of(np.array(["a", "bb"], dtype=object)), False)

    assert np.load(io.BytesIO(body), allow_pickle=False).tolist() == ["a", "bb"]


def test_a_sparse_answer_too_large_to_write_out_is_refused():
    with pytest.raises(TooLarge, match="sparse table of 40000 x 100000"):
        Answer.of(scipy.sparse.csr_matrix((40_000, 100_000)))


def test_outputs_of_unequal_shape_are_not_acceptable_as_one_array():
    answer = Answer.of([np.zeros((2, 2)), np.zeros((2, 3))])

    with pytest.raises(NotAcceptable, match="differ in shape"):
        ENCODERS[NPY](answer, False)


@pytest.mark.parametrize(
    ("cell", "accept", "why"),
    [
        ({1}, JSON, "holds a set"),
        (1j, JSON_LINES, "holds a complex"),
        ({"a": 1}, CSV, "holds a dict"),
        ("\ud800", CSV, "is no text"),
    ],
)
def test_what_a_format_cannot_say_is_a_fault_of_the_model(cell, accept, why):
    cells = np.array([cell, None], dtype=object)

    with pytest.raises(ModelFault, match=why):
        ENCODERS[accept](Answer.of(cells), False)


def test_a_description_is_written_whatever_it_holds():
    values = [Decimal("1.5"), "\ud800", {1}, np.int64(2), 2**70]

    read = json.loads(dumps_anyway({"values": values, ("a", "b"): 1}))

    assert read["values"] == ["1.5", "\ud800", "{1}", "2", 2**70]


def test_an_npy_of_doubles_is_not_copied():
    body = written([[1.0, 2.0, 3.0]] * 2, NPY)

    X = calls.decode(Call(body, NPY), NUMBERS, JSON).X

    assert np.shares_memory(X, np.frombuffer(body, np.uint8))
    for other in (np.asfortranarray(np.ones((2, 3))), np.ones((2, 3), ">f8"), np.ones((2, 3), int)):
        stream = io.BytesIO()
        np.save(stream, other)
        X = calls.decode(Call(stream.getvalue(), NPY), NUMBERS, JSON).X
        assert (X.dtype, X.flags.c_contiguous, X.tolist()) == (float, True, [[1.0] * 3] * 2)


@pytest.mark.parametrize("cell", ["", '"1.5"', "5.", "+1", "nan", "-0"])
def test_a_long_csv_with_odd_cells_is_read_at_the_speed_of_c(cell):
    plain = b"1.5,0.1,2.25\n" * 40_000
    odd = plain.replace(b"2.25", cell.encode())
    took = {}
    for body in (plain, odd) * 3:
        began = time.process_time()
        calls.decode(Call(body, CSV), NUMBERS, JSON)
        took[body] = min(took.get(body, math.inf), time.process_time() - began)

    assert took[odd] < 10 * took[plain]  # 30 times and more, cell by cell


@pytest.mark.parametrize("content_type", [JSON, JSON_LINES])
def test_null_among_numbers_is_missing(content_type):
    rows = [[1.5, None, 3], [None, 2**63, -1]]
    body = "\n".join(map(json.dumps, rows)) if content_type == JSON_LINES else json.dumps(rows)

    X = calls.decode(Call(body.encode(), content_type), NUMBERS, JSON).X

    assert np.array_equal(X, np.array(rows, dtype=float), equal_nan=True)


@given(
    rows=st.lists(st.lists(st.floats(width=64), min_size=2, max_size=2), min_size=1, max_size=5),
    whole=st.booleans(),
)
def test_numbers_in_csv_read_back_equal_with_nan_and_infinity(rows, whole):
    parts = (np.array(rows), np.arange(len(rows))) if whole else (np.array(rows),)
    body = ENCODERS[CSV](Answer(parts), False).decode()

    read = [[float(cell) for cell in line] for line in csv.reader(io.StringIO(body))]
    back = [line[:2] for line in read]
    assert str(back) == str(rows)  # the sign of a zero counts, and nan is nan
    assert [line[2:] for line in read] == [[n] if whole else [] for n in range(len(rows))]


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2), (3, 0), (0,), (0, 2)])
def test_json_lines_has_one_line_for_each_row(shape):
    values = np.arange(math.prod(shape), dtype=float).reshape(shape)

    lines = ENCODERS[JSON_LINES](Answer.of(values), False).splitlines()

    assert [json.loads(line) for line in lines] == values.tolist()
