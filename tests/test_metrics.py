"""What `/metrics` says: exact over all processes, whatever becomes of them, and as documented."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
)

from skserve import counters, telemetry
from skserve.config import Config
from skserve.counters import Counters
from skserve.estimators.drift import Learned
from skserve.estimators.schema import Schema
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler
from skserve.inference.model import Model
from skserve.region import NO_MODEL, Region
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.slots import Slots
from skserve.series import BUCKETS, CELLS, ENDS, FAMILIES, OTHER_MODELS, REJECTED, STATUSES
from skserve.serving import metrics
from skserve.serving.routes import create_app
from tests.conftest import ROOT, Server, free_port, serving, start
from tests.prometheus import INTERVAL, Ask, program, queries, scraping

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Series:
    """Read a scrape with the official parser; every series is there once."""
    series: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in series
            series[key] = sample.value
    return series


def scraped(server: Server, path: str = "/metrics") -> Series:
    answer = requests.get(server.url + path, timeout=10)
    assert answer.status_code == 200, answer.text
    return parsed(answer.text)


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def counts(series: Series) -> Series:
    """Return what may only grow."""
    grows = ("_total", "_count", "_sum", "_bucket")
    return {key: number for key, number in series.items() if key[0].endswith(grows)}


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def statuses(series: Series) -> dict[str, float]:
    return {
        dict(labels)["status"]: number
        for (name, labels), number in series.items()
        if name == "skserve_requests_total" and number
    }


MIXED = """
import os, time
def input_fn(body, content_type):
    if "fail" in body: raise RuntimeError("no")
    if "teapot" in body:
        error = ValueError("short and stout"); error.status_code = 418
        raise error
    if "sleep" in body: time.sleep(30)
    return [[5.1, 3.5, 1.4, 0.2]]
