"""Large bodies in chunks, and batch transform: one line out for each line in."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skserve.config import Config
from skserve.errors import (
    BadRequest,
    HookError,
    ModelFault,
    NotAcceptable,
    ServeError,
    TimedOut,
    TooLarge,
)
from skserve.formats import chunks
from skserve.formats.csv_header import names_fitted
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NDJSON, NPY
from skserve.inference.calls import Call, Reply
from skserve.inference.model import Model
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.slots import Slots
from skserve.serving.invocation import Sending
from skserve.serving.routes import create_app

BATCH = Config.from_env({"SAGEMAKER_BATCH": "true"})
PATIENT = Config.from_env({"SAGEMAKER_BATCH": "true", "SKSERVE_BATCH_BAD_RECORD": "placeholder"})


@pytest.fixture(scope="module")
def loaded(models) -> Callable[..., Model]:
    made: dict[str, Model] = {}

    def load(name: str, config: Config = BATCH) -> Model:
        if name not in made:
            made[name] = Model.load(models(name), config)
        model = made[name]
        model.handler._accept = config.accept
        return replace(model, config=config)

    return load


def answer(
    model: Model, body: bytes | str, kind: str = CSV, accept: str = "", **more: Any
) -> Reply:
    """Answer a body in chunks, as the server does."""
    data = io.BytesIO(body.encode() if isinstance(body, str) else body)
    work = model.transform(Call(b"", kind, accept, more.get("attributes", "")))
    assert work is not None
    run = more.get("run", lambda work: work())
    return work.answer(data.read, run, more.get("timeout", 60), more.get("duplex", False))


def text(reply: Reply) -> str:
    """Return an answer, its floats rounded: a sum's last bits depend on the BLAS."""
    return re.sub(r"\d+\.\d+", lambda one: repr(round(float(one[0]), 6)), content(reply).decode())


def content(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)


# ------------------------------------------------------------------------------- chunks

ROWS = np.random.default_rng(0).normal(size=(100, 3)).round(3)
NAMED_CSV = "c,a,b\n" + "".join(",".join(map(str, row)) + "\n" for row in ROWS[:, [2, 0, 1]])
BODIES = {
    CSV: NAMED_CSV,
    CSV + "; header=present": NAMED_CSV,
    CSV + "; charset=utf-16": NAMED_CSV.encode("utf-16"),
    JSON_LINES: "".join(json.dumps(row) + "\n" for row in ROWS.tolist()),
    NDJSON: "\n".join(
        json.dumps(dict(zip("cab", row, strict=True))) for row in ROWS[:, [2, 0, 1]].tolist()
    ),
}


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("kind", [*BODIES, NPY, NPY + ";by=columns"])
@pytest.mark.parametrize("accept", [JSON, CSV, JSON_LINES, NPY])
@pytest.mark.parametrize("size", [500, 1 << 20])
def test_an_answer_in_chunks_is_the_answer(loaded, monkeypatch, kind, accept, size):
    monkeypatch.setattr(chunks, "CHUNK", size)
    array = np.asfortranarray(ROWS) if kind.endswith("columns") else ROWS
    body = npy(array) if kind.startswith(NPY) else BODIES[kind]
    model = loaded("named", Config())
    whole = model.invoke(Call(body if isinstance(body, bytes) else body.encode(), kind, accept))

    reply = answer(model, body, kind, accept)

    assert reply.media_type == accept
    if accept == NPY:
        found, expected = (np.load(io.BytesIO(content(one))) for one in (reply, whole))
        assert np.allclose(found, expected)
    else:
        numbers = (
            [
                float(one)
                for one in json.loads(f"[{text(reply)}]".replace("\n", ",").replace(",]", "]"))
            ]
            if accept != JSON
            else json.loads(text(reply))
        )
        assert np.allclose(numbers, ROWS @ [1.0, 10.0, 100.0])
        assert text(reply).count("\n") == content(whole).count(b"\n")


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_labels_of_any_width_make_one_array(models, monkeypatch, size, tmp_path):
    model = Model.load(models("text"), Config())
    monkeypatch.setattr(chunks, "CHUNK", size)
    lengths = iter([1, 3, 2])
    monkeypatch.setitem(
        model.handler._methods,
        "predict",
        lambda X: np.array(["x" * (next(lengths, 1))] * len(X)),
    )
    found = np.load(io.BytesIO(content(answer(model, "a\nb\nc\n", CSV, NPY))))

    assert found.tolist() == (["x"] * 3 if size > 7 else found.tolist())
    assert found.shape == (3,)


