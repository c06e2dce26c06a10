"""The binary and sparse formats: against the libraries that define them, and against liars."""

from __future__ import annotations

import io
import json
import re
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file

from skserve.errors import BadRequest, NotAcceptable, ServeError, TooLarge
from skserve.estimators.columns import NUMBER, TEXT
from skserve.estimators.frame import plain
from skserve.estimators.schema import Schema
from skserve.formats import recordio
from skserve.formats.answer import Answer
from skserve.formats.catalogue import ENCODERS
from skserve.formats.conform import conform
from skserve.formats.media_types import JSON, LIBSVM, NPY, NPZ, RECORDIO
from skserve.formats.table import Table
from skserve.inference import calls
from skserve.inference.calls import Call

WIDTH = 4
NUMBERS = Schema(n_features=WIDTH, columns=(NUMBER,) * WIDTH)
DENSE = np.random.default_rng(0).normal(size=(5, WIDTH))
SPARSE = np.where(DENSE > 0, DENSE, 0)
SPARSE[2] = 0


def decoded(body: bytes, kind: str, schema: Schema = NUMBERS):
    return plain(calls.decode(Call(body, kind), schema, JSON).X)


def npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def npy_claiming(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def sparse_npz(matrix: object) -> bytes:
    stream = io.BytesIO()
    scipy.sparse.save_npz(stream, matrix)
    return stream.getvalue()


def svmlight(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    dump_svmlight_file(values, np.arange(len(values)), stream, **options)
    return stream.getvalue()


# A writer of SageMaker's records of its own, straight from the published definition.


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    return (varint_more(value) if value > 127 else b"") or bytes([value])


def varint_more(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7)


def chunk(field: int, contents: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(contents)) + contents


def record(values, keys=(), shape=(), kind="float64", name=b"values", label=1.0) -> bytes:
    """Write one message; `kind` is the tensor's."""
    field, packed = {
        "float32": (2, lambda: struct.pack(f"<{len(values)}f", *values)),
        "float64": (3, lambda: struct.pack(f"<{len(values)}d", *values)),
        "int32": (7, lambda: b"".join(map(varint, values))),
    }[kind]
    tensor = chunk(1, packed()) if len(values) else b""
    for number, numbers in ((2, keys), (3, shape)):
        tensor += chunk(number, b"".join(map(varint, numbers))) if len(numbers) else b""
    scalar = chunk(2, chunk(2, chunk(1, struct.pack("<f", label))))
    entry = chunk(1, name) + chunk(2, chunk(field, tensor))
    return chunk(1, entry) + chunk(2, chunk(1, b"values") + scalar) + chunk(3, b"some uid")


def framed(*records: bytes) -> bytes:
    return b"".join(
        struct.pack("<II", 0xCED7230A, len(one)) + one + b"\0" * (-len(one) % 4) for one in records
    )


def sparse_record(row: np.ndarray, kind: str = "float64") -> bytes:
    keys = np.flatnonzero(row).tolist()
    return record(row[keys].tolist(), keys, (len(row),), kind)


WRITTEN = {
    "npz": (npz(X=DENSE), NPZ, DENSE),
    "npz plain": (npz(arr_0=DENSE.astype(np.float32)), NPZ, DENSE.astype(np.float32)),
    "npz csr": (sparse_npz(scipy.sparse.csr_matrix(SPARSE)), NPZ, SPARSE),
    "npz csc": (sparse_npz(scipy.sparse.csc_matrix(SPARSE)), NPZ, SPARSE),
    "npz coo": (sparse_npz(scipy.sparse.coo_array(SPARSE)), NPZ, SPARSE),
    "libsvm": (svmlight(SPARSE), LIBSVM, SPARSE),
    "libsvm, x": (svmlight(SPARSE), "text/x-libsvm", SPARSE),
    "libsvm from 1": (svmlight(SPARSE, zero_based=False), LIBSVM + "; base=1", SPARSE),
    "libsvm, words": (svmlight(SPARSE, comment="a\nb", query_id=[1] * 5), LIBSVM, SPARSE),
    "records": (framed(*(record(row.tolist()) for row in DENSE)), RECORDIO, DENSE),
    "records, shape": (framed(*(record(row, shape=[4]) for row in DENSE)), RECORDIO, DENSE),
    "records, one": (framed(record(DENSE[0], name=b"x")), RECORDIO, DENSE[:1]),
    "records, int": (framed(record([1, -2, 3, 2**31 - 1], kind="int32")), RECORDIO, None),
    "records, float": (
        framed(*(record(row, kind="float32") for row in DENSE)),
        RECORDIO,
        DENSE.astype(np.float32),
    ),
    "records, sparse": (framed(*map(sparse_record, SPARSE)), RECORDIO, SPARSE),
    "records, both": (framed(*map(sparse_record, SPARSE[:2]), record(DENSE[3])), RECORDIO, None),
}
EXACT = {"libsvm": False, "libsvm, x": False, "libsvm from 1": False, "libsvm, words": False}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_others_write_is_read(name):
    body, kind, expected = WRITTEN[name]
    if name == "records, int":
        expected = np.array([[1.0, -2.0, 3.0, 2**31 - 1]])
    elif name == "records, both":
        expected = np.vstack([SPARSE[:2], DENSE[3]])

    X = decoded(body, kind)

    assert X.dtype == np.float64
    assert X.shape == expected.shape
    values = X.toarray() if scipy.sparse.issparse(X) else X
    assert np.array_equal(values, expected.astype(float)) or np.allclose(values, expected, 1e-15)


def test_records_read_at_once_are_those_read_one_by_one(monkeypatch):
    """Labels may differ; what differs anywhere else is read bit by bit."""
    plain = [record(row.tolist(), label=float(at)) for at, row in enumerate(DENSE)]
    longer = [*plain[:2], record(DENSE[2].tolist(), shape=[4]), *plain[3:]]
    narrow = [*plain[:2], record(DENSE[2].tolist(), name=b"valued"), *plain[3:]]
    for records, at_once in ((plain, True), (longer, False), (narrow, False), (plain[:1], True)):
        body = framed(*records)
        found = recordio._alike(body)

        assert (found is not None) == at_once
        expected = DENSE[: len(records)]
        assert np.array_equal(decoded(body, RECORDIO), expected)
        assert not at_once or np.array_equal(found, expected)
    assert recordio._alike(framed(*plain)[:-1]) is None


def test_a_record_of_a_million_fields_is_refused_at_once():
    body = framed(record(DENSE[0].tolist()) + b"\x1a\x00" * 1_000_000)

    began = time.process_time()
    with pytest.raises(BadRequest, match="Record 1 is not read here: it is made of too many"):
        decoded(body, RECORDIO)
    assert time.process_time() - began < 2


def test_a_hundred_thousand_records_take_no_second():
    body = framed(*(record([float(at)] * 4, label=float(at)) for at in range(1000))) * 100

    began = time.process_time()
    X = decoded(body, RECORDIO)
    assert time.process_time() - began < 0.5
    assert X.shape == (100_000, 4)
    assert X[999].tolist() == [999.0] * 4


@pytest.mark.parametrize("name", [name for name, (_, _, X) in WRITTEN.items() if X is SPARSE])
def test_sparse_stays_sparse_all_the_way(name):
    body, kind, _ = WRITTEN[name]

    X = decoded(body, kind)

    assert scipy.sparse.isspmatrix_csr(X)
    assert X.nnz == np.count_nonzero(SPARSE)
    assert X.has_canonical_format
    assert X.indices.dtype == np.int32  # what scikit-learn's compiled parts take


def test_places_out_of_order_and_twice_add_up():
    body = b"1 3:1 0:2 3:4\n"

    assert decoded(body, LIBSVM).toarray().tolist() == [[2, 0, 0, 5]]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"1 0:1 4:2\n", "Row 1 has the index 4; the model has 4 columns"),
        (b"1 0:1\n1 1000000000000:2\n", "Row 2 has the index 1000000000000; the model"),
        (b"1 0:1\n\n", "Row 2 is a blank line"),
        (b"1 0:1\n1 0=1\n", "Row 2: expected index:value, got '0=1'"),
        (b"1 0:1 0:1:2", "got '0:1:2'"),
        (b"1 0:1_0", "got '0:1_0'"),
        (b"1 99999999999999999999:1", "got '99999999999999999999:1'"),
        (b"1 -1:1", "Row 1 has the index -1"),
        (b"1 0:x", "got '0:x'"),
        (b"", "no rows"),
        (b"# nothing\n", "no rows"),
        (b"\xff 0:1", "not utf-8"),
    ],
)
def test_libsvm_that_is_none_is_named(body, sentence):
    with pytest.raises(BadRequest, match=sentence):
        decoded(body, LIBSVM)