"""


# ------------------------------------------------------------------------------------- exact counts


@pytest.fixture(scope="module")
def loaded(models, tmp_path_factory) -> Iterator[tuple[list[Series], Counter[str], Server]]:
    """Mixed requests from 8 callers, while workers are killed and all is scraped all the time."""
    with serving(models("iris"), tmp_path_factory.mktemp("m") / "log") as server:
        yield *drive(server, requests_each=250, kills=3), server


def drive(server: Server, requests_each: int, kills: int) -> tuple[list[Series], Counter[str]]:
    """Return the scrapes taken meanwhile and after, and how often each status was answered."""
    answered: Counter[str] = Counter()
    scrapes: list[Series] = []
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(0.1):
            with_retry(lambda: scrapes.append(scraped(server)))

    def call(seed: int) -> Counter[str]:
        draw, seen, session = random.Random(seed), Counter[str](), requests.Session()
        for _ in range(requests_each):
            body, content_type = draw.choice(BODIES)
            try:
                answer = session.post(
                    server.url + "/invocations", body, headers={"Content-Type": content_type}
                )
                seen[str(answer.status_code)] += 1
            except requests.RequestException:
                seen["lost"] += 1  # with its worker
        return seen

    watcher = threading.Thread(target=scrape)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, seed) for seed in range(8)]
        for _ in range(kills):
            time.sleep(0.6)
            os.kill(workers_of(server)[0], signal.SIGKILL)
        for one in calls:
            answered += one.result()
    ended.set()
    watcher.join()
    until(lambda: value(scraped(server), "skserve_workers") == 2)
    scrapes.append(scraped(server))
    return scrapes, answered


BODIES = [
    ("[[5.1, 3.5, 1.4, 0.2]]", "application/json"),
    ("5.1,3.5,1.4,0.2\n5.1,3.5,1.4,0.2\n", "text/csv"),
    ("[[1, 2]]", "application/json"),
    ("{", "application/json"),
    ("[]", "text/unknown"),
]


def with_retry(act: Callable[[], object]) -> None:
    for _ in range(20):
        try:
            act()
            return
        except requests.ConnectionError:  # the worker was killed at that moment
            time.sleep(0.02)
    raise AssertionError("no worker answered")


def workers_of(server: Server) -> list[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_counts_are_those_of_the_callers_though_workers_are_killed(loaded):
    scrapes, answered, lost = loaded[0], loaded[1].copy(), loaded[1]["lost"]
    del answered["lost"]
    seen = statuses(scrapes[-1])

    assert sum(answered.values()) > 1000
    assert set(answered) == {"200", "400", "415"}
    assert lost < 50
    assert set(seen) == set(answered)
    for status, number in answered.items():
        assert number <= seen[status] <= number + lost
    assert sum(seen.values()) <= sum(answered.values()) + lost


def test_no_counter_falls_between_scrapes(loaded):
    scrapes, _, _ = loaded

    assert len(scrapes) > 5
    for before, after in zip(scrapes, scrapes[1:], strict=False):
        fell = {key: (number, after.get(key)) for key, number in counts(before).items()
                if after.get(key, -1) < number}  # fmt: skip
        assert fell == {}


def test_every_killed_worker_is_counted_and_gauges_return_to_rest(loaded):
    last = loaded[0][-1]

    assert value(last, "skserve_worker_ends_total", reason="crash") == 3
    assert value(last, "skserve_requests_in_progress") == 0
    assert value(last, "skserve_requests_waiting") == 0
    assert value(last, "skserve_ready") == 1


def test_the_parts_of_a_histogram_agree(loaded):
    last = loaded[0][-1]
    total = sum(statuses(last).values())
    bounds = [*map(str, BUCKETS), "+Inf"]
    buckets = [
        value(last, "skserve_request_seconds_bucket", stage="total", le=one) for one in bounds
    ]

    assert buckets == sorted(buckets)
    assert buckets[-1] == value(last, "skserve_request_seconds_count", stage="total") == total
    decoded = value(last, "skserve_request_seconds_count", stage="decode")
    predicted = value(last, "skserve_request_seconds_count", stage="predict")
    assert predicted == statuses(last)["200"] < decoded == total
    assert 0 < value(last, "skserve_request_seconds_sum", stage="total") < 600


def test_pings_scrapes_and_pages_are_not_invocations(loaded):
    server = loaded[2]
    before = statuses(scraped(server))
    for path in ("/ping", "/", "/metrics", "/none", "/execution-parameters", "/invocations"):
        requests.get(server.url + path, timeout=10)

    assert statuses(scraped(server)) == before


def test_a_scrape_of_one_model_is_small_even_after_years(loaded):
    text = requests.get(loaded[2].url + "/metrics", timeout=10).text
    old = re.sub(r"(?m)(_total|_count|_bucket)(.*) \d+\.0$", r"\1\2 1.2345678e+08", text)

    assert len(old) > len(text)
    assert len(old) <= 8 << 10


def test_no_family_has_more_than_ten_label_sets(loaded):
    sets: dict[str, set[frozenset[tuple[str, str]]]] = {}
    for name, labels in loaded[0][-1]:
        without = frozenset(one for one in labels if one[0] != "le")
        sets.setdefault(name, set()).add(without)

    assert {name: len(found) for name, found in sets.items() if len(found) > 10} == {}


@pytest.mark.soak
def test_a_hundred_thousand_mixed_requests_are_counted(models, tmp_path):
    with serving(models("iris"), tmp_path / "log") as server:
        scrapes, answered = drive(server, requests_each=12_500, kills=20)
    lost, seen = answered.pop("lost", 0), statuses(scrapes[-1])

    assert value(scrapes[-1], "skserve_worker_ends_total", reason="crash") == 20  # none by itself
    assert set(seen) == set(answered)
    for status, number in answered.items():
        assert number <= seen[status] <= number + lost
    for before, after in zip(scrapes, scrapes[1:], strict=False):
        assert all(after[key] >= number for key, number in counts(before).items())


# ------------------------------------------------------------------------------- what went wrong


def test_failures_refusals_and_hangs_are_counted_where_they_belong(model_with_script, tmp_path):
    limits = {"SKSERVE_QUEUE": "1", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}
    folder = model_with_script(MIXED)
    with serving(folder, tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="1", **limits) as server:
        for body in ("fail", "teapot", "fine"):
            server.post(body)
        with ThreadPoolExecutor(4) as pool:
            slow = [pool.submit(server.post, "sleep") for _ in range(4)]
            until(lambda: value(scraped(server), "skserve_requests_waiting") == 1)
            busy = scraped(server)
            assert value(busy, "skserve_requests_in_progress") == 2
            assert value(busy, "skserve_rejected_total", reason="queue") == 2
            answers = sorted(one.result().status_code for one in slow)
        until(lambda: value(scraped(server), "skserve_worker_ends_total", reason="hang") == 1)
        until(lambda: server.ping() == 200)
        last = scraped(server)

    log = (tmp_path / "log").read_text()
    assert log.count('code=overloaded message="As many requests are running and waiting') == 2
    assert 'code=timeout message="The prediction took longer than 2 s, waiting included."' in log
    assert answers[:2] == [503, 503]
    assert statuses(last)["other"] == 1  # the 418
    assert statuses(last)["500"] == 1
    assert statuses(last)["200"] == 1
    assert sum(statuses(last).values()) == 7
    assert value(last, "skserve_requests_in_progress") == 0
    assert value(last, "skserve_requests_waiting") == 0


def test_a_scrape_does_not_wait_for_predictions_nor_for_the_model(model_with_script, tmp_path):
    script = "import time\ndef model_fn(d):\n    time.sleep(2)\n    return 1\n"
    script += "def predict_fn(X, m):\n    time.sleep(1)\n    return X\n"
    one = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SKSERVE_PRELOAD": "off"}
    server = start(model_with_script(script), tmp_path / "log", **one)
    try:
        until(lambda: _answers(server))
        assert server.ping() == 503
        assert value(scraped(server), "skserve_ready") == 0
        until(lambda: server.ping() == 200)
        assert value(scraped(server), "skserve_ready") == 1
        assert value(scraped(server), "skserve_start_seconds", phase="model") >= 2
        with ThreadPoolExecutor(3) as pool:
            slow = [pool.submit(server.post, "[[1]]") for _ in range(3)]
            until(lambda: value(scraped(server), "skserve_requests_in_progress") == 3)
            assert not any(one.done() for one in slow)
        log = server.log.read_text()
    finally:
        server.process.kill()
        server.process.wait()
    # Pings and scrapes are logged only when they change.
    assert re.findall(r"GET /ping .*", log) == [
        "GET /ping answers 503 from now on.",
        "GET /ping answers 200 from now on.",
    ]
    assert "/metrics" not in log


def _answers(server: Server) -> bool:
    try:
        return bool(scraped(server))
    except requests.ConnectionError:
        return False


def test_nothing_is_counted_nor_served_where_metrics_are_off(models):
    config = Config(metrics=False)
    registry = LocalModel(Slots(1, 10, timeout=10), Model.load(models("one"), config))
    client = create_app(registry, config, Bodies(1 << 20)).test_client()
    telemetry.share(0, counts=False)
    try:
        assert client.post("/invocations", data="[[1]]").status_code == 200
        totals = telemetry.counters.totals()
        counted = [one for one in FAMILIES if one.kind == "counter"]
        assert {totals.of(one, label) for one in counted for label in one.values} == {0.0}
    finally:
        telemetry.share(0, counts=True)
    assert client.get("/metrics").status_code == 404


def test_rows_predictions_and_bytes_are_counted(loaded):
    server, body, before = loaded[2], "5.1,3.5,1.4,0.2\n" * 3, scraped(loaded[2])
    for _ in range(8):
        answer = server.post(body, "text/csv")
    after = scraped(server)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("skserve_rows_total") == 24
    assert grown("skserve_predictions_total") == 8
    assert grown("skserve_body_bytes_total", direction="in") == 8 * len(body)
    assert grown("skserve_body_bytes_total", direction="out") == 8 * len(answer.content)


def test_memory_is_what_the_processes_hold(loaded):
    server = loaded[2]

    def holds() -> bool:
        found = scraped(server)
        said = sum(value(found, "skserve_memory_bytes", kind=one) for one in ("shared", "private"))
        return said == pytest.approx(sum(map(_pss, [server.pid, *workers_of(server)])), rel=0.1)

    until(holds, 30)


def _pss(pid: int) -> int:
    found = re.search(r"Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert found
    return 1024 * int(found[1])


# ------------------------------------------------------------------------------------ many models


def test_many_models_have_one_set_of_series_and_a_few_each(models, tmp_path):
    many = {"SAGEMAKER_MULTI_MODEL": "true", "SKSERVE_MODEL_ROOT": str(models("iris").parent)}
    with serving(models("iris"), tmp_path / "log", **many) as server:
        for name in ("a/b", "c"):
            made = {"model_name": name, "url": str(models("iris"))}
            assert requests.post(server.url + "/models", json=made, timeout=60).ok
        call = server.url + "/models/{}/invoke"
        for _ in range(20):
            assert requests.post(call.format("a%2Fb"), "[[5.1, 3.5, 1.4, 0.2]]", timeout=60).ok
        assert requests.post(call.format("c"), "[[1]]", timeout=60).status_code == 400
        assert requests.post(call.format("none"), "[[1]]", timeout=60).status_code == 404
        found = scraped(server)
        gone = requests.delete(server.url + "/models/c", timeout=60)
        after = scraped(server)

    assert gone.ok
    assert statuses(found) == {"200": 20, "400": 1, "404": 1}
    assert value(found, "skserve_model_requests_total", model="a%2Fb") == 20
    assert value(found, "skserve_model_requests_total", model="c") == 1
    assert value(found, "skserve_model_errors_total", model="a%2Fb") == 0
    assert value(found, "skserve_model_errors_total", model="c") == 1
    assert value(found, "skserve_model_seconds_count", model="a%2Fb") == 20
    assert value(found, "skserve_model_seconds_sum", model="a%2Fb") > 0
    assert value(found, "skserve_rows_total") == 20
    assert value(found, "skserve_request_seconds_count", stage="predict") == 20
    assert value(found, "skserve_memory_bytes", kind="private") > 0
    assert value(after, "skserve_model_requests_total", model="c") == 1  # though it is unloaded


def test_only_the_first_fifty_models_that_are_called_have_series_of_their_own():
    made = Counters()
    places = [made.model(f"m{number}") for number in range(60)]

    assert places == [*range(50), *[OTHER_MODELS] * 10]
    assert made.model("m7") == 7
    assert made.models() == [f"m{number}" for number in range(50)]
    assert made.model("other") == OTHER_MODELS


def test_the_next_worker_goes_on_where_one_has_ended():
    made = Counters()
    made.share(1)
    region = made.join()
    made.use(region)
    made.threads.began()
    made.threads.began()
    made.threads.count(200, NO_MODEL, 1, 1, 10, 10, [0, 0, 0, 0, 0.1])
    made.poller.began()
    assert made.unfinished(region) == 2, "one of them in the poller"
    made.put("skserve_ready", "", 1)
    made.end("recycled")
    made.use(counters.MASTER)

    assert made.leave(region) == "recycled"
    assert made.join() == region
    assert made.leave(region) == ""
    by_name = {one.name: one for one in FAMILIES}
    assert made.totals().of(by_name["skserve_requests"], "200") == 1
    assert made.totals().of(by_name["skserve_requests_in_progress"]) == 0  # it died with the worker
    assert made.totals().of(by_name["skserve_ready"]) == 0


def test_a_worker_too_many_lets_no_counter_fall():
    """gunicorn starts more workers than were asked for at SIGTTIN."""
    made, by_name = Counters(), {one.name: one for one in FAMILIES}
    made.share(1)
    regions = [made.join(), made.join()]
    for region in (regions[0], regions[1], counters.MASTER):
        made.use(region)
        for _ in range(3):
            made.threads.began()
            made.threads.count(200, NO_MODEL, 1, 1, 10, 10, [0, 0, 0, 0, 0.1])

    assert regions[1] is None
    assert made.totals().of(by_name["skserve_rows"]) == 6, "those of the second are not known"
    assert (made.unfinished(None), made.leave(None)) == (0, "")
    assert made.join() is None, "it had no region to give back"


def test_a_request_that_the_poller_has_begun_is_in_progress_until_its_last_part():
    made, by_name = Counters(), {one.name: one for one in FAMILIES}

    def in_progress() -> float:
        return made.totals().of(by_name["skserve_requests_in_progress"])

    made.poller.began()
    assert in_progress() == 1
    made.poller.hand_on(made.threads)
    assert in_progress() == 1
    made.poller.began()
    assert in_progress() == 2, "the next one, while a thread sends the first"
    made.poller.count(200, NO_MODEL, 1, 1, 10, 10, [0, 0, 0, 0, 0.1])
    assert in_progress() == 1
    made.threads.count(200, NO_MODEL, 1, 1, 10, 10, [0, 0, 0, 0, 0.1])
    assert in_progress() == 0


def test_no_count_is_lost_between_the_poller_and_threads():
    made, by_name = Counters(), {one.name: one for one in FAMILIES}
    each, interval = 3000, sys.getswitchinterval()

    def count(region: Region) -> None:
        for _ in range(each):
            region.began()
            region.count(200, NO_MODEL, 2, 1, 10, 10, [1e-5, 0, 0, 0, 1e-4])

    regions = made.poller, made.threads, made.threads, made.threads
    threads = [threading.Thread(target=count, args=(one,)) for one in regions]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    totals, all_of_them = made.totals(), 4 * each
    assert totals.of(by_name["skserve_requests"], "200") == all_of_them
    assert totals.of(by_name["skserve_rows"]) == 2 * all_of_them
    assert totals.of(by_name["skserve_requests_in_progress"]) == 0
    for stage, bucket in (("decode", 0), ("total", 1)):
        counts, seconds = totals.histogram(by_name["skserve_request_seconds"], stage)
        assert counts[bucket] == sum(counts) == all_of_them
        assert seconds == pytest.approx(all_of_them * (1e-5 if bucket == 0 else 1e-4))


def test_the_process_of_a_model_of_many_keeps_nothing_of_the_shared_memory():
    made = Counters()
    made.share(3)
    shared = made._memory
    made.alone()
    made.add("skserve_log_lines_dropped")

    assert shared.closed
    assert made.models() == []


# ------------------------------------------------------------------------------------------ drift


def _frame() -> pd.DataFrame:
    return pd.DataFrame({"city": ["a", "b", "c"] * 4, "size": [1.0, 2.0, 5.0] * 4})


def _columns(*steps):
    return make_pipeline(ColumnTransformer(list(steps)), LogisticRegression()).fit(
        _frame(), [0, 1, 0] * 4
    )


IRIS = load_iris(return_X_y=True)
NUMBERS = np.array([[0.0, 10.0], [1.0, 20.0], [2.0, 30.0]])
SCALED = [[0.0, 10.0], [math.nan, 31.0], [-1.0, 9.0], [3.0, math.nan]]

DRIFT = {
    "none": (LogisticRegression().fit(NUMBERS, [0, 1, 0]), SCALED, (2, 0, 0)),
    "min and max": (MinMaxScaler().fit(NUMBERS), SCALED, (2, 0, 4)),
    "after an imputer": (
        make_pipeline(SimpleImputer(), MinMaxScaler()).fit(NUMBERS),
        SCALED,
        (2, 0, 4),
    ),
    "maximum": (MaxAbsScaler().fit(NUMBERS), SCALED, (2, 0, 2)),
    "quantiles": (QuantileTransformer(n_quantiles=3).fit(NUMBERS), SCALED, (2, 0, 4)),
    "bins": (
        KBinsDiscretizer(2, quantile_method="averaged_inverted_cdf").fit(NUMBERS),
        SCALED,
        (2, 0, 4),
    ),
    "numbers as categories": (OrdinalEncoder().fit(NUMBERS), SCALED, (2, 4, 0)),
    "a frame": (
        _columns(
            ("c", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("s", MinMaxScaler(), ["size"]),
        ),
        [["a", 1], ["zz", 9], [None, None], ["b", 0.5]],
        (2, 1, 2),
    ),
}


@pytest.mark.parametrize("name", DRIFT)
def test_cells_are_compared_with_what_the_model_learned(name):
    estimator, rows, expected = DRIFT[name]
    from skserve.formats.conform import Table, conform

    schema = Schema.of(estimator)
    found = Learned(schema).count(conform(Table(rows), schema))

    assert found is not None
    assert tuple(sum(columns) for columns in found) == expected


@given(st.lists(st.lists(st.floats(-5, 40), min_size=2, max_size=2), min_size=1, max_size=20))
def test_out_of_range_is_what_a_scaler_would_put_outside_of_its_range(rows):
    scaler = DRIFT["min and max"][0]
    X = np.array(rows)
    scaled = scaler.transform(X)
    found = Learned(Schema.of(scaler)).count(X)
    outside = int(((NUMBERS.min(axis=0) > X) | (NUMBERS.max(axis=0) < X)).sum())

    assert (sum(found[2]) if found else 0) == outside
    assert outside >= int(((scaled < -1e-9) | (scaled > 1 + 1e-9)).sum())


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"[[null, 2]]", "application/json"),
        (b"[null, 2]", "application/json"),
        (b"[[NaN, 2]]", "application/json"),
        (b"[NaN, 2]", "application/json"),
        ("[[NaN, 2]]".encode("utf-16"), "application/json; charset=utf-16"),
        (b'{"instances": [[NaN, 2]]}', "application/json"),
        (b'{"data": [[null, 2]]}', "application/json"),
        (b'{"instances": [{"features": [NaN, 2]}]}', "application/json"),
        (b"[NaN, 2]\n", "application/jsonlines"),
        (b"nan,2", "text/csv"),
        (b",2", "text/csv"),
    ],
)
def test_a_missing_cell_is_counted_however_it_is_spelled(body, content_type):
    X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 1.0]])
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, [0, 1, 1])
    handler = EstimatorHandler.of(model, None, Config())
    record = telemetry.begin("id")

    request = handler.decoded(Call(body, content_type), "application/json")

    assert np.isnan(request.X).sum() == 1
    assert record.cells == [[1, 0], [0, 0], [0, 0]]


def test_cells_are_counted_by_column_where_that_is_asked_for(models, tmp_path):
    settings = {"SKSERVE_METRICS_COLUMNS": "true", "SKSERVE_METRICS_PATH": "/own/metrics"}
    with serving(models("mixed"), tmp_path / "log", **settings) as server:
        answers = [server.post(json.dumps([row])).status_code for row in MIXED_ROWS]
        found = scraped(server, "/own/metrics")
        assert requests.get(server.url + "/metrics", timeout=10).status_code == 404

    assert answers == [200, 200, 400]
    assert value(found, "skserve_cells_total", kind="missing") == 1
    assert value(found, "skserve_cells_total", kind="unseen") == 1
    assert value(found, "skserve_column_cells_total", column="size", kind="missing") == 1
    assert value(found, "skserve_column_cells_total", column="code", kind="unseen") == 1
    assert value(found, "skserve_column_cells_total", column="note", kind="unseen") == 0


MIXED_ROWS = [["007", 1.0, "x"], ["7", None, "x"], ["8", 2.0, "x"]]


# ---------------------------------------------------------------------------------- documentation


def documented() -> dict[str, tuple[str, str]]:
    """Return the labels and the kind of each metric, as the table in docs/ has them."""
    text = (ROOT / "docs/90-slow-or-failing.md").read_text()
    rows = re.findall(r"(?m)^\| `(skserve_\w+)` \| (\w+) \| (.*?) \| ", text)
    return {name: (kind, ", ".join(sorted(labels.split(", ")))) for name, kind, labels in rows}


def served() -> dict[str, tuple[str, str]]:
    labels = dict.fromkeys(metrics.MODEL_LABELS, "")
    exposition = metrics.Exposition(lambda: labels, lambda: ["a"], many=True)
    telemetry.counters.model("first")
    found = {}
    for family in text_string_to_metric_families(exposition.text().decode()):
        names = sorted(set(family.samples[0].labels) - {"le"})
        said = ", ".join(f"`{name}`" for name in names)
        ending = "_total" if family.type == "counter" else ""
        found[family.name + ending] = family.type, said
    return found


def test_the_table_of_metrics_is_what_is_served():
    assert documented() == served()


def test_the_table_names_every_value_of_a_label():
    text = (ROOT / "docs/90-slow-or-failing.md").read_text()

    for family in FAMILIES:
        for one in family.values if family.label else ():
            assert re.search(rf"\| `{family.name}.*`{one}`", text), (family.name, one)


@pytest.mark.parametrize(
    ("many", "other"), [(False, {"404", "507", "418"}), (True, {"406", "408", "418"})]
)
def test_a_server_shows_ten_statuses_and_the_rest_as_other(many, other):
    exposition = metrics.Exposition(lambda: None, list, many)
    before = parsed(exposition.text().decode())
    answered = [*(int(one) for one in STATUSES if one.isdigit()), 418]
    for status in answered:
        telemetry.counters.threads.count(status, NO_MODEL, 0, 0, 0, 0, [0, 0, 0, 0, 0.1])
    after = parsed(exposition.text().decode())

    name = "skserve_requests_total"
    grown = {
        dict(labels)["status"]: number - before[named, labels]
        for (named, labels), number in after.items()
        if named == name
    }
    assert len(grown) == 10
    assert grown.pop("other") == len(other)
    assert set(grown) == set(map(str, answered)) - other
    assert set(grown.values()) == {1.0}


def test_reasons_that_no_list_has_are_counted_as_other():
    telemetry.begin("x")
    before = telemetry.counters.totals()
    telemetry.rejected("whatever")
    telemetry.rejected("memory")
    after = telemetry.counters.totals()
    (family,) = [one for one in FAMILIES if one.name == "skserve_rejected"]

    grown = {one: after.of(family, one) - before.of(family, one) for one in REJECTED}
    assert {one for one, count in grown.items() if count} == {"other", "memory"}
    assert len(ENDS) <= 10
    assert len(CELLS) <= 10


# --------------------------------------------------------------------- a real Prometheus server


@pytest.mark.parametrize(
    ("path", "taken"),
    [("/metrics", True), ("/a/b-c_d.e", True), ("metrics", False), ("/ping", False),
     ("/a/../b", False), ("/", False), ("/models/x", False), ("/a b", False)],
)  # fmt: skip
def test_a_path_for_the_metrics_is_one_that_sagemaker_takes(path, taken):
    from skserve.errors import StartError

    try:
        assert Config.from_env({"SKSERVE_METRICS_PATH": path}).metrics_path == path
        assert taken
    except StartError:
        assert not taken


def test_promtool_has_nothing_to_say(loaded):
    promtool = program("promtool")
    labels = dict.fromkeys(metrics.MODEL_LABELS, "x")
    many = metrics.Exposition(lambda: labels, lambda: ["a", 'b "c"\\\n'], many=True)

    for text in (requests.get(loaded[2].url + "/metrics", timeout=10).content, many.text()):
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")


@pytest.fixture(scope="module")
def ask(loaded, tmp_path_factory) -> Iterator[Ask]:
    """Return a function that runs a query in a real Prometheus server, which scrapes ours."""
    with scraping(loaded[2].url, tmp_path_factory.mktemp("prometheus")) as ask:
        for _ in range(6):
            loaded[2].post("[[5.1, 3.5, 1.4, null]]")
            loaded[2].post("[[5.1, 3.5, 1.4, 0.2]]")
            loaded[2].post(json.dumps([[5.1, 3.5, 1.4, 0.2]] * 4000))  # waits for a slot
            time.sleep(INTERVAL)
        yield ask


@pytest.mark.parametrize("name", queries())
def test_every_query_of_the_dashboard_finds_something(ask, name):
    found = ask(queries()[name])

    assert found
    assert all(not math.isnan(float(one["value"][1])) for one in found) or "/" in queries()[name]


def test_the_dashboard_shows_each_metric_of_a_single_model():
    asked = "".join(queries().values())
    shown = [name for name, (_, labels) in documented().items() if "`model`" not in labels]

    assert [name for name in shown if name not in asked and "column" not in name] == []


def test_queries_find_what_the_callers_counted(ask, loaded):
    (found,) = ask('sum(skserve_requests_total{status="415"})')

    number, lost = loaded[1]["415"], loaded[1]["lost"]  # those of a killed worker may be counted
    assert number <= float(found["value"][1]) <= number + lost


# ------------------------------------------------------------------------------- in the terminal


def test_watch_shows_rate_errors_quantiles_and_memory(loaded):
    done = subprocess.run(
        [ROOT / "local_test/watch.sh", "--once", loaded[2].url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert re.search(r"requests/s +\d", done.stdout)
    assert re.search(r"memory +\d+ MiB, of which shared \d+", done.stdout)
    assert re.search(r"workers +2, ready +crash: 3", done.stdout)
    assert {"decode", "queue", "predict", "encode", "total"} <= set(done.stdout.split())


def test_watch_says_where_nothing_answers():
    url = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run(
        [ROOT / "local_test/watch.sh", url], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"watch.sh: {url}/metrics does not answer: ")


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=50), st.sampled_from([0.5, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(seconds, share):
    from local_test import watch

    made = Counters()
    for one in seconds:
        made.threads.count(200, NO_MODEL, 0, 0, 0, 0, [0, 0, 0, 0, one])
    counted, _ = made.totals().histogram(FAMILIES[1], "total")
    name, so_far = "skserve_request_seconds_bucket", np.cumsum(counted)
    numbers = {
        (name, frozenset({"le": bound, "stage": "total"}.items())): float(count)
        for bound, count in zip([*map(str, BUCKETS), "+Inf"], so_far, strict=True)
    }
    found = watch.quantile(share, watch.Scrape(0, {}), watch.Scrape(1, numbers), "total")
    true = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    place = int(np.searchsorted(BUCKETS, true))

    assert found is not None
    assert [0, *BUCKETS][place] <= found <= [*BUCKETS, BUCKETS[-1]][place]