@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from('ab,"\n\r\u00fc 1'), max_size=6), min_size=2, max_size=2),
        min_size=1,
        max_size=12,
    ),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    final=st.booleans(),
    size=st.integers(1, 60),
)
@settings(deadline=None)
def test_csv_is_cut_at_its_records_alone(rows, end, final, size):
    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(rows)
    body = stream.getvalue().encode()
    body = body if final else body.removesuffix(end.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", size)
        parts = list(chunks.CHUNKERS[CSV](io.BytesIO(body).read, 1 << 20))

    assert b"".join(parts) == body
    read = [row for part in parts for row in csv.reader(io.StringIO(part.decode(), newline=""))]
    assert read == rows
    records = [one for part in parts for one in chunks.RECORDS[CSV](part)]
    assert [next(csv.reader(io.StringIO(one.decode(), newline=""))) for one in records] == rows


@pytest.mark.parametrize(
    ("kind", "body", "sentence"),
    [
        (CSV, "1,2,3\n" * 20 + "1,x,3\n", "Row 21, column 'b': expected a number, got 'x'"),
        (CSV, "c,b,a\n" + "1,2,3\n" * 20 + "1,2\n", "Row 21 has 2 values, expected 3"),
        (CSV, "1,2,3\n" * 20 + "\n", "Row 21 is a blank line"),
        (CSV, "", "no rows"),
        (JSON_LINES, "[1,2,3]\n" * 20 + "[1,\n", "Line 21 is not JSON"),
        (JSON_LINES, "[1,2,3]\n" * 20 + "\n", "Line 21 is blank"),
        (NPY, npy(ROWS[:20])[:-8], "the body holds 472"),
        (NPY, npy(ROWS[:20])[:-24], "the body holds 456"),
        (NPY, npy(ROWS[:20]) + b"x", "the body holds more"),
        (NPY, npy(ROWS[:20]) + b"x" * 24, "the body holds more"),
        (NPY, npy(ROWS[:20]).replace(b"(20, 3)", b"(-2, 3)"), "is said to be"),
        (CSV + "; header=maybe", "1,2,3\n", "header=maybe is not known"),
        (CSV + "; charset=utf-16", b"\xff\xfe1\xd8", "not utf-16 text"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_in_the_whole(
    loaded, monkeypatch, kind, body, sentence
):
    monkeypatch.setattr(chunks, "CHUNK", 48)

    with pytest.raises(BadRequest, match=sentence):
        answer(loaded("named", Config()), body, kind, CSV)


def test_a_record_without_end_is_too_large(loaded, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 1 << 10)
    config = Config(max_payload_mb=1)

    for body in ("1" * (2 << 20), '"' + "1,2\n" * (1 << 19)):
        with pytest.raises(TooLarge, match="One record has more than 1 MiB"):
            answer(loaded("named", config), body, CSV, CSV)


def test_an_array_by_columns_is_read_whole_or_refused(loaded, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 1 << 10)
    body = npy(np.asfortranarray(np.zeros((50_000, 3))))

    with pytest.raises(TooLarge, match="order of its columns"):
        answer(loaded("named", Config(max_payload_mb=1)), body, NPY, CSV)


def test_an_answer_over_the_limit_of_the_spool_is_refused(loaded, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 1 << 14)
    config = Config(spool_mb=1)

    with pytest.raises(TooLarge, match="more than 1 MiB, the limit of what is kept in /tmp"):
        answer(loaded("named", config), "1,2,3.25\n" * 200_000, CSV, CSV)


def test_a_full_disk_refuses_no_answer_that_fits_in_memory(loaded, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=0, f_frsize=4096))

    assert text(answer(loaded("named"), "1,2,3\n")) == "321.0\n"


def test_the_work_of_all_chunks_is_timed_together(loaded, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 48)

    with pytest.raises(TimedOut, match="took longer than 1e-09 s"):
        answer(loaded("named", Config()), "1,2,3\n" * 20, CSV, CSV, timeout=1e-9)


def test_a_duplex_stream_answers_while_it_reads(loaded, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 12)
    sent: list[int] = []
    data = io.BytesIO(b"1,2,3\n" * 6 + b"x,y,z\n")

    def read(size: int) -> bytes:
        sent.append(size)
        return data.read(size)

    work = loaded("named", Config()).transform(Call(b"", CSV, CSV))
    assert work is not None
    reply = work.answer(read, lambda work: work(), 60, True)
    parts = iter(reply.body)
    assert next(parts).count(b"\n") == 2
    assert len(sent) == 1
    with pytest.raises(BadRequest, match="Row 7"):
        list(parts)


def test_a_duplex_stream_says_at_once_what_is_wrong_at_once(loaded):
    model = loaded("named", Config())
    with pytest.raises(BadRequest, match="Row 1"):
        answer(model, "x,2,3\n", CSV, CSV, duplex=True)
    with pytest.raises(NotAcceptable, match="number of its rows"):
        answer(model, "1,2,3\n", CSV, NPY, duplex=True)


def test_a_script_that_looks_at_all_rows_gets_all_rows(model_with_script):
    for hook, whole, in_batch in [
        ("predict_fn(data, model): return model.predict(data)", True, False),
        ("output_fn(prediction, accept): return str(prediction)", True, True),
        ("input_fn(body, content_type): return [[1, 2, 3, 4]]", True, True),
        ("execution_parameters_fn(): return '{}'", False, False),
    ]:
        folder = model_with_script("def " + hook)
        for config, expected in ((Config(), whole), (BATCH, in_batch)):
            model = Model.load(folder, config)
            assert (model.transform(Call(b"", CSV, CSV)) is None) == expected
        shutil.rmtree(folder)


def test_what_a_script_writes_as_json_is_not_cut_open(model_with_script):
    """Only lines can be put together again: a dict has no first and last byte to spare."""
    script = "def predict_fn(data, model): return {'rows': len(data)}"
    model = Model.load(model_with_script(script), BATCH)
    call = Call(b"5.1,3.5,1.4,0.2\n" * 3, CSV, JSON)

    assert model.transform(call._replace(body=b"")) is None
    assert model.invoke(call).body == b'{"rows":3}'


# ---------------------------------------------------------------------------------- batch


def splits(lines: list[str], data: Any) -> list[list[str]]:
    """Cut lines into mini-batches, as a test's data says."""
    at = sorted(set(data.draw(st.lists(st.integers(0, len(lines)), max_size=4))) | {0, len(lines)})
    return [lines[a:b] for a, b in zip(at, at[1:], strict=False) if a < b]


CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.sampled_from(
        ["", "1", " 2 ", "nan", "x", "\u00fc", 'a"b', "1e400", "True", "a,b", "007", "7"]
    ),
    st.text(st.sampled_from('ab,"\u00fc 1;\t'), max_size=5),
)


@pytest.mark.parametrize("name", ["named", "missing", "one", "mixed", "text"])
@pytest.mark.parametrize("accept", [CSV, JSON_LINES])
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_lines_out_are_records_in_whatever_they_hold(loaded, name, accept, data):
    model = loaded(name, PATIENT)
    width = model.handler.schema.n_features or 1
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    count = data.draw(st.integers(1, 8))
    row = st.lists(CELLS, min_size=width, max_size=width + (name == "named"))
    row = row.filter(lambda cells: not names_fitted(cells, model.handler.schema.names))
    rows = [data.draw(row) for _ in range(count)]
    lines = []
    for row in rows:
        stream = io.StringIO()
        csv.writer(stream, quoting=quoting, lineterminator=end).writerow(row)
        lines.append(stream.getvalue())
    if model.handler.schema.names and data.draw(st.booleans()):
        lines.insert(0, ",".join(model.handler.schema.names) + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", data.draw(st.integers(1, 200)))
        whole = text(answer(model, "".join(lines).removesuffix(end), CSV, accept))
        parts = [text(answer(model, "".join(part), CSV, accept)) for part in splits(lines, data)]

    assert whole.count("\n") == len(lines)
    assert whole.endswith("\n")
    assert "".join(parts) == whole
    if accept == JSON_LINES:
        for line in whole.splitlines():
            json.loads(line)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_json_lines_out_are_json_lines_in_whatever_they_hold(loaded, data):
    model = loaded("named", PATIENT)
    value = st.one_of(st.floats(width=32), st.none(), st.text(max_size=3), st.just([]))
    row = st.one_of(
        st.lists(value, max_size=4).map(json.dumps),
        st.fixed_dictionaries(dict.fromkeys("cab", value)).map(json.dumps),
        st.sampled_from(["", " ", "[1,", "{}", "null", "[1,2,3]", "[4,5,6]"]),
    )
    lines = [one + "\n" for one in data.draw(st.lists(row, min_size=1, max_size=8))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", data.draw(st.integers(1, 100)))
        for accept in (CSV, JSON_LINES):
            whole = text(answer(model, "".join(lines), JSON_LINES, accept))
            assert whole.count("\n") == len(lines)
            parts = [
                text(answer(model, "".join(part), JSON_LINES, accept))
                for part in splits(lines, data)
            ]
            assert "".join(parts) == whole


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ("a,b,c\n1,2,3\n", CSV, "prediction\n321.0\n"),
        ("a,b,c\r\n1,2,3\r\n", CSV, "prediction\n321.0\n"),
        ("1,2,3\n4,5,6", CSV, "321.0\n654.0\n"),
        ("a,b,c\n1,2,3\n", CSV + "; header=present", "prediction\n321.0\n"),
        ("1,2,3\n", CSV + "; header=present", "321.0\n"),
        ("a,b,c\n", CSV, "prediction\n"),
        ("[1,2,3]\n", JSON_LINES, "321.0\n"),
    ],
)
def test_a_header_in_is_a_header_out(loaded, body, kind, expected):
    assert text(answer(loaded("named"), body, kind)) == expected


def test_the_line_for_a_header_is_in_the_format_of_the_answer(loaded):
    found = text(answer(loaded("named"), "a,b,c\n1,2,3\n", CSV, JSON_LINES))

    assert found == '["prediction"]\n321.0\n'


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        ("b,a,c\n1,2,3\n", "another order", "in this order: 'a', 'b', 'c'"),
        ("a,b,x\n1,2,3\n", "Missing: 'c'. Unexpected: 'x'", "expects 'a', 'b', 'c'"),
    ],
)
@pytest.mark.parametrize("config", [BATCH, PATIENT])
def test_a_header_that_is_not_the_models_is_refused(loaded, config, body, message, hint):
    with pytest.raises(BadRequest) as raised:
        answer(loaded("named", config), body)

    assert message in raised.value.message
    assert hint in raised.value.hint


