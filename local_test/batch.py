"""Do on this machine what SageMaker's batch transform does with files.

The model is served by the image as batch transform would, or is a server that runs already. It is
asked how it wants to be called. Each file is cut at its lines into mini-batches below the payload
limit; several are on their way at once, failed ones are sent again. The answers are put together
in order, beside their input if so wanted, and become OUTPUT_FOLDER/NAME.out when all are there.

Python's standard library is all that is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

MB = 1 << 20
TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonlines",
    ".json": "application/json",
    ".npy": "application/x-npy",
}
LINES = ("text/csv", "application/jsonlines", "application/x-ndjson")
DEFAULTS = {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}


class Failed(Exception):
    """The job ends here, with this sentence."""


class Server:
    """A server on this machine; each thread keeps a connection of its own."""

    def __init__(self, url: str, timeout: float) -> None:
        self._address = urlsplit(url).netloc
        self._timeout = timeout
        self._own = threading.local()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """Send one request; a chunked one if `body` is an iterator. Raises OSError."""
        answer = self.open(method, path, body, **headers)
        return answer.status, answer.read()

    def open(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> http.client.HTTPResponse:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._address, timeout=self._timeout)
            self._own.connection = connection
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)  # type: ignore[arg-type]
            return connection.getresponse()
        except BaseException:
            connection.close()
            self._own.connection = None
            raise

    def wait(self, patience: float = 480) -> None:
        """Wait until /ping is 200 with an empty body, as batch transform does."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/ping") == (200, b""):
                    return
            time.sleep(0.1)
        raise Failed("The server is not ready: GET /ping was never 200.")


@contextlib.contextmanager
def serving(model: str, options: argparse.Namespace) -> Iterator[str]:
    """Yield the URL of a server of `model`: a folder for the image, or a URL already."""
    if model.startswith("http://"):
        yield model
        return
    if not Path(model).is_dir():
        raise Failed(f"{model} is neither a folder nor an http:// URL.")
    environ = ["SAGEMAKER_BATCH=true", *options.env]
    if options.payload_mb is not None:
        environ.append(f"SAGEMAKER_MAX_PAYLOAD_IN_MB={int(options.payload_mb)}")
    if options.concurrent:
        environ.append(f"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS={options.concurrent}")
    if options.single:
        environ.append("SAGEMAKER_BATCH_STRATEGY=SINGLE_RECORD")
    command = ["docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp"]
    command += [
        "--publish",
        "127.0.0.1::8080",
        "--volume",
        f"{Path(model).resolve()}:/opt/ml/model:ro",
    ]
    command += [word for one in environ for word in ("--env", one)]
    name = run([*command, options.image, "serve"])
    try:
        yield "http://" + run(["docker", "port", name, "8080"]).splitlines()[0]
    except Failed:
        subprocess.run(["docker", "logs", "--tail", "3", name], stdout=sys.stderr, check=False)
        raise
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stderr.strip())
    return done.stdout.strip()


@dataclass
class Plan:
    """How the calls are made, as the job says, or else the server, or else SageMaker's defaults."""

    concurrent: int
    payload: int  # bytes; 0 is a whole file in chunks, whatever its size
    single: bool

    @classmethod
    def of(cls, server: Server, options: argparse.Namespace) -> Plan:
        status, body = server.ask("GET", "/execution-parameters")
        told = DEFAULTS | (json.loads(body) if status == 200 else {})
        payload = options.payload_mb if options.payload_mb is not None else told["MaxPayloadInMB"]
        return cls(
            options.concurrent or told["MaxConcurrentTransforms"],
            int(payload * MB),
            options.single or told["BatchStrategy"] == "SINGLE_RECORD",
        )


