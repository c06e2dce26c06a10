"""Batch transform: exactly one line of an answer for each line of the body.

The lines of the answer stand beside those of the body, so a bad record gets a placeholder, and a
header a line with the names of the answer's columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

from skserve.errors import BadRequest
from skserve.estimators.methods import METHODS
from skserve.formats.json_text import dumps
from skserve.formats.media_types import CSV

PLACEHOLDER = "ERROR"  # in each cell of CSV, where a record was bad

_MEND = "Mend the record, or set SKSERVE_BATCH_BAD_RECORD=placeholder to go on without it."

Answers = list[bytes | BadRequest]  # in the order of the records; a BadRequest stands for one


class BatchLines:
    """Writes the lines of one answer that the model's own answers leave open.

    `ask` answers whole records and raises BadRequest for bad ones; `example` answers a row that
    fits, or with no bytes. `bad` counts the records that got a placeholder.
    """

    def __init__(
        self,
        ask: Callable[[bytes], bytes],
        example: Callable[[], bytes],
        method: str,
        accept: str,
        bad_record: str,
    ) -> None:
        self._ask, self._example = ask, example
        self._method, self._accept, self._bad_record = method, accept, bad_record
        self.bad = 0

    def recover(self, records: list[bytes], line: int, error: BadRequest) -> bytes:
        """Answer `records`, the first of which is that `line`, after they failed with `error`.

        Raises BadRequest for the first bad one where it is to fail its mini-batch.
        """
        return self._with_placeholders(self._bisect(records, line, error))

    def _bisect(self, records: list[bytes], line: int, error: BadRequest) -> Answers:
        """Answer halves until the bad records are alone, so a few of them cost little."""
        if len(records) == 1:
            if self._bad_record == "fail":
                raise placed(error, f"Line {line}", "" if line == 1 else _MEND) from None
            self.bad += 1
            return [placed(error, "The record")]  # its place says which
        answers: Answers = []
        middle = len(records) // 2
        for half, start in ((records[:middle], line), (records[middle:], line + middle)):
            try:
                answers.append(self._ask(b"".join(half)))
            except BadRequest as error:
                answers += self._bisect(half, start, error)
        return answers

    def _with_placeholders(self, answers: Answers) -> bytes:
        """Put answers together, with a placeholder where there is none."""
        cells: list[str] = []
        if self._accept == CSV and any(isinstance(one, BadRequest) for one in answers):
            good = next((one for one in answers if isinstance(one, bytes)), None)
            cells = [PLACEHOLDER] * _width(self._example() if good is None else good)
        return b"".join(
            one if isinstance(one, bytes) else self._line(cells or {"error": one.message})
            for one in answers
        )

    def titles(self, answer: bytes | None = None) -> bytes:
        """Name the columns of the answer in one line; without an answer, of the example's."""
        answer = self._example() if answer is None else answer
        method = self._method
        names = METHODS.get(method) or ("prediction" if method == "predict" else method,)
        each = _width(answer) // len(names) if self._accept == CSV else 1
        if each > 1:
            names = tuple(f"{name}_{at}" for name in names for at in range(each))
        return self._line(list(names))

    def _line(self, value: Any) -> bytes:
        """Write a line of ours in the format of the answer."""
        return ",".join(value).encode() + b"\n" if self._accept == CSV else dumps(value) + b"\n"


def _width(answer: bytes) -> int:
    """Count the cells in the first line of CSV; 1 where there is none."""
    return len(next(csv.reader(io.StringIO(answer.decode())), "1"))


def placed(error: BadRequest, place: str, hint: str = "") -> BadRequest:
    """Say where in the whole body it was: a decoder counts only the rows that it was given."""
    message, found = re.subn(r"^(Row|Line) \d+", place, error.marked)
    message = message if found or not place else f"{place}: {message}"
    return BadRequest(message, hint or error.hint)