def test_a_header_no_model_knows_is_refused_in_batch(loaded):
    with pytest.raises(BadRequest, match="fitted without names"):
        answer(loaded("iris"), "1,2,3,4\n", CSV + "; header=present")


def test_a_scripts_rows_stand_in_fitted_order_too(models, model_with_script):
    script = "def output_fn(prediction, accept): return str(prediction.tolist())"
    model = Model.load(model_with_script(script, model="named"), BATCH)

    assert text(model.invoke(Call(b"a,b,c\n1,2,3\n", CSV))) == "[321.0]"
    assert text(model.invoke(Call(b"1,2,3\n", CSV + "; header=present"))) == "[321.0]"
    with pytest.raises(BadRequest, match="another order"):
        model.invoke(Call(b"b,a,c\n1,2,3\n", CSV))


BAD = [
    ("named", CSV, "1,2,3\n1,x,3\n4,5,6\n", "Line 2, column 'b': expected a number, got 'x'"),
    ("named", CSV, "a,b,c\n1,2,3\n1,2\n", "Line 3 has 2 values, expected 3"),
    ("named", CSV, '1,2,3\n"1,2,3\n', "Line 2: The body is not CSV"),
    ("named", CSV, "1,2,3\n\n4,5,6\n", "Line 2 is a blank line"),
    ("named", CSV, "1,2,3\n,2,3\n", "Line 2, column 'a' is missing"),
    ("mixed", CSV, "7,1,x\n8,1,x\n", "Line 2, column 'code' is '8', a category that"),
    ("one", CSV, "1\n1,2\n", "Line 2 has 2 values, expected 1"),
    ("one", CSV, "1,2\n", "Line 1 has 2 values, expected 1"),
    ("named", JSON_LINES, "[1,2,3]\n[1,\n", "Line 2 is not JSON"),
    ("named", JSON_LINES, '[1,2,3]\n{"a":1,"b":2}\n', "Line 2: The columns are not those"),
]