def arrays_of(matrix: scipy.sparse.csr_matrix, **other: object) -> bytes:
    arrays = {
        "format": np.array(b"csr"),
        "shape": np.array(matrix.shape),
        "data": matrix.data,
        "indices": matrix.indices,
        "indptr": matrix.indptr,
    }
    return npz(**{name: np.array(value) for name, value in {**arrays, **other}.items()})


CSR = scipy.sparse.csr_matrix(SPARSE)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"indices": [-1] * CSR.nnz}, "column number -1 of 4"),
        ({"indices": [4] * CSR.nnz}, "column number 4 of 4"),
        ({"indices": [2**40] * CSR.nnz}, "column number"),
        ({"indices": CSR.indices[1:]}, "values for"),
        ({"indices": CSR.indices.astype(float)}, "whole numbers"),
        ({"indptr": CSR.indptr[::-1]}, "not in order"),
        ({"indptr": CSR.indptr + 1}, "not in order"),
        ({"indptr": CSR.indptr[:-1]}, "says 5 rows"),
        ({"indptr": []}, "says 5 rows"),
        ({"shape": [10**12, 4]}, "says 1000000000000 rows"),
        ({"shape": [5, 10**12]}, "cannot have 1000000000000 columns"),
        ({"shape": [5, -4]}, "not two numbers"),
        ({"shape": [5]}, "not two numbers"),
        ({"shape": [5, 7]}, "7 values, expected 4"),
        ({"format": b"bsr"}, "in the form 'bsr'"),
        ({"format": b"csc"}, "says 4 columns"),
        ({"format": b"coo"}, "has no 'col', 'row'"),
        ({"format": b"coo", "row": [10**12] * 9, "col": [0] * 9}, "differ in number"),
        ({"format": [b"csr"]}, "in the form ''"),
        ({"data": CSR.data.astype(str)}, "numbers"),
        ({"data": CSR.data.reshape(-1, 1)}, "lists"),
    ],
)
def test_a_sparse_table_that_lies_is_refused(other, sentence):
    with pytest.raises(BadRequest, match=sentence):
        decoded(arrays_of(CSR, **other), NPZ)


