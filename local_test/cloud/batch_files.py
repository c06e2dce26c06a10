"""What SageMaker's batch transform does with files, against a server that runs.

The server is asked how it wants to be called. Each file is cut at its lines into mini-batches below
the payload limit; several are on their way at once, failed ones are sent again. The answers are put
together in order, beside their input if so wanted, and become NAME.out when all are there.

Python's standard library is all that is needed: local_test/batch_local.sh runs without an
environment.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .batch_server import Failed, Server
from .filters import Filter, parse, write

MB = 1 << 20
TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonlines",
    ".json": "application/json",
    ".npy": "application/x-npy",
}
LINES = ("text/csv", "application/jsonlines", "application/x-ndjson")
DEFAULTS = {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}


@dataclass(frozen=True)
class Options:
    """How a job is to be done; what is None follows from the file, or is asked of the server."""

    content_type: str | None = None
    accept: str | None = None
    lines: bool | None = None  # whether files are cut at their lines
    assemble: bool | None = None  # whether a line break stands after each answer
    join: bool = False
    single: bool = False
    payload_mb: float | None = None
    concurrent: int | None = None
    retries: int = 3
    timeout: float = 600
    input_filter: str = "$"
    output_filter: str = "$"


@dataclass
class Plan:
    """How the calls are made, as the job says, or else the server, or else SageMaker's defaults."""

    concurrent: int
    payload: int  # bytes; 0 is a whole file in chunks, whatever its size
    single: bool

    @classmethod
    def of(cls, server: Server, options: Options) -> Plan:
        status, body = server.ask("GET", "/execution-parameters")
        told = DEFAULTS | (json.loads(body) if status == 200 else {})
        payload = options.payload_mb if options.payload_mb is not None else told["MaxPayloadInMB"]
        return cls(
            options.concurrent or told["MaxConcurrentTransforms"],
            int(payload * MB),
            options.single or told["BatchStrategy"] == "SINGLE_RECORD",
        )


def mini_batches(path: Path, cut: bool, plan: Plan) -> Iterator[bytes]:
    """Cut a file at its lines; what has no lines is one mini-batch."""
    with path.open("rb") as file:
        if not cut:
            yield file.read()
        elif plan.single:
            yield from file
        else:
            held = b""
            while piece := file.read(plan.payload - len(held)):
                held += piece
                end = held.rfind(b"\n") + 1 if len(held) == plan.payload else len(held)
                if not end:
                    raise Failed(f"A record of {path} is larger than {plan.payload:,} bytes.")
                yield held[:end]
                held = held[end:]
            if held:
                yield held


