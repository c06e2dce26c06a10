"""The table of requests: what people really send, and what they get, through a real server."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

import numpy as np
import pytest

CSV, JSON, NPY = "text/csv", "application/json", "application/x-npy"
LINES = "application/jsonlines"


def npy(values: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, **options)
    return stream.getvalue()


class Case(NamedTuple):
    """A request to a model of the zoo, the status, and the answer or words of the sentence."""

    model: str
    content_type: str | None
    body: str | bytes
    status: int
    answer: Any  # parsed JSON for JSON, text for others; for an error, words that it says
    accept: str = ""


HUGE = npy(np.zeros((2, 4))).replace(b"(2, 4)", b"(9**9,)")
PERMUTED = "c,a,b\n100,1,10\n"
V3 = b"\x93NUMPY\x03" + npy(np.zeros((1, 4)))[7:]
ROW = [5.1, 3.5, 1.4, 0.2]
NAMED = {"a": 1, "b": 1, "c": 1}


def split(columns: list[Any]) -> str:
    return json.dumps({"columns": columns, "data": [ROW]})


CASES = [
    # One row, one column, one cell, no row, ragged rows.
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 200, [0]),
    Case("iris", CSV, "5.1,3.5,1.4,0.2", 200, [0]),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\r\n6.7,3.0,5.2,2.3\r\n", 200, [0, 2]),
    Case("iris", CSV, " 5.1, 3.5 ,1.4,0.2\n", 200, [0]),
    Case("iris", CSV, '"5.1","3.5","1.4","0.2"\n', 200, [0]),
    Case("iris", CSV, "5.1\n3.5\n1.4\n0.2\n", 400, "Row 1 has 1 value, expected 4"),
    Case("iris", CSV, "5.1,3.5,1.4\n", 400, "Row 1 has 3 values, expected 4"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n5.1,3.5\n", 400, "Row 2 has 2 values, expected 4"),
    Case("iris", CSV, "", 400, "no rows"),
    Case("iris", CSV, "\n", 400, "blank"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n\n5.1,3.5,1.4,0.2\n", 400, "Row 2 is a blank line"),
    Case("iris", CSV, "5.1;3.5;1.4;0.2\n", 400, "Row 1 has semicolons between its values"),
    Case("iris", CSV, '"5.1,3.5\n', 400, "not CSV"),
    Case("iris", CSV, "5.1,3.5,1.4,x\n", 400, "Row 1, column 4: expected a number, got 'x'"),
    Case("iris", CSV, "5.1,3.5,1.4,1_0\n", 400, "got '1_0'"),
    Case("one", CSV, "1\n2\n3\n", 200, [2, 4, 6]),
    Case("one", CSV, "1,2,3\n", 200, [2, 4, 6]),
    Case("one", CSV, "5\n", 200, [10]),
    Case("one", CSV, "1\n\r\n3\n", 400, "Row 2, column 1 is missing"),
    Case("one", CSV + ";header=present", "a,b,c\n1,2,3\n", 400, "Row 1 has 3 values, expected 1"),
    Case("one", CSV + ";header=present", "a\n1\n", 200, [2]),
    Case("one", CSV, "1\n\n3\n", 400, "Row 2, column 1 is missing"),
    Case("one", JSON, "[1, 2, 3]", 200, [2, 4, 6]),
    Case("one", JSON, "[[1], [2]]", 200, [2, 4]),
    Case("one", JSON, "[5]", 200, [10]),
    Case("one", JSON, "5", 400, "expected a list or an object"),
    Case("one", LINES, "1\n2\n", 200, [2, 4]),
    Case("iris", JSON, json.dumps(ROW), 200, [0]),
    Case("iris", JSON, json.dumps([ROW, ROW]), 200, [0, 0]),
    Case("iris", JSON, "[]", 400, "no rows"),
    Case("iris", JSON, "[[]]", 400, "Row 1 has 0 values"),
    Case("iris", JSON, "[1, 2, 3]", 400, "Row 1 has 3 values, expected 4"),
    Case("iris", JSON, "[[1, 2, 3, 4], [1, 2]]", 400, "Row 2 has 2 values, expected 4"),
    Case("iris", JSON, "[[1, 2, 3, 4], 5]", 400, "Row 2 is 5, expected a list"),
    Case("iris", JSON, "[[[1, 2, 3, 4]]]", 400, "Row 1 has 1 value"),
    # Envelopes, and the answer in the same form.
    Case("iris", JSON, json.dumps({"instances": [ROW]}), 200, {"predictions": [0]}),
    Case("iris", JSON, json.dumps({"inputs": [ROW, ROW]}), 200, {"predictions": [0, 0]}),
    Case("iris", JSON, json.dumps({"data": [ROW]}), 200, {"predictions": [0]}),
    Case("iris", JSON, json.dumps({"instances": [{"features": ROW}]}), 200, {"predictions": [0]}),
    Case("iris", JSON, split([0, 1, 2, 3]), 200, {"predictions": [0]}),
    Case("iris", JSON, split([3, 2, 1, 0]), 400, "without names"),
    Case("iris", JSON, split(["w", "x", "y", "z"]), 400, "without names"),
    Case("iris", JSON, json.dumps({"rows": [ROW]}), 400, "keys 'rows'"),
    Case("iris", JSON, json.dumps({"instances": 5}), 400, "neither rows nor columns"),
    Case("iris", JSON, json.dumps([{"a": 1}]), 400, "without column names"),
    Case("named", JSON, json.dumps({"dataframe_records": [NAMED]}), 200, {"predictions": [111]}),
    Case("named", JSON, json.dumps([NAMED]), 200, [111]),
    Case("named", JSON, json.dumps(NAMED), 200, [111]),
    Case(
        "named",
        JSON,
        json.dumps({"inputs": {"b": [1], "a": [2], "c": [0]}}),
        200,
        {"predictions": [12]},
    ),
    Case(
        "named",
        JSON,
        json.dumps({"dataframe_split": {"columns": ["c", "a", "b"], "data": [[1, 2, 3]]}}),
        200,
        {"predictions": [132]},
    ),
    Case(
        "named",
        JSON,
        json.dumps({"columns": ["c", "a", "b"], "index": [0], "data": [[1, 2, 3]]}),
        200,
        {"predictions": [132]},
    ),
    Case(
        "named",
        JSON,
        json.dumps({"columns": ["a", "b", "x"], "data": [[1, 2, 3]]}),
        400,
        "Missing: 'c'. Unexpected: 'x'",
    ),
    Case(
        "named",
        JSON,
        json.dumps({"columns": ["a", "b", "b"], "data": [[1, 2, 3]]}),
        400,
        "more than once",
    ),
    Case(
        "named",
        JSON,
        json.dumps({"columns": ["a", "b", "c"], "data": [[1, 2]]}),
        400,
        "Row 1 has 2 values",
    ),
    Case("named", JSON, json.dumps([NAMED, {"a": 1}]), 400, "Row 2 has 'a'"),
    Case("named", JSON, json.dumps([{"a": 1, "b": 2}]), 400, "Missing: 'c'"),
    # Headers: present, absent, permuted, wrong, announced.
    Case("named", CSV, "a,b,c\n1,2,3\n", 200, [321]),
    Case("named", CSV, "1,2,3\n", 200, [321]),
    Case("named", CSV, PERMUTED, 200, [10101]),
    Case("named", CSV, '"a","b","c"\n1,2,3\n', 200, [321]),
    Case("named", CSV, "a,b,x\n1,2,3\n", 400, "Missing: 'c'. Unexpected: 'x'"),
    Case("named", CSV, "x,y,z\n1,2,3\n", 400, "Row 1, column 'a': expected a number, got 'x'"),
    Case("named", CSV, "a,b,c\n", 400, "no rows"),
    Case("named", CSV + "; header=present", "a,b,c\n1,2,3\n", 200, [321]),
    Case("named", CSV + "; header=absent", "a,b,c\n1,2,3\n", 400, "expected a number, got 'a'"),
    Case("named", CSV + "; header=maybe", "1,2,3\n", 400, "header=maybe"),
    Case("iris", CSV + ";header=present", "w,x,y,z\n5.1,3.5,1.4,0.2\n", 200, [0]),
    Case("iris", CSV, "w,x,y,z\n5.1,3.5,1.4,0.2\n", 400, "If this line is a header"),
    Case("iris", CSV + ";header=present", '"w\n",x,"y",z\r\n5.1,3.5,1.4,0.2\r\n', 200, [0]),
    Case("named", CSV, "c,a,b\n1,2\n", 400, "Row 1 has 2 values, expected 3"),
    Case("named", CSV, "c,a,b\n1,2,3,4\n", 400, "Row 1 has 4 values, expected 3"),
    Case("mixed", CSV, "007,1,5\n", 200, [7]),
    # Missing values and infinity.
    Case("missing", CSV, ",1\n", 200, None),
    Case("missing", CSV, "nan,1\n", 200, None),
    Case("missing", CSV, "NaN,1\n2.5,0.5\n", 200, None),
    Case("missing", JSON, "[[null, 1]]", 200, None),
    Case("missing", JSON, "[[NaN, 1]]", 200, None),
    Case("missing", CSV, "NA,1\n", 400, "expected a number, got 'NA'"),
    Case("missing", JSON, '[["", 1]]', 400, "expected a number, got ''"),
    Case("missing", JSON, "[[Infinity, 1]]", 200, None),
    Case("iris", CSV, "5.1,,1.4,0.2\n", 400, "Row 1, column 2 is missing"),
    Case("iris", JSON, "[[5.1, null, 1.4, 0.2]]", 400, "Row 1, column 2 is missing"),
    Case("iris", JSON, "[[5.1, 1e400, 1.4, 0.2]]", 400, ""),
    Case("iris", CSV, "5.1,inf,1.4,0.2\n", 400, "Row 1, column 2 is infinite"),
    Case("iris", NPY, npy(np.full((1, 4), np.nan)), 400, "Row 1, column 1 is missing"),
    # Numbers as they come.
    Case("iris", JSON, '[["5.1", "3.5", "1.4", "0.2"]]', 200, [0]),
    Case("iris", JSON, "[[true, 3, 1, 0]]", 200, [0]),
    Case(
        "iris", JSON, '[["five", 3, 1, 0]]', 400, "Row 1, column 1: expected a number, got 'five'"
    ),
    Case("iris", JSON, "[[{}, 3, 1, 0]]", 400, "got an object"),
    Case("one", JSON, "[123456789]", 200, [246913578]),
    Case("one", CSV, "0.1\n", 200, [0.2]),
    Case("one", JSON, "[" + "9" * 400 + "]", 400, ""),
    # Text columns: leading zeros stay, types come from the model.
    Case("mixed", CSV, "007,1,any\n7,1,any\n", 200, [7, 70]),
    Case("mixed", JSON, '[["010", 1, null], ["10", 1, 5]]', 200, [10, 100]),
    Case("mixed", JSON, '[{"note": 1, "size": null, "code": "7"}]', 200, None),
    Case("mixed", CSV, "code,size,note\n7,,x\n", 200, None),
    Case("mixed", JSON, "[[7, 1, null]]", 400, "column 'code': expected a text, got 7"),
    Case("mixed", JSON, '[["7", "big", null]]', 400, "column 'size': expected a number, got 'big'"),
    Case("mixed", CSV, "8,1,x\n", 400, "column 'code' is '8', a category that the model never met"),
    Case("objects", JSON, '[["x", 1], ["y", 2]]', 200, [1, 12]),
    Case("objects", CSV, "y,2\n", 200, [12]),
    Case("objects", JSON, '["x", 1]', 200, [1]),
    # A text pipeline.
    Case("text", JSON, '["good wine", "bad"]', 200, ["g", "b"]),
    Case("text", JSON, '[["good wine"], ["bad"]]', 200, ["g", "b"]),
    Case("text", JSON, '{"instances": ["bad"]}', 200, {"predictions": ["b"]}),
    Case("text", JSON, '{"instances": [{"text": "bad"}]}', 200, {"predictions": ["b"]}),
    Case("text", CSV, 'good wine\n"bad, corked"\n', 200, ["g", "b"]),
    Case("text", CSV, "bad, corked\n", 400, "Row 1 has 2 values, expected one text"),
    Case("text", CSV, "good\n\nbad\n", 400, "Row 2 is missing"),
    Case("text", LINES, '"good"\n"bad"\n', 200, ["g", "b"]),
    Case("text", JSON, "[1, 2]", 400, "Row 1 is 1, expected a text"),
    Case("text", JSON, '"bad"', 200, ["b"]),
    Case("iris", JSON, '"bad"', 400, "expected a list or an object"),
    Case("text", JSON, '["\\ud800"]', 400, "half of a surrogate pair"),
    Case("text", LINES, '"good"\n"\\udc00"\n', 400, "Line 2 holds half of a surrogate pair"),
    Case("text", JSON, '["\\ud83d\\ude00", NaN]', 400, "Row 2 is nan"),
    Case("text", CSV, "gut \u00fcber alles\n", 200, None),
    Case("text", CSV + "; charset=latin-1", "gut \u00fcber\n".encode("latin-1"), 200, None),
    Case("text", NPY, npy(np.array(["good", "bad"])), 200, ["g", "b"]),
    # Media types as they are written.
    Case("iris", None, json.dumps(ROW), 200, [0]),
    Case("iris", "application/json; charset=utf-8", json.dumps(ROW), 200, [0]),
    Case("iris", "Text/CSV; Charset=UTF-8", "5.1,3.5,1.4,0.2", 200, [0]),
    Case("iris", 'text/csv; charset="utf-8"; header=absent', "5.1,3.5,1.4,0.2", 200, [0]),
    Case("iris", "text/csv; charset=klingon", "5.1,3.5,1.4,0.2", 415, "charset 'klingon'"),
    Case("iris", "text/csv; charset=rot13", "5.1,3.5,1.4,0.2", 415, "charset 'rot13'"),
    Case("iris", "text/csv; charset=punycode", "5.1", 415, "charset 'punycode'"),
    Case("iris", "application/xml", "<x/>", 415, "application/xml"),
    Case("iris", "application/x-www-form-urlencoded", "[1]", 415, "form-urlencoded"),
    Case("iris", "csv", "1", 415, "not a media type"),
    Case("iris", CSV, b"\xef\xbb\xbf5.1,3.5,1.4,0.2\n", 200, [0]),
    Case("iris", CSV, b"5.1,3.5,1.4,\xff\n", 400, "not utf-8 text at byte 12"),
    Case("iris", JSON, b'["\xff"]', 400, "not utf-8 text"),
    Case("iris", JSON, "[[5.1, 3.5", 400, "not JSON"),
    Case("iris", JSON, "", 400, "not JSON"),
    Case("iris", JSON, "[" * 100_000, 400, "not JSON"),
    Case("iris", LINES, "[5.1, 3.5, 1.4, 0.2]\n[6.7, 3.0, 5.2, 2.3]\n", 200, [0, 2]),
    Case("iris", "application/x-ndjson", "[5.1, 3.5, 1.4, 0.2]", 200, [0]),
    Case("iris", LINES, "[5.1, 3.5, 1.4, 0.2]\n[6.7, ", 400, "Line 2 is not JSON"),
    Case("iris", LINES, "[5.1, 3.5, 1.4, 0.2]\n\n[1, 2, 3, 4]\n", 400, "Line 2 is blank"),
    Case("named", LINES, '{"a": 1, "b": 1, "c": 1}\n{"c": 1, "b": 2, "a": 3}\n', 200, [111, 123]),
    # Arrays, honest and hostile.
    Case("iris", NPY, npy(np.array([ROW])), 200, [0]),
    Case("iris", NPY, npy(np.array(ROW)), 200, [0]),
    Case("iris", NPY, npy(np.array([ROW] * 2, dtype=">f4")), 200, [0, 0]),
    Case("iris", NPY, npy(np.asfortranarray([ROW, [6.7, 3.0, 5.2, 2.3]])), 200, [0, 2]),
    Case("iris", NPY, npy(np.array([[{}]]), allow_pickle=True), 400, "object values"),
    Case("iris", NPY, npy(np.zeros((1, 1, 4))), 400, "one or two dimensions"),
    Case("iris", NPY, npy(np.float64(1)), 400, "one or two dimensions"),
    Case("iris", NPY, npy(np.zeros((2, 4)))[:-8], 400, "the body holds 56"),
    Case("iris", NPY, npy(np.zeros((0, 4))), 400, "no rows"),
    Case("iris", NPY, npy(np.zeros((2, 4), dtype=complex)), 400, "complex128"),
    Case("iris", NPY, HUGE, 400, ""),
    Case("iris", NPY, b"PK\x03\x04 not an array", 400, "not a .npy file"),
    Case("iris", NPY, V3, 400, "npy version 3.0 is not read; save with numpy's default"),
    Case("text", NPY, npy(np.array(["good"]))[:-1] + b"\xff", 400, "not Unicode text"),
    Case("text", NPY, npy(np.array(["a"], "<U1"))[:-4] + b"\0\xd8\0\0", 400, "not Unicode text"),
    Case("text", NPY, npy(np.array(["", ""], "<U1")).replace(b"<U1", b"<U0")[:-8], 400, "without"),
    Case("iris", NPY, npy(np.zeros((9, 0))), 400, "rows without values"),
    # Methods, by body and by attribute (see test_routes for the attribute).
    Case(
        "iris", JSON, json.dumps({"instances": [ROW], "method": "apply"}), 400, "no method 'apply'"
    ),
    Case("iris", JSON, json.dumps({"instances": [ROW], "method": "fit"}), 400, "no method 'fit'"),
    Case("iris", JSON, json.dumps({"instances": [ROW], "method": 1}), 400, "method must be"),
    # Accept.
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 200, "0\n", "text/csv"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 200, "0\n", "text/*"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 200, [0], "*/*"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 200, [0], "application/*"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 200, "0\n", "application/json;q=0.5, text/csv"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 200, [0], "application/json, text/csv"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 200, [0], "image/png, application/json;q=0.1"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 406, "image/png", "image/png"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 406, "", "application/json;q=0"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 400, "Accept", "application/json;q=high"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 400, "Accept", "application/json;q=nan"),
    Case("iris", CSV, "5.1,3.5,1.4,0.2\n", 200, "0\n", "application/json;q=0, text/*;q=0.1, */*"),
    Case("iris", JSON, json.dumps([ROW, ROW]), 200, "0\n0\n", "application/jsonlines"),
    Case("text", JSON, '["bad"]', 200, '"b"\n', "application/jsonlines"),
]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.model}-{case.body[:30]!r}-{case.accept}"
)
def test_a_request_gets_its_documented_answer(servers, case):
    headers = {"Accept": case.accept} if case.accept else {"Accept": None}
    answer = servers(case.model).post(case.body, case.content_type, **headers)

    assert answer.status_code == case.status, answer.text
    if case.status != 200:
        error = answer.json()["error"]
        assert set(error) == {"code", "message", "hint", "request_id"}
        assert case.answer in error["message"] + " " + error["hint"]
    elif isinstance(case.answer, str):
        assert answer.text == case.answer
    elif case.answer is not None:
        assert rounded(answer.json()) == case.answer


def rounded(value: Any) -> Any:
    """Round the floats of an answer, for a sum's last bits depend on the BLAS."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value