def test_rows_that_only_a_shape_claims_are_refused():
    matrix = scipy.sparse.coo_matrix(([1.0], ([0], [0])), (2**40, 4))
    with pytest.raises(TooLarge, match="claims 1,099,511,627,776 rows"):
        decoded(sparse_npz(matrix), NPZ)
    lying = npz(
        format=np.array(b"csc"),
        shape=np.array([5, 4]),
        data=np.ones(1),
        indices=np.zeros(1, int),
        indptr=np.array([0, 2**60, 2**60, 2**60, 2**60]),
    )
    with pytest.raises(BadRequest, match="not in order"):
        decoded(lying, NPZ)


def test_a_zip_bomb_is_refused_in_little_memory():
    bomb = npz(X=np.zeros((50_000_000 // 32, 4)))
    tracemalloc.start()
    with pytest.raises(TooLarge, match="unpacked"):
        decoded(bomb, NPZ)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 20_000_000


def zipped(names: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, contents in names.items():
            archive.writestr(name, contents)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "has no end"),
        (npz(X=DENSE)[:-1], "has no end"),
        (npz(X=DENSE, y=DENSE), "holds 2 arrays: 'X', 'y'"),
        (npz(), "holds 0 arrays"),
        (npz(X=np.array([{}], dtype=object)), "object values"),
        (zipped({"X.npy": npz(X=DENSE)}), "not a .npy file"),
        (zipped({f"{n}.npy": b"" for n in range(1000)}), "too many names"),
        (zipped({"X.npy": b"x" * 99}, zipfile.ZIP_LZMA), "not compressed as numpy"),
        (npz(X=DENSE).replace(b"X.npy", b"Y.npy", 1), "differ"),
    ],
)
def test_an_npz_that_is_none_is_refused(body, sentence):
    with pytest.raises(BadRequest, match=sentence):
        decoded(body, NPZ)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (framed(record(DENSE[0]))[:-3], "Record 1 is said to have"),
        (framed(record(DENSE[0])) + b"\0", "within the head of record 2"),
        (framed(record(DENSE[0])) + b"\0" * 8, "Record 2 does not begin"),
        (struct.pack("<II", 0xCED7230A, 2**29 - 1), "said to have 536,870,911 bytes; 0"),
        (struct.pack("<II", 0xCED7230A, 2**30), "one part of a larger"),
        (framed(chunk(1, b"")[:1] + b"\xff\xff\xff\xff\x0f"), "longer than the record"),
        (framed(b"\xff" * 20), "too long"),
        (framed(b"\x0b"), "not protobuf"),
        (framed(b""), "no features"),
        (framed(chunk(2, b"")), "no features"),
        (framed(chunk(1, chunk(1, b"a")), record(DENSE[0])), "not numbers"),
        (framed(chunk(1, chunk(1, b"a")) + chunk(1, chunk(1, b"b"))), "features 'a', 'b'"),
        (framed(record([1.0], [9], [4])), "column number 9 of 4"),
        (framed(record([1.0], [2**63], [4])), "beyond every table"),
        (framed(record([1.0], [1])), "no shape"),
        (framed(record([1.0], [1, 2], [4])), "2 keys for 1 values"),
        (framed(record([1.0], [0], [2**40])), "cannot have"),
        (framed(record([1.0] * 4, shape=[2, 2])), "that of one row"),
        (framed(record([1.0] * 3, shape=[4])), r"shape is \(4,\), and it has 3 values"),
        (framed(record([1.0] * 3)), "Row 1 has 3 values, expected 4"),
        (framed(record(DENSE[0]), record([1.0] * 3)), "Row 2 has 3 values, expected 4"),
        (framed(record([1.0], [0], [4]), record([1.0], [0], [5])), "different widths"),
        (b"", "no rows"),
    ],
)
def test_records_that_are_none_are_named(body, sentence):
    with pytest.raises(BadRequest, match=sentence):
        decoded(body, RECORDIO)