class Progress:
    """A bar on a terminal, and the figures for the summary."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.lines, self.retries = total, 0, 0, 0
        self._began = time.monotonic()
        self._shown = -1

    def add(self, size: int, lines: int) -> None:
        self.done += size
        self.lines += lines
        percent = 100 * self.done // max(1, self.total)
        if sys.stderr.isatty() and percent != self._shown:
            self._shown = percent
            bar = "#" * (percent // 2)
            print(f"\r[{bar:50}] {percent:3} %  {self.lines:,} lines", end="", file=sys.stderr)

    def summary(self, files: int) -> str:
        seconds = time.monotonic() - self._began
        start = "\n" if self._shown >= 0 else ""
        return (
            f"{start}{files} files, {self.done / MB:,.1f} MB, {self.lines:,} lines in "
            f"{seconds:,.1f} s: {self.lines / seconds:,.0f} lines/s, {self.retries} sent again"
        )


class Job:
    """The calls for the files of a job, whose sizes add up to `total` bytes."""

    def __init__(self, server: Server, plan: Plan, options: Options, total: int) -> None:
        self._server, self._plan, self._options = server, plan, options
        self._input, self._output = Filter(options.input_filter), Filter(options.output_filter)
        self.progress = Progress(total)

    def transform(self, path: Path, target: Path) -> None:
        """Answer one file; `target` appears only if all of it was answered."""
        content_type = self._options.content_type or TYPES.get(path.suffix, "")
        if not content_type:
            raise Failed(f"The type of {path} is not known; give --content-type.")
        kinds = Kinds(content_type, self._options.accept or content_type)
        partial = target.with_suffix(target.suffix + ".part")
        try:
            with partial.open("wb") as out:
                if self._plan.payload:
                    self._in_batches(path, out, kinds)
                else:
                    self._in_chunks(path, out, kinds)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _in_batches(self, path: Path, out: BinaryIO, kinds: Kinds) -> None:
        cut = kinds.lines if self._options.lines is None else self._options.lines
        waiting: deque[tuple[bytes, Future[bytes]]] = deque()
        with ThreadPoolExecutor(self._plan.concurrent) as callers:
            try:
                for batch in mini_batches(path, cut, self._plan):
                    waiting.append((batch, callers.submit(self._call, path, batch, kinds)))
                    if len(waiting) > 2 * self._plan.concurrent:
                        self._write(path, out, kinds, *waiting.popleft())
                while waiting:
                    self._write(path, out, kinds, *waiting.popleft())
            except BaseException:
                callers.shutdown(wait=False, cancel_futures=True)
                raise

    def _write(
        self, path: Path, out: BinaryIO, kinds: Kinds, batch: bytes, answer: Future[bytes]
    ) -> None:
        body = answer.result()
        records = count(batch)
        if self._options.join and count(body) != records:
            raise Failed(
                f"{path}: {records:,} lines in, {count(body):,} out; they cannot be joined."
            )
        try:
            body = self._assembled(batch, body, kinds)
        except ValueError as error:
            raise Failed(f"{path}: {error}") from error
        ending = kinds.lines if self._options.assemble is None else self._options.assemble
        if ending and body and not body.endswith(b"\n"):
            body += b"\n"  # AssembleWith=Line
        out.write(body)
        self.progress.add(len(batch), records)

    def _assembled(self, batch: bytes, body: bytes, kinds: Kinds) -> bytes:
        """Return the answers, joined with their records and filtered as the job says."""
        if self._options.join:
            body = joined(batch, body, kinds.content_type)
        if self._output.whole:
            return body
        kept = (self._output(parse(line, kinds.accept)) for line in lines(body))
        return b"".join(write(one, kinds.accept) + b"\n" for one in kept)

    def _prepared(self, batch: bytes, kinds: Kinds) -> bytes:
        """Return a mini-batch as the container gets it."""
        if self._input.whole:
            return batch
        kept = (self._input(parse(line, kinds.content_type)) for line in lines(batch))
        return b"".join(write(one, kinds.content_type) + b"\n" for one in kept)

    def _call(self, path: Path, batch: bytes, kinds: Kinds) -> bytes:
        """Send one mini-batch, again after what may pass. Raises Failed."""
        try:
            sent = self._prepared(batch, kinds)
        except ValueError as error:
            raise Failed(f"{path}: {error}") from error
        for attempt in range(self._options.retries + 1):
            if attempt:
                self.progress.retries += 1
                time.sleep(min(2**attempt, 10) / 4)
            try:
                status, body = self._server.ask("POST", "/invocations", sent, **kinds.headers)
            except (OSError, http.client.HTTPException) as error:
                status, body = 0, str(error).encode()
            if status == 200:
                return body
            if 400 <= status < 500:
                break
        raise Failed(f"{path}: {status or 'no answer'}\nMessage: {body.decode(errors='replace')}")

    def _in_chunks(self, path: Path, out: BinaryIO, kinds: Kinds) -> None:
        """Send a whole file with chunked encoding, as MaxPayloadInMB=0 does."""

        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(MB):
                    yield chunk
                    self.progress.add(len(chunk), count(chunk))

        answer = self._server.open("POST", "/invocations", chunks(), **kinds.headers)
        if answer.status != 200:
            raise Failed(f"{path}: {answer.status}\nMessage: {answer.read().decode()}")
        while part := answer.read(MB):
            out.write(part)


@dataclass(frozen=True)
class Kinds:
    """The media types of a file and of its answers."""

    content_type: str
    accept: str

    @property
    def lines(self) -> bool:
        return self.content_type in LINES

    @property
    def headers(self) -> dict[str, str]:
        return {"Content_Type": self.content_type, "Accept": self.accept}


def count(body: bytes) -> int:
    return body.count(b"\n") + (not body.endswith(b"\n") and bool(body))


def joined(records: bytes, answers: bytes, content_type: str) -> bytes:
    """Put each line of the input before its answer, as JoinSource=Input does."""
    pairs = zip(lines(records), lines(answers), strict=True)
    if content_type == "text/csv":
        return b"".join(record + b"," + answer + b"\n" for record, answer in pairs)
    return b"".join(
        json.dumps(both(json.loads(record), json.loads(answer))).encode() + b"\n"
        for record, answer in pairs
    )


def lines(body: bytes) -> list[bytes]:
    return [line.removesuffix(b"\r") for line in body.removesuffix(b"\n").split(b"\n")]


def both(record: object, answer: object) -> dict[str, object]:
    if isinstance(record, dict):
        return {**record, "SageMakerOutput": answer}
    return {"SageMakerInput": record, "SageMakerOutput": answer}
