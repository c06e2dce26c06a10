"""A real Prometheus server that scrapes one of ours, and the queries of the dashboard."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import ROOT, START_LIMIT, free_port

Ask = Callable[[str], list[dict[str, Any]]]

INTERVAL = 0.5  # seconds between two scrapes


def program(name: str) -> str:
    """Return where a program of Prometheus is; skip without, unless it is required."""
    found = shutil.which(name)
    if found is None and os.environ.get("SKSERVE_REQUIRE_PROMETHEUS") == "1":
        pytest.fail(f"{name} is not installed")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def scraping(url: str, folder: Path) -> Iterator[Ask]:
    """Scrape the server at `url` for a while; yields a function that runs a query."""
    port, target = free_port(), url.removeprefix("http://")
    (folder / "prometheus.yml").write_text(
        f"global: {{scrape_interval: {INTERVAL * 1000:.0f}ms}}\n"
        f"scrape_configs: [{{job_name: skserve, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    command = [program("prometheus"), f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def ask(query: str) -> list[dict[str, Any]]:
        where = f"http://127.0.0.1:{port}/api/v1/query"
        answer = requests.get(where, params={"query": query}, timeout=10).json()
        assert answer["status"] == "success", (query, answer)
        return list(answer["data"]["result"])

    def scraped() -> bool:
        try:
            return bool(ask("skserve_ready"))
        except (requests.ConnectionError, ValueError):
            return False

    try:
        deadline = time.monotonic() + START_LIMIT
        while not scraped():
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(INTERVAL)
        yield ask
    finally:
        process.kill()
        process.wait()


def queries() -> dict[str, str]:
    """Return every query of the dashboard, with its variables filled in as Grafana does."""
    board = json.loads((ROOT / "deployment/dashboard.json").read_text())
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"]
        .replace("$selector", 'job="skserve"')
        .replace("$__rate_interval", "1m")
        for panel in board["panels"]
        for target in panel["targets"]
    }
