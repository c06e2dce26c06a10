"""A body in, portion by portion, and its answer out: for large bodies, and for batch transform.

Each portion takes its turn in a slot like a request of its own, so a large body holds neither much
memory nor, while its client is slow, a slot. The answer is kept until the whole body has been read,
because a status that has left cannot be taken back, and because most clients write all before they
read; a caller who can do both at once asks for `stream=duplex`.

In batch the lines of an answer stand beside those of the body, so there is exactly one for each.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from skserve.config import MIB, Config
from skserve.errors import BadRequest, ModelFault, NotAcceptable, TimedOut
from skserve.estimators.methods import METHODS
from skserve.formats.chunks import (
    CHUNKERS,
    FRAMES,
    RECORDS,
    Arrays,
    Read,
    joined,
    resumed,
    transcoded,
)
from skserve.formats.csv_header import Header
from skserve.formats.json_text import dumps
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NPY
from skserve.formats.spool import Spool
from skserve.inference import calls
from skserve.inference.calls import Call, Reply
from skserve.inference.estimator_handler import EstimatorHandler
from skserve.inference.script_handler import ScriptHandler
from skserve.telemetry import note, stage

Run = Callable[[Callable[[], bytes]], bytes]  # does some work in a slot

_MEND = "Mend the record, or set SKSERVE_BATCH_BAD_RECORD=placeholder to go on without it."

_LINE_END = re.compile(rb"[\r\n]")

PLACEHOLDER = "ERROR"  # in each cell of CSV, where a record was bad


class ChunkedBody:
    """The work on one body that is still to come."""

    def __init__(
        self, handler: EstimatorHandler | ScriptHandler, call: Call, context: Any, config: Config
    ) -> None:
        """`call` has no body yet. Raises ServeError for what is wrong with it so far."""
        calls.check_method(calls.attribute(call, "method"), handler.schema)
        self._handler, self._call, self._context, self._config = handler, call, context, config
        self._kind, self._accept = calls.content_type(call), handler.answer_type(call)
        # Where a record and its answer have a line each, batch transform counts on it.
        self._lined = config.batch and self._kind.name in RECORDS and self._accept in RECORDS
        self._header: Header | None = None
        self._rows = self._bad = 0  # so far

    @property
    def possible(self) -> bool:
        """Whether the formats can be cut, and the script, if any, need not see the body whole."""
        formats = self._kind.name in CHUNKERS and self._accept in (*FRAMES, NPY)
        return formats and self._handler.takes_portions(self._lined)

    def answer(self, read: Read, run: Run, timeout: float, duplex: bool) -> Reply:
        """Read the body and answer it; the work on each portion is given to `run`.

        Raises TimedOut where all of it together takes longer than `timeout` (seconds).
        """
        answers = self._answers(read, _within(timeout, run))
        if self._accept != NPY:
            parts = joined(answers, FRAMES[self._accept])
            if duplex:  # what is wrong with the first portion can still be said
                return Reply(resumed(next(parts), parts), self._accept)
        elif duplex:
            raise NotAcceptable(
                "An array begins with the number of its rows, which a stream does not know yet.",
                f"Ask for {CSV}, or not for stream=duplex.",
            )
        spool = Spool(self._config)
        try:
            if self._accept == NPY:
                arrays = Arrays(spool)
                for answer in answers:
                    arrays.add(answer)
                body, length = arrays.joined()
            else:
                for part in parts:
                    spool.write(part)
                body, length = spool.blocks(), spool.size
        except BaseException:
            spool.close()
            raise
        return Reply(b"".join(body) if length <= MIB else body, self._accept, length=length)

    def _answers(self, read: Read, run: Run) -> Iterator[bytes]:
        """Answer the portions one by one, each in the format of the whole answer."""
        portions = CHUNKERS[self._kind.name](transcoded(read, self._kind), self._config.max_whole)
        first = next(portions, b"")
        yield run(lambda: self._first(first))
        for portion in portions:
            yield run(lambda portion=portion: self._answered(portion))  # type: ignore[misc]
        note(rows=self._rows)
        if self._bad:
            note(bad_records=self._bad)

    def _first(self, portion: bytes) -> bytes:
        """Answer the first portion, which may begin with a header."""
        if self._kind.name != CSV:
            return self._answered(portion)
        self._header = Header.of(portion, self._kind, self._handler.schema, self._config.batch)
        if self._header is None:
            return self._answered(portion, first=True)
        rest = portion[len(self._header.line) :]
        if not self._lined:
            return self._answered(rest, first=True)
        if rest:
            answer = self._answered(rest, first=True)
            return self._titles(answer) + answer
        return self._titles(self._example())  # SINGLE_RECORD sends a header by itself

    def _answered(self, portion: bytes, first: bool = False) -> bytes:
        """Answer whole records; what is wrong with one is said by its place in the body."""
        before = self._rows
        try:
            return self._asked(portion, first)
        except BadRequest as error:
            if self._lined:
                records = RECORDS[self._kind.name](portion)
                return self._filled(self._each(records, before + bool(self._header) + 1, error))
            number = re.match(r"(Row|Line) (\d+)", error.message)
            place = number and f"{number[1]} {before + int(number[2])}"
            raise _placed(error, place or "") from None

    def _asked(self, records: bytes, alone: bool = False) -> bytes:
        """Answer some records as a body of their own; `alone` where they may be all there are."""
        call = replace(self._call, body=records, content_type=self._kind.name)  # it is UTF-8 by now
        if self._kind.name == CSV:
            named = self._header is not None and self._handler.schema.names
            head = self._header.line if self._header and named else b""
            kind = f"{CSV}; header={'present' if named else 'absent'}"
            call = replace(call, body=head + records, content_type=kind)
        with stage("decode"):
            request = self._handler.decode(call, self._context)
        rows = request.n_rows or 0
        alone = alone and not self._config.batch
        if self._kind.name == CSV and not alone and rows > 1 and not _LINE_END.search(records[:-2]):
            # To a model of one column a single line is a column, but not among others.
            raise BadRequest(f"Row 1 has {rows} values, expected 1.", "Send one value a line.")
        with stage("predict"):
            y = self._handler.predict(request, self._context)
        with stage("encode"):
            reply = self._handler.encode(y, request, self._context)
        answer = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
        lines = answer.count(b"\n")
        if self._lined and lines != rows:
            raise ModelFault(
                f"The answer to {rows} records has {lines} lines.",
                "Batch transform needs one for each: return a row for each record, and where their "
                f"texts hold line breaks, ask for {JSON_LINES}.",
            )
        self._rows += rows
        return answer

    # ------------------------------------------------------------------------ batch: line by line

    def _each(self, records: list[bytes], line: int, error: BadRequest) -> list[bytes | BadRequest]:
        """Answer `records`, the first of which is that `line`, after they failed together.

        Halves are tried until the bad ones are alone, so a few of them cost little.
        """
        if len(records) == 1:
            if self._config.bad_record == "fail":
                raise _placed(error, f"Line {line}", "" if line == 1 else _MEND) from None
            self._bad += 1
            self._rows += 1
            return [_placed(error, "The record")]  # its place says which
        pieces: list[bytes | BadRequest] = []
        middle = len(records) // 2
        for half, start in ((records[:middle], line), (records[middle:], line + middle)):
            try:
                pieces.append(self._asked(b"".join(half)))
            except BadRequest as error:
                pieces += self._each(half, start, error)
        return pieces

    def _filled(self, pieces: list[bytes | BadRequest]) -> bytes:
        """Put answers together, with a placeholder where there is none."""
        cells: list[str] = []
        if self._accept == CSV and any(isinstance(piece, BadRequest) for piece in pieces):
            good = next((piece for piece in pieces if isinstance(piece, bytes)), None)
            cells = [PLACEHOLDER] * _width(self._example() if good is None else good)
        return b"".join(
            piece if isinstance(piece, bytes) else self._line_of(cells or {"error": piece.message})
            for piece in pieces
        )

    def _titles(self, answer: bytes) -> bytes:
        """Name the columns of the answer in one line, which stands beside that of the header."""
        method = calls.attribute(self._call, "method") or self._handler.method or ""
        names = METHODS.get(method) or ("prediction" if method == "predict" else method,)
        each = _width(answer) // len(names) if self._accept == CSV else 1
        if each > 1:
            names = tuple(f"{name}_{at}" for name in names for at in range(each))
        return self._line_of(list(names))

    def _line_of(self, value: Any) -> bytes:
        """Write a line of ours in the format of the answer."""
        return ",".join(value).encode() + b"\n" if self._accept == CSV else dumps(value) + b"\n"

    def _example(self) -> bytes:
        """Answer a row that fits, to learn how many columns an answer has."""
        example = self._handler.schema.describe()["example"]
        call = replace(self._call, body=dumps(example["body"]), content_type=JSON)
        try:
            request = self._handler.decode(call, self._context)
            y = self._handler.predict(request, self._context)
            body = self._handler.encode(y, request, self._context).body
        except BadRequest:  # the values of an example are made up
            return b""
        return body if isinstance(body, bytes) else b"".join(body)


def _width(answer: bytes) -> int:
    """Count the cells in the first line of CSV; 1 where there is none."""
    return len(next(csv.reader(io.StringIO(answer.decode())), "1"))


def _placed(error: BadRequest, place: str, hint: str = "") -> BadRequest:
    """Say where in the whole body it was: a decoder counts only the rows that it was given."""
    message, found = re.subn(r"^(Row|Line) \d+", place, error.message)
    message = message if found or not place else f"{place}: {message}"
    return BadRequest(message, hint or error.hint)


def _within(timeout: float, run: Run) -> Run:
    """Let all the work together take `timeout` seconds; the body may take its time to arrive."""
    left = timeout

    def timed(work: Callable[[], bytes]) -> bytes:
        nonlocal left
        if left <= 0:
            raise TimedOut(
                f"The body took longer than {timeout:g} s.",
                "Send fewer rows, or raise SAGEMAKER_MODEL_SERVER_TIMEOUT.",
            )
        began = time.monotonic()
        try:
            return run(work)
        finally:
            left -= time.monotonic() - began

    return timed
