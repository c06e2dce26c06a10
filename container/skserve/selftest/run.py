"""One run of the selftest: the table of checks, from the start of the server to its end."""

from __future__ import annotations

import http.client
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from skserve import privileges
from skserve.config import Config
from skserve.selftest import contract, faults, load, many, media, report
from skserve.selftest.process import Server, StartFailed
from skserve.selftest.report import Row, progress
from skserve.selftest.verdict import FAIL, Verdict, failed, warned
from skserve.selftest.walk import Given, Walk

CHECKS: tuple[tuple[str, Callable[[Walk], Verdict | None]], ...] = (
    ("start", contract.start),
    ("log of the start", contract.start_log),
    ("ping", contract.ping),
    ("what the model says", contract.description),
    ("versions", contract.versions),
    ("fast paths", contract.fast_paths),
    ("rows", media.rows),
    ("one call", load.one_row),
    ("formats in", media.formats_in),
    ("formats out", media.formats_out),
    ("one row beside many", media.one_beside_many),
    ("order of columns", media.column_order),
    ("expected answers", media.expected),
    ("wrong bodies", faults.wrong_bodies),
    ("wrong media types", faults.media_types),
    ("routes", contract.routes),
    ("payload limit", contract.payload_limit),
    ("batch parameters", contract.batch_parameters),
    ("large body", load.large_body),
    ("callers at once", load.throughput),
    ("ping under load", load.ping_under_load),
    ("memory", load.memory),
    ("SIGTERM", contract.sigterm),
    ("log", contract.errors_logged),
    ("multi-model", many.multi_model),
    ("model alone", media.model_alone),
    ("load by phase", media.load_by_phase),
)

# Those that take dozens of calls are left out where one takes longer than this, in seconds.
_MANY_CALLS = {"formats in", "formats out", "one row beside many", "large body"}
_LONG_CALL = 1.0

START_FAILED = 2


def run(given: Given, config: Config, environ: Mapping[str, str], as_json: bool) -> int:
    """Run every check and print the table; return the exit status.

    0 where no check failed, 1 where one did, 2 where the server did not start. Root is given up
    first, as the server does.
    """
    signal.signal(signal.SIGTERM, _terminated)  # process 1 would ignore it, and leave the server
    privileges.give_up_root(config)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="skserve-selftest-") as folder:
        server = Server(given.model_dir, environ, Path(folder) / "log")
        try:
            progress("starting the server")
            walk = Walk(given, config, environ, server, server.wait(), Path(folder))
            walk.start_log = server.log()
            walk.about = json.loads(
                server.client.ask("GET", "/", headers={"Accept": "application/json"}).body
            )
            rows = _checked(walk)
        except StartFailed as error:
            progress("")
            print(json.dumps({"start": str(error)}) if as_json else f"The start failed: {error}")
            return START_FAILED
        finally:
            server.end()
    progress("")
    took = time.monotonic() - began
    print(report.as_json(rows, took) if as_json else report.as_text(rows, took))
    return int(any(row.verdict.word == FAIL for row in rows))


def _terminated(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _checked(walk: Walk) -> list[Row]:
    rows = []
    for number, (name, check) in enumerate(CHECKS, 1):
        progress(f"{number} of {len(CHECKS)}: {name}")
        if name in _MANY_CALLS and walk.row_seconds > _LONG_CALL:
            sentence = f"Left out: it takes many calls, and one takes {walk.row_seconds:.1f} s."
            rows.append(
                Row(name, warned(sentence, "Try it with a smaller model of the same kind."))
            )
            continue
        try:
            verdict = check(walk)
        except (OSError, http.client.HTTPException) as error:
            verdict = failed(
                f"The server does not answer: {type(error).__name__} {error}.",
                "The end of its log: " + " ".join(walk.server.log()[-2:])[-300:],
            )
        if verdict is not None:
            rows.append(Row(name, verdict))
    return rows