@given(
    values=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20),
    keys=st.sets(st.integers(0, 2**31 - 2), min_size=1, max_size=20),
)
def test_every_number_of_a_record_arrives(values, keys):
    places = sorted(keys)[: len(values)]
    schema = Schema(n_features=2**31 - 1)
    body = framed(record(values[: len(places)], places, [2**31 - 1], "int32"))

    X = decoded(body, RECORDIO, schema)

    assert X.indices.tolist() == places
    assert X.data.tolist() == values[: len(places)]


def test_sparse_rows_are_not_for_models_of_text():
    with pytest.raises(BadRequest, match="takes text"):
        decoded(svmlight(SPARSE), LIBSVM, Schema(n_features=4, columns=(TEXT,) * 4))


# ------------------------------------------------------------------------------------------- out

PARTS = [
    np.array([0.1, 2.0]),
    np.array([[0.5, 1.5], [1e-300, -0.0]]),
    np.array([3, -1]),
    np.array([0.1, 2.0], np.float32),
    np.array([[[1.0, 2.0]], [[3.0, 4.0]]]),
]


@pytest.mark.parametrize("values", PARTS, ids=str)
def test_what_leaves_as_npz_or_records_comes_back(values):
    answer = Answer.of(values)

    with np.load(io.BytesIO(ENCODERS[NPZ](answer, False)), allow_pickle=False) as read:
        assert read["values"].tolist() == values.tolist()
    width = values[0].size
    X = decoded(ENCODERS[RECORDIO](answer, False), RECORDIO, Schema(n_features=width))
    assert X.tolist() == values.astype(float).reshape(len(values), -1).tolist()


def test_named_parts_keep_their_names():
    answer = Answer.of((np.array([[0.0, 0.5]]), np.array([[3, 1]])), "kneighbors")

    with np.load(io.BytesIO(ENCODERS[NPZ](answer, False))) as read:
        assert {name: read[name].tolist() for name in read} == {
            "distances": [[0.0, 0.5]],
            "indices": [[3, 1]],
        }
    body = ENCODERS[RECORDIO](answer, False)
    assert b"distances" in body
    assert b"indices" in body


