"""Answers as they are written: the head of each, and what is kept of it."""

from __future__ import annotations

import tracemalloc

import pytest

from skserve.serving.responses import ATTRIBUTES, Answer

TYPE = ("Content-Type", "application/json")


def test_equal_answers_have_equal_heads_and_each_its_own_length():
    for body in (b"[0]", b"[0]", b"[0,1]"):
        head, _, rest = Answer(200, body, [TYPE]).write(close=False).partition(b"\r\n\r\n")

        assert rest == body
        assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
        assert b"Connection: keep-alive" in head.split(b"\r\n")
    assert b"Connection: close" in Answer(200, b"[0]", [TYPE]).write(close=True)
    assert b"HTTP/1.1 400 BAD REQUEST" in Answer(400, b"[0]", [TYPE]).write(close=True)


@pytest.mark.parametrize("headers", [[("A\r\nB", "c")], [("A", "b\r\nC: d")]], ids=str)
def test_a_header_that_would_break_the_answer_is_refused(headers):
    for _ in range(2):
        with pytest.raises(ValueError, match="header"):
            Answer(200, b"", headers).write(close=False)


def test_nothing_is_kept_of_what_a_caller_sent():
    tracemalloc.start()
    try:
        for number in range(300):
            Answer(200, b"[0]", [TYPE, (ATTRIBUTES, f"{number}" * 20_000)]).write(close=False)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 1 << 20
