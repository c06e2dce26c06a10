"""What a check says: a word, a sentence, and the way out."""

from __future__ import annotations

from typing import NamedTuple

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
WORDS = (PASS, WARN, FAIL)  # from good to bad


class Verdict(NamedTuple):
    """`word` is one of `WORDS`; `way_out` is empty where nothing is to be done."""

    word: str
    sentence: str
    way_out: str = ""


def passed(sentence: str) -> Verdict:
    return Verdict(PASS, sentence)


def warned(sentence: str, way_out: str) -> Verdict:
    return Verdict(WARN, sentence, way_out)


def failed(sentence: str, way_out: str) -> Verdict:
    return Verdict(FAIL, sentence, way_out)
