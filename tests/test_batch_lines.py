"""One line out for each line in, whatever the records are."""

from __future__ import annotations

import json

import pytest

from skserve.errors import BadRequest
from skserve.formats.media_types import CSV, JSON_LINES
from skserve.inference.batch_lines import BatchLines


def lines(accept=CSV, bad_record="placeholder", method="predict", example=b"1,2\n"):
    """Make lines over a model that refuses records with an x and answers 7,8 to others."""
    asked = []

    def ask(records: bytes) -> bytes:
        asked.append(records)
        if b"x" in records:
            raise BadRequest("Row 1 is bad.")
        return b"7,8\n" * records.count(b"\n")

    return BatchLines(ask, lambda: example, method, accept, bad_record), asked


@pytest.mark.parametrize(
    ("records", "answer"),
    [
        (b"1 x 2", b"7,8\nERROR,ERROR\n7,8\n"),
        (b"x 1 2 3 x", b"ERROR,ERROR\n7,8\n7,8\n7,8\nERROR,ERROR\n"),
        (b"x", b"ERROR,ERROR\n"),
        (b"x x", b"ERROR,ERROR\nERROR,ERROR\n"),
    ],
)
def test_a_bad_record_gets_a_placeholder_as_wide_as_an_answer(records, answer):
    split = [record + b"\n" for record in records.split()]
    batch, _ = lines()

    assert batch.recover(split, 1, BadRequest("Row 2 is bad.")) == answer
    assert batch.bad == records.count(b"x")


def test_in_json_lines_the_placeholder_says_what_is_wrong():
    batch, _ = lines(JSON_LINES)

    written = batch.recover([b"x\n"], 5, BadRequest("Row 1 is bad."))

    assert json.loads(written) == {"error": "The record is bad."}


def test_where_a_bad_record_fails_the_message_has_its_place_in_the_body():
    batch, _ = lines(bad_record="fail")

    with pytest.raises(BadRequest, match="^Line 12 is bad") as raised:
        batch.recover([b"1\n", b"2\n", b"x\n"], 10, BadRequest("Row 3 is bad."))
    assert "SKSERVE_BATCH_BAD_RECORD" in raised.value.hint


def test_one_bad_record_of_many_costs_few_calls():
    batch, asked = lines()
    records = [b"1\n"] * 1023 + [b"x\n"]

    batch.recover(records, 1, BadRequest("Row 1024 is bad."))

    assert len(asked) <= 20


@pytest.mark.parametrize(
    ("accept", "method", "answer", "titles"),
    [
        (CSV, "predict", b"1\n", b"prediction\n"),
        (CSV, "predict_proba", b"1,2,3\n", b"predict_proba_0,predict_proba_1,predict_proba_2\n"),
        (CSV, "predict", None, b"prediction_0,prediction_1\n"),
        (JSON_LINES, "predict", b"[1,2]\n", b'["prediction"]\n'),
    ],
)
def test_a_header_is_answered_by_the_names_of_the_columns(accept, method, answer, titles):
    batch, _ = lines(accept, method=method)

    assert batch.titles(answer) == titles
