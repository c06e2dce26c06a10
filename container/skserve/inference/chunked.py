"""A body in, chunk by chunk, and its answer out: for large bodies, and for batch transform.

Each chunk takes its turn in a slot like a request of its own, so a large body holds neither much
memory nor, while its client is slow, a slot. The answer is kept until the whole body has been read,
because a status that has left cannot be taken back, and because most clients write all before they
read; a caller who can do both at once asks for `stream=duplex`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from skserve.config import MIB, Config
from skserve.errors import BadRequest, ModelFault, NotAcceptable, TimedOut
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
from skserve.inference.batch_lines import BatchLines, placed
from skserve.inference.calls import Call, Reply
from skserve.inference.estimator_handler import EstimatorHandler
from skserve.inference.script_handler import ScriptHandler
from skserve.telemetry import note, note_rows, predicted, stage

Run = Callable[[Callable[[], bytes]], bytes]  # does some work in a slot

_LINE_END = re.compile(rb"[\r\n]")


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
        self._lines: BatchLines | None = None
        if config.batch and self._kind.name in RECORDS and self._accept in RECORDS:
            method = calls.attribute(call, "method") or handler.method or ""
            self._lines = BatchLines(
                self._predict, self._example, method, self._accept, config.bad_record
            )
        self._header: Header | None = None
        self._rows = 0  # answered so far

    @property
    def possible(self) -> bool:
        """Whether the formats can be cut, and the script, if any, need not see the body whole."""
        formats = self._kind.name in CHUNKERS and self._accept in (*FRAMES, NPY)
        return formats and self._handler.takes_chunks(self._lines is not None)

    def answer(self, read: Read, run: Run, timeout: float, duplex: bool) -> Reply:
        """Read the body and answer it; the work on each chunk is given to `run`.

        Raises TimedOut where all of it together takes longer than `timeout` (seconds).
        """
        answers = self._answers(read, _within(timeout, run))
        if self._accept != NPY:
            parts = joined(answers, FRAMES[self._accept])
            if duplex:  # what is wrong with the first chunk can still be said
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
        """Answer the chunks one by one, each in the format of the whole answer."""
        chunks = CHUNKERS[self._kind.name](transcoded(read, self._kind), self._config.max_whole)
        first = next(chunks, b"")
        yield run(lambda: self._answer_first(first))
        for chunk in chunks:
            yield run(lambda chunk=chunk: self._answer(chunk))  # type: ignore[misc]
        note_rows(self._seen)
        if self._lines and self._lines.bad:
            note(bad_records=self._lines.bad)

    @property
    def _seen(self) -> int:
        """The records so far, bad ones included."""
        return self._rows + (self._lines.bad if self._lines else 0)

    def _answer_first(self, chunk: bytes) -> bytes:
        """Answer the first chunk, which may begin with a header."""
        if self._kind.name != CSV:
            return self._answer(chunk)
        self._header = Header.of(chunk, self._kind, self._handler.schema, self._config.batch)
        rest = chunk[len(self._header.line) :] if self._header else chunk
        if self._header is None or self._lines is None:
            return self._answer(rest, first=True)
        if not rest:
            return self._lines.titles()  # SINGLE_RECORD sends a header by itself
        answer = self._answer(rest, first=True)
        return self._lines.titles(answer) + answer

    def _answer(self, chunk: bytes, first: bool = False) -> bytes:
        """Answer whole records; what is wrong with one is said by its place in the body."""
        before = self._seen
        try:
            return self._predict(chunk, first)
        except BadRequest as error:
            if self._lines:
                line = before + bool(self._header) + 1
                return self._lines.recover(RECORDS[self._kind.name](chunk), line, error)
            number = re.match(r"(Row|Line) (\d+)", error.message)
            place = number and f"{number[1]} {before + int(number[2])}"
            raise placed(error, place or "") from None

    def _predict(self, records: bytes, first: bool = False) -> bytes:
        """Answer records as a body of their own; the `first` ones may be all there are."""
        call = self._call._replace(body=records, content_type=self._kind.name)  # it is UTF-8 by now
        if self._kind.name == CSV:
            header = self._header
            named = header is not None and self._handler.schema.takes_names(header.names)
            head = header.line if header and named else b""
            kind = f"{CSV}; header={'present' if named else 'absent'}"
            call = call._replace(body=head + records, content_type=kind)
        with stage("decode"):
            request = self._handler.decode(call, self._context)
        rows = request.n_rows or 0
        several = self._kind.name == CSV and rows > 1 and (self._config.batch or not first)
        if several and not _LINE_END.search(records[:-2]):
            # To a model of one column a single line is a column, but not among others.
            raise BadRequest(f"Row 1 has {rows} values, expected 1.", "Send one value a line.")
        predicted()
        with stage("predict"):
            y = self._handler.predict(request, self._context)
        with stage("encode"):
            answer = _whole(self._handler.encode(y, request, self._context))
        lines = answer.count(b"\n")
        if self._lines and lines != rows:
            raise ModelFault(
                f"The answer to {rows} records has {lines} lines.",
                "Batch transform needs one for each: return a row for each record, and where their "
                f"texts hold line breaks, ask for {JSON_LINES}.",
            )
        self._rows += rows
        return answer

    def _example(self) -> bytes:
        """Answer a row that fits, to learn how many columns an answer has."""
        example = self._handler.schema.example()
        if example is None:
            return b""
        call = self._call._replace(body=dumps(example["body"]), content_type=JSON)
        try:
            request = self._handler.decode(call, self._context)
            y = self._handler.predict(request, self._context)
            return _whole(self._handler.encode(y, request, self._context))
        except BadRequest:  # the values of an example are made up
            return b""


def _whole(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)


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
