"""The real image, scraped by a real Prometheus server."""

from __future__ import annotations

import re
import time

import requests

from tests.prometheus import INTERVAL, queries, scraping
from tests.test_image import STRICT, container, pytestmark, readable  # noqa: F401 - marks this file

OPEN = [one for one in STRICT if one not in ("--network", "none")]


def test_every_query_of_the_dashboard_finds_something_of_the_image(image, models, tmp_path):
    model = readable(models("iris"))
    with container(image, model, *OPEN) as running, scraping(running.url, tmp_path) as ask:
        for _ in range(6):
            for row, status in (([5.1, 3.5, 1.4, 0.2], 200), ([1], 400)):
                answer = requests.post(running.url + "/invocations", json=[row], timeout=9)
                assert answer.status_code == status
            time.sleep(INTERVAL)
        empty = [name for name, query in queries().items() if not ask(query)]
        log = running.log

    assert empty == []
    assert len(re.findall(r"status=200 .*total_ms=", log)) == 6
    assert len(re.findall(r'status=400 .*message="Row 1 has 1 value, expected 4', log)) == 6
    assert "/metrics" not in log