def test_text_is_not_acceptable_as_records():
    with pytest.raises(NotAcceptable, match="holds numbers"):
        ENCODERS[RECORDIO](Answer.of(np.array(["a"])), False)
    labels = ENCODERS[NPZ](Answer.of(np.array(["a", None], dtype=object)), False)
    assert np.load(io.BytesIO(labels), allow_pickle=False)["values"].tolist() == ["a", "None"]


# --------------------------------------------------------------------------------------- damage

BODIES = [(name, body, kind) for name, (body, kind, _) in WRITTEN.items()]


@pytest.mark.parametrize(("name", "body", "kind"), BODIES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_is_read_or_refused_at_once(name, body, kind, data):
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.one_of(st.just(len(body)), st.integers(0, len(body))))
    began = time.process_time()
    try:
        decoded(bytes(damaged[:cut]), kind)
    except ServeError as error:
        assert error.status in (400, 413)
        assert len(error.message) < 500
    assert time.process_time() - began < 1


# ------------------------------------------------------------------- through a server, to a model


def test_a_model_answers_sparse_rows_as_it_does_dense_ones(servers):
    rows = np.array([[5.1, 0, 1.4, 0.2], [6.7, 3.0, 5.2, 0]])
    iris = servers("iris")
    expected = iris.post(json.dumps(rows.tolist())).json()
    bodies = [
        (sparse_npz(scipy.sparse.csr_matrix(rows)), NPZ),
        (svmlight(rows), LIBSVM),
        (framed(*map(sparse_record, rows)), RECORDIO),
    ]

    for body, kind in bodies:
        answer = iris.post(body, kind)
        assert (answer.status_code, answer.json()) == (200, expected)


def test_a_model_without_sparse_rows_says_so(servers):
    answer = servers("missing").post(b"1 0:1 1:2\n", LIBSVM)

    assert answer.status_code == 400
    assert "takes no sparse rows" in answer.json()["error"]["message"]
    assert NPY.split("/")[1].removeprefix("x-") in answer.json()["error"]["hint"]


def peak(server: object) -> int:
    """Return the most memory, in bytes, that a worker of a running server ever had."""
    pid = server.process.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = "".join(Path(f"/proc/{worker}/status").read_text() for worker in workers)
    return max(int(size) for size in re.findall(r"VmHWM:\s+(\d+) kB", lines)) << 10


LIARS = {
    "npy that claims a petabyte": (
        npy_claiming((2**47, 1)),
        NPY,
    ),
    "npz bomb": (npz(X=np.zeros((4_000_000, 4))), NPZ),
    "npz in an npz": (zipped({"X.npy": zipped({"X.npy": b"0" * 999})}), NPZ),
    "coo of a trillion rows": (
        sparse_npz(scipy.sparse.coo_matrix(([1.0], ([0], [0])), (10**12, 4))),
        NPZ,
    ),
    "record past the end": (struct.pack("<II", 0xCED7230A, 2**29 - 1) + b"x" * 99, RECORDIO),
    "key of 2 ** 63": (framed(record([1.0], [2**63], [4])), RECORDIO),
    "index of a trillion": (b"1 1000000000000:1\n", LIBSVM),
    "a million queries": (b"1 qid:1\n" * 100 + b"1 0:x\n", LIBSVM),
}


def test_liars_get_a_sentence_and_no_memory(servers):
    iris = servers("iris")
    iris.post(svmlight(SPARSE), LIBSVM)  # so that scipy is there before the measure
    iris.post(sparse_npz(CSR), NPZ)
    before = peak(iris)
    for name, (body, kind) in LIARS.items():
        answer = iris.post(body, kind)
        assert answer.status_code in (400, 413), (name, answer.text)
        assert answer.elapsed.total_seconds() < 5, name  # a hundredth of that on a quiet machine
        assert answer.json()["error"]["message"].endswith("."), name

    assert iris.ping() == 200
    assert peak(iris) - before < 64 << 20


@pytest.mark.parametrize("rows", [DENSE, DENSE[:, 0], DENSE[:, :1]])
def test_numbers_are_no_texts(rows):
    stream = io.BytesIO()
    np.save(stream, rows)
    with pytest.raises(BadRequest, match="expected (a|one) text"):
        decoded(stream.getvalue(), NPY, Schema(text=True))
    with pytest.raises(BadRequest, match="expected (a|one) text"):
        conform(Table(rows), Schema(text=True))  # as recordio reads them
