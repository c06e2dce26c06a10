"""The real image, scraped by a real Prometheus server."""

from __future__ import annotations

import re
import time

import pytest
import requests

from tests.prometheus import INTERVAL, queries, scraping
from tests.test_image import STRICT, container, pytestmark, readable  # noqa: F401 - marks this file
from tests.test_metrics import until

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


GREEDY = """
def predict_fn(data, model):
    if data[0, 0] < 0:
        held = [bytearray(b"x") * (1 << 20) for _ in range(1 << 20)]
    return model.predict(data)
"""


def test_a_worker_that_the_kernel_ends_for_memory_is_counted_as_that(image, model_with_script):
    """It holds its pages one by one: what the limit refuses at once is a MemoryError and a 500."""
    folder = readable(model_with_script(GREEDY))
    limits = ["--memory", "400m", "--memory-swap", "400m"]
    with container(image, folder, *limits, noisy=True) as running:
        call = running.url + "/invocations"
        with pytest.raises(requests.ConnectionError):
            requests.post(call, "-1,0,0,0", headers={"Content-Type": "text/csv"}, timeout=120)
        ended = 'skserve_worker_ends_total{reason="out_of_memory"} 1.0'
        until(lambda: ended in scrape(running.url), 60)
        until(running.ready, 60)
        assert requests.post(call, "[[5.1, 3.5, 1.4, 0.2]]", timeout=60).json() == [0]
        assert "the container's memory was used up. Requests left unanswered: 1." in running.log


def scrape(url: str) -> str:
    try:
        return requests.get(url + "/metrics", timeout=9).text
    except requests.RequestException:  # the worker has just ended
        return ""