@pytest.mark.parametrize(("name", "kind", "body", "message"), BAD)
def test_one_bad_record_fails_its_mini_batch_with_its_line(loaded, name, kind, body, message):
    with pytest.raises(BadRequest) as raised:
        answer(loaded(name), body, kind)

    assert raised.value.message.startswith(message)


@pytest.mark.parametrize(("name", "kind", "body", "message"), BAD)
def test_or_leaves_a_placeholder_in_its_place(loaded, name, kind, body, message):
    model = loaded(name, PATIENT)
    (bad,) = [at for at, line in enumerate(body.splitlines()) if f"Line {at + 1}" in message]

    rows = text(answer(model, body, kind, CSV)).splitlines()
    lines = text(answer(model, body, kind, JSON_LINES)).splitlines()

    assert [at for at, row in enumerate(rows) if row == "ERROR"] == [bad]
    reason = re.sub(r"^Line \d+", "The record", message)
    assert json.loads(lines[bad])["error"].startswith(reason)
    assert len(rows) == len(lines) == len(body.splitlines())


def test_a_placeholder_is_as_wide_as_the_answers(loaded):
    model = loaded("iris", PATIENT)
    body = "5.1,3.5,1.4,0.2\n1,2,3\n"

    found = text(answer(model, body, attributes="method=predict_proba"))
    alone = text(answer(model, "1,2,3\n", attributes="method=predict_proba"))

    assert found.splitlines()[1] == "ERROR,ERROR,ERROR"
    assert alone == "ERROR,ERROR,ERROR\n"


