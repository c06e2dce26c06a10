"""One run of the selftest, from the start of the server to its end."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from skserve import privileges
from skserve.config import Config
from skserve.selftest import checks, report
from skserve.selftest.process import Server, StartFailed
from skserve.selftest.report import progress
from skserve.selftest.verdict import FAIL
from skserve.selftest.walk import Given, Walk

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
            rows = checks.made(walk, checks.CHECKS)
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