def mini_batches(path: Path, content_type: str, plan: Plan) -> Iterator[bytes]:
    """Cut a file at its lines; what has no lines is one mini-batch."""
    with path.open("rb") as file:
        if content_type not in LINES:
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
    """The calls for all files."""

    def __init__(self, server: Server, plan: Plan, options: argparse.Namespace) -> None:
        self._server, self._plan, self._options = server, plan, options
        sizes = sum(path.stat().st_size for path in options.inputs)
        self.progress = Progress(sizes)

    def transform(self, path: Path, target: Path) -> None:
        """Answer one file; `target` appears only if all of it was answered."""
        content_type = self._options.content_type or TYPES.get(path.suffix, "")
        if not content_type:
            raise Failed(f"The type of {path} is not known; give --content-type.")
        accept = self._options.accept or content_type
        headers = {"Content_Type": content_type, "Accept": accept}
        partial = target.with_suffix(target.suffix + ".part")
        try:
            with partial.open("wb") as out:
                if self._plan.payload:
                    self._in_batches(path, out, headers)
                else:
                    self._in_chunks(path, out, headers)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _in_batches(self, path: Path, out, headers: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
        content_type = headers["Content_Type"]
        waiting: deque[tuple[bytes, Future[bytes]]] = deque()
        with ThreadPoolExecutor(self._plan.concurrent) as callers:
            try:
                for batch in mini_batches(path, content_type, self._plan):
                    waiting.append((batch, callers.submit(self._call, path, batch, headers)))
                    if len(waiting) > 2 * self._plan.concurrent:
                        self._write(path, out, content_type, *waiting.popleft())
                while waiting:
                    self._write(path, out, content_type, *waiting.popleft())
            except BaseException:
                callers.shutdown(wait=False, cancel_futures=True)
                raise

    def _write(
        self, path: Path, out, content_type: str, batch: bytes, answer: Future[bytes]
    ) -> None:  # type: ignore[no-untyped-def]
        body = answer.result()
        records = count(batch)
        if self._options.join:
            if count(body) != records:
                raise Failed(
                    f"{path}: {records:,} lines in, {count(body):,} out; they cannot be joined."
                )
            body = joined(batch, body, content_type)
        if content_type in LINES and body and not body.endswith(b"\n"):
            body += b"\n"  # AssembleWith=Line
        out.write(body)
        self.progress.add(len(batch), records)

    def _call(self, path: Path, batch: bytes, headers: dict[str, str]) -> bytes:
        """Send one mini-batch, again after what may pass. Raises Failed."""
        for attempt in range(self._options.retries + 1):
            if attempt:
                self.progress.retries += 1
                time.sleep(min(2**attempt, 10) / 4)
            try:
                status, body = self._server.ask("POST", "/invocations", batch, **headers)
            except (OSError, http.client.HTTPException) as error:
                status, body = 0, str(error).encode()
            if status == 200:
                return body
            if 400 <= status < 500:
                break
        raise Failed(f"{path}: {status or 'no answer'}\nMessage: {body.decode(errors='replace')}")

    def _in_chunks(self, path: Path, out, headers: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
        """Send a whole file with chunked encoding, as MaxPayloadInMB=0 does."""

        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(MB):
                    yield chunk
                    self.progress.add(len(chunk), count(chunk))

        answer = self._server.open("POST", "/invocations", chunks(), **headers)
        if answer.status != 200:
            raise Failed(f"{path}: {answer.status}\nMessage: {answer.read().decode()}")
        while part := answer.read(MB):
            out.write(part)


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


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="batch_local.sh", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("model", help="a folder for the image to serve, or the http:// URL of a server")
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="files; NAME gives NAME.out")
    add("output", type=Path, metavar="OUTPUT_FOLDER")
    add("--image", default="skserve:1.9")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="for the container")
    add("--content-type", help="of the input; known by its name otherwise")
    add("--accept", help="of the output; that of the input otherwise")
    add("--join", action="store_true", help="put each record before its answer")
    add("--single", action="store_true", help="one record a call (SingleRecord)")
    add("--payload-mb", type=float, help="largest mini-batch; 0 sends whole files in chunks")
    add("--concurrent", type=int, help="calls at once (MaxConcurrentTransforms)")
    add("--retries", type=int, default=3)
    add("--timeout", type=float, default=600, help="seconds a call may take")
    options = parser.parse_args(argv)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        with serving(options.model, options) as url:
            server = Server(url, options.timeout)
            server.wait()
            plan = Plan.of(server, options)
            payload = f"{plan.payload / MB:g} MB" if plan.payload else "whole files in chunks"
            print(f"{plan.concurrent} calls at once, {payload}", file=sys.stderr)
            job = Job(server, plan, options)
            for path in options.inputs:
                job.transform(path, options.output / (path.name + ".out"))
            print(job.progress.summary(len(options.inputs)), file=sys.stderr)
    except (Failed, OSError) as error:
        print(f"batch_local.sh: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