def test_neither_a_fault_of_the_model_nor_a_wrong_call_is_a_placeholder(loaded, monkeypatch):
    model = loaded("named", PATIENT)
    with pytest.raises(BadRequest, match="no method 'fly'"):
        answer(model, "1,2,3\n", attributes="method=fly")
    monkeypatch.setitem(model.handler._methods, "predict", lambda X: np.zeros(len(X) + 1))
    with pytest.raises(ServeError, match="returned 3 rows for 2"):
        answer(model, "1,2,3\n1,2,3\n")


@pytest.mark.parametrize(
    "returned",
    ["model.predict(data)[:1]", "['two\\nlines'] * len(data)", "(str(row) for row in data)"],
)
def test_lines_that_would_not_stand_beside_their_records_are_a_fault(model_with_script, returned):
    script = f"def predict_fn(data, model): return {returned}"
    model = Model.load(model_with_script(script), BATCH)

    with pytest.raises(ServeError, match=r"answer to 3 records has \d lines") as raised:
        answer(model, "5.1,3.5,1.4,0.2\n" * 3)
    assert raised.value.status == 500
    if "lines" in returned:
        assert len(content(answer(model, "5.1,3.5,1.4,0.2\n" * 3, CSV, JSON_LINES)).split()) == 3


# ----------------------------------------------------------------------------------- HTTP


