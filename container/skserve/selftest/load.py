"""Checks of time and memory: one row, a large body, many callers at once, a worker's size."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field

from skserve.config import MIB
from skserve.formats.media_types import CSV, JSON
from skserve.selftest.bodies import write_csv, write_json
from skserve.selftest.contract import PING_LIMIT
from skserve.selftest.verdict import Verdict, failed, passed, warned
from skserve.selftest.walk import ATTRIBUTES, Walk

CALL_LIMIT = 60.0  # seconds that SageMaker gives a call of a real-time or serverless endpoint
SERVERLESS = (1024, 2048, 3072, 4096, 5120, 6144)  # MB of memory that an endpoint may have
SERVERLESS_BODY = 4_000_000  # bytes
CALLERS = (1, 8, 64)
LONGEST = 15.0  # seconds that the calls of a load may take beyond its own

_SLOWER = "Use asynchronous inference (an hour a call) or batch transform."


def one_row(walk: Walk) -> Verdict | None:
    """Time one row, or the user's body."""
    if walk.sample is None:
        return None
    body, kind = _small(walk)
    answers = [walk.post(body, kind)]
    while len(answers) < 5 and answers[0].seconds < 2:
        answers.append(walk.post(body, kind))
    walk.row_seconds = seconds = statistics.median(answer.seconds for answer in answers)
    if answers[0].status == 504 or seconds > CALL_LIMIT:
        return failed(
            f"One call takes {seconds:.0f} s; SageMaker waits {CALL_LIMIT:.0f} s.", _SLOWER
        )
    if answers[0].status >= 500:
        return failed(f"One call is answered {answers[0].said}", "The log has the traceback.")
    if seconds > CALL_LIMIT / 6:
        return warned(
            f"One call takes {seconds:.1f} s; a few at once exceed SageMaker's {CALL_LIMIT:.0f} s.",
            _SLOWER,
        )
    return passed(f"One call takes {seconds * 1e3:.1f} ms.")


def _small(walk: Walk) -> tuple[bytes, str]:
    """Return one row in JSON, or the user's body where only that is known."""
    assert walk.sample is not None
    return walk.sample if walk.table is None else (write_json(walk.table.at(0)), JSON)


def large_body(walk: Walk) -> Verdict | None:
    """Send as many rows as a serverless call may have bytes, if a part of them says it is quick."""
    if walk.table is None:
        return None
    lines = write_csv(walk.table)
    rows, most = len(walk.table.rows), SERVERLESS_BODY // len(lines)
    times = max(1, most // 32)
    answer = walk.post(lines * times, f"{CSV}; header=absent", CSV)
    pace = answer.seconds / (rows * times)
    if answer.status == 200 and pace * rows * most < LONGEST:
        times = max(1, most)
        answer = walk.post(lines * times, f"{CSV}; header=absent", CSV)
        pace = answer.seconds / (rows * times)
    if answer.status != 200:
        return failed(f"{rows * times:,} rows are answered {answer.said}", "Send fewer at a time.")
    if (count := answer.body.count(b"\n")) != rows * times:
        return failed(f"{rows * times:,} rows have {count:,} lines in the answer.", "Report it.")
    sentence = (
        f"{rows * times:,} rows, {len(lines) * times:,} bytes of CSV, take {answer.seconds:.2f} s"
    )
    if pace * rows * most > CALL_LIMIT:
        fewer = int(CALL_LIMIT / pace)
        return warned(
            f"{sentence}: {SERVERLESS_BODY:,} bytes would take longer than {CALL_LIMIT:.0f} s.",
            f"Send {fewer:,} rows a call at most. {_SLOWER}",
        )
    return passed(sentence + ".")


@dataclass
class Load:
    """What closed-loop callers met: seconds of each good answer, other statuses, broken calls."""

    seconds: list[float] = field(default_factory=list)
    others: dict[int, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    took: float = 0.0

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)] if self.seconds else 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.took if self.took else 0.0