def client(model: Model, config: Config) -> Any:
    registry = LocalModel(Slots(1, 10, timeout=10), model)
    return create_app(registry, config, Bodies(64 << 20)).test_client()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (2, "MULTI_RECORD", 25)),
        ({"SAGEMAKER_BATCH": "True"}, (2, "MULTI_RECORD", 50)),
        ({"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}, (2, "MULTI_RECORD", 0)),
        (
            {
                "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6",
                "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "8",
                "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
            },
            (8, "SINGLE_RECORD", 6),
        ),
        (
            {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": "300"},
            (100, "MULTI_RECORD", 1),
        ),
    ],
)
def test_batch_transform_is_told_how_to_call(loaded, environ, expected):
    config = Config.from_env(environ)
    config = config if config.workers else replace(config, workers=2)
    told = client(loaded("iris", config), config).get("/execution-parameters")

    assert told.content_type == JSON
    assert (
        told.json["MaxConcurrentTransforms"],
        told.json["BatchStrategy"],
        told.json["MaxPayloadInMB"],
    ) == expected


@pytest.mark.parametrize("returned", ["{'MaxPayloadInMB': 3}", "json.dumps({'MaxPayloadInMB': 3})"])
def test_a_script_may_say_itself_how_to_be_called(model_with_script, returned):
    script = f"import json\ndef execution_parameters_fn(): return {returned}"
    told = client(Model.load(model_with_script(script), BATCH), BATCH).get("/execution-parameters")

    assert told.content_type == JSON
    assert told.json == {"MaxPayloadInMB": 3}


def test_in_batch_the_answer_has_the_format_of_the_input(loaded):
    batch = client(loaded("named"), BATCH)
    for kind, body, answered in [
        (CSV, "1,2,3\n", CSV),
        (JSON_LINES, "[1,2,3]\n", JSON_LINES),
        (JSON, "[[1,2,3]]", JSON),
        (NPY, npy(ROWS), NPY),
    ]:
        for headers in ({}, {"Accept": "*/*"}):
            reply = batch.post("/invocations", data=body, content_type=kind, headers=headers)
            assert (reply.status_code, reply.content_type) == (200, answered)
    given = Config.from_env({"SAGEMAKER_BATCH": "1", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": JSON})
    reply = client(loaded("named", given), given).post(
        "/invocations", data="1,2,3\n", content_type=CSV
    )
    assert reply.content_type == JSON


def test_limits_rise_in_batch_unless_they_are_given():
    assert (BATCH.timeout, BATCH.max_payload_mb) == (3600, 100)
    given = Config.from_env(
        {
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6",
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": "5",
        }
    )
    assert (given.timeout, given.max_payload_mb) == (5, 6)


def test_a_large_body_is_answered_with_its_true_status_and_length(loaded, monkeypatch):
    monkeypatch.setattr("skserve.serving.invocation.LARGE", 1 << 16)
    monkeypatch.setattr(chunks, "CHUNK", 1 << 15)
    config = Config(max_payload_mb=0)
    server = client(loaded("named", config), config)
    body = b"1,2,3.0000000\n" * 120_000

    whole = server.post("/invocations", data=body, content_type=CSV, headers={"Accept": CSV})
    assert whole.status_code == 200
    assert whole.content_length == len(whole.data)
    assert whole.data.count(b"\n") == 120_000
    bad = server.post("/invocations", data=body + b"x,y,z\n", content_type=CSV)
    assert bad.status_code == 400
    assert "Row 120001, column 'a'" in bad.json["error"]["message"]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (BadRequest("The body ended."), "INFO"),
        (ModelFault("It failed."), "ERROR"),
        (HookError("The script's own.", 418), "ERROR"),
    ],
)
def test_a_stream_that_its_caller_breaks_leaves_no_traceback(caplog, error, level):
    def parts() -> Any:
        yield b"1\n"
        raise error

    sending = Sending(parts(), 200, SimpleNamespace(request_id="its-id"))
    with caplog.at_level("INFO"), pytest.raises(BrokenPipeError):
        list(sending)

    (said,) = caplog.records
    assert said.getMessage().startswith("request its-id: the stream broke")
    assert (said.levelname, bool(said.exc_info)) == (level, level == "ERROR")