def throughput(walk: Walk) -> Verdict | None:
    """Let 1, 8 and 64 callers ask at once, each again when it is answered; pings go on beside."""
    if walk.sample is None:
        return None
    said, refused, sent, left_out = [], 0, 0, []
    for callers in CALLERS:
        if walk.row_seconds * callers / max(1.0, walk.config.machine.cpus) > LONGEST:
            left_out.append(str(callers))
            continue
        load = _run(walk, callers, *_small(walk))
        errors = {status: count for status, count in load.others.items() if status != 503}
        if load.broken or errors:
            return failed(
                f"With {callers} callers: statuses {errors}, {len(load.broken)} calls without an "
                f"answer {load.broken[:1]}.",
                "The log has the reason.",
            )
        refused += load.others.get(503, 0)
        sent += len(load.seconds) + load.others.get(503, 0)
        said.append(f"{callers}: {load.rate:,.0f}/s, p99 {load.p99 * 1e3:.1f} ms")
    sentence = f"Callers at once, {'; '.join(said) or 'none'}."
    if left_out:
        return warned(f"{sentence} Too slow to try {' and '.join(left_out)} callers.", _SLOWER)
    if refused:
        return warned(
            f"{sentence} {refused:,} of {sent:,} calls were refused by 503.",
            "More instances, or a longer SKSERVE_QUEUE.",
        )
    return passed(sentence)


def _run(walk: Walk, callers: int, body: bytes, kind: str) -> Load:
    load, lock = Load(), threading.Lock()
    began = time.perf_counter()
    until = began + walk.given.seconds
    headers = {"Content-Type": kind, "Accept": JSON}
    if not walk.script:
        headers[ATTRIBUTES] = f"method={walk.method}"

    def call() -> None:
        with closing(walk.client.connection()) as connection:
            while (start := time.perf_counter()) < until:
                try:
                    connection.request("POST", "/invocations", body, headers)
                    response = connection.getresponse()
                    response.read()
                except (OSError, http.client.HTTPException) as error:
                    with lock:
                        load.broken.append(f"{type(error).__name__}: {error}")
                    return
                took = time.perf_counter() - start
                with lock:
                    if response.status == 200:
                        load.seconds.append(took)
                    else:
                        load.others[response.status] = load.others.get(response.status, 0) + 1

    threads = [threading.Thread(target=call) for _ in range(callers)]
    threads.append(threading.Thread(target=_ping, args=(walk, until)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.took = time.perf_counter() - began
    return load


def _ping(walk: Walk, until: float) -> None:
    """Note how long each ping takes; twice the limit where no answer of 200 comes."""
    while time.perf_counter() < until:
        walk.pings.append(PING_LIMIT * 2)
        with suppress(OSError, http.client.HTTPException):
            answer = walk.client.ask("GET", "/ping")
            if answer.status == 200:
                walk.pings[-1] = answer.seconds
        time.sleep(0.05)


def ping_under_load(walk: Walk) -> Verdict | None:
    if not walk.pings:
        return None
    worst = max(walk.pings)
    if worst > PING_LIMIT:
        return failed(
            f"One of {len(walk.pings)} pings under load took {worst:.1f} s or was not 200.",
            f"SageMaker replaces an instance after {PING_LIMIT:.0f} s: give it more CPU.",
        )
    return passed(f"{len(walk.pings)} pings beside the callers, {worst * 1e3:.0f} ms at most.")


def memory(walk: Walk) -> Verdict:
    """Weigh every process after the load, of shared pages each its part."""
    held = walk.server.memory()
    total = sum(held.values()) / MIB
    each = max(held.values()) / MIB
    sentence = f"{total:,.0f} MiB in {len(held)} processes, {each:,.0f} MiB in the largest."
    fitting = [size for size in SERVERLESS if total < size * 0.9]
    if not fitting:
        return warned(
            f"{sentence} That is too large for serverless, which has {SERVERLESS[-1]:,} MB.",
            "Use instances with more memory, or save a smaller model.",
        )
    return passed(f"{sentence} A serverless endpoint of {fitting[0]:,} MB holds it.")
