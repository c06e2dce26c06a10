"""The page of a served model, in a real Chromium: what a person can do there, and what is refused.

Without Chromium or axe-core these are skipped, unless SKSERVE_REQUIRE_BROWSER=1: `.ci/run` installs
both.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import requests
import schemathesis
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from schemathesis import GenerationMode

from skserve.config import Config
from skserve.inference.model import Model
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.slots import Slots
from skserve.serving.routes import create_app
from tests import page_models
from tests.chromium import CONTROL, ENTER, FOUND, SHIFT, TAB, browsing
from tests.conftest import ROOT, serving
from tests.test_openapi import hold, operations

PAGE = ROOT / "container" / "skserve" / "serving" / "page"
AXE = ROOT / "build" / "node_modules" / "axe-core" / "axe.min.js"
REQUIRED = os.environ.get("SKSERVE_REQUIRE_BROWSER") == "1"

in_browser = pytest.mark.skipif(
    not (FOUND or REQUIRED), reason="needs Debian's chromium and chromium-driver"
)
with_axe = pytest.mark.skipif(
    not (AXE.exists() or REQUIRED), reason="needs npm install --prefix build axe-core"
)
NAMED = ["text", "wine", "scaled", "script", "hostile", "numbers", "wide", "many"]
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    for name in ["mixed", "iris", *NAMED]:
        page_models.make(name, root)
    return root


@pytest.fixture(scope="module")
def mixed(folder):
    with serving(folder / "mixed", folder / "log", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        yield server


@pytest.fixture(scope="module")
def many(folder):
    """A server of many models, whose names a page could take for markup too."""
    environ = {"SAGEMAKER_MULTI_MODEL": "true", "SKSERVE_MODEL_ROOT": str(folder)}
    environ |= {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with serving(folder, folder / "log-many", **environ) as server:
        for name in ["iris", *NAMED]:
            body = {"model_name": name, "url": str(folder / name)}
            assert requests.post(server.url + "/models", json=body, timeout=60).status_code == 200
        body = {"model_name": page_models.HOSTILE[0], "url": str(folder / "iris")}
        assert requests.post(server.url + "/models", json=body, timeout=60).status_code == 200
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("chromium")) as one:
        yield one


def open_model(browser, server, name: str | None = None) -> None:
    """Open the page, of one of many models where it has a name, and wait until it is there."""
    browser.open("about:blank")
    browser.open(server.url + "/" + ("" if name is None else "#" + quote(name, safe="!'()*")))
    browser.wait("#summary", "Answers")


def predict(browser) -> str:
    browser.click("#form .primary")
    return browser.wait("#outcome", "answered in")


def answers(browser) -> list[str]:
    return browser.script(
        "return [...document.querySelectorAll('.answer')].map(one => one.innerText.trim())"
    )


# ------------------------------------------------------------------------------------- one row


@in_browser
def test_a_row_of_lists_and_blanks_is_predicted_with_its_classes_as_bars(browser, mixed):
    open_model(browser, mixed)
    browser.script("document.querySelector('#cell-0-0').value = '2'")  # of missing, 007, Biscoe
    browser.script("document.querySelector('#cell-0-0').dispatchEvent(new Event('change'))")
    browser.type("#cell-0-2", "")

    predict(browser)

    [shown] = answers(browser)
    said = mixed.post('{"instances": [["Dream", false, null]], "method": "predict_proba"}').json()
    shares = dict(zip(["small", "tall", "wide"], said["predictions"][0], strict=True))
    assert shown.split("\n")[0] == max(shares, key=shares.__getitem__)
    for name, share in shares.items():
        assert name in shown
        assert f"{100 * share:.1f} %" in shown or f"{100 * share:.2f} %" in shown
    assert '["Dream", false, null]' in browser.text("#call")
    assert browser.text("#cell-0-2-hint") == "number, 2850 to 5140 seen"
    browser.type("#cell-0-2", "4000")
    assert answers(browser) == [""]  # what was answered to another row is gone


@in_browser
def test_the_curl_line_that_is_copied_answers_as_the_page_does(browser, mixed):
    open_model(browser, mixed)
    browser.type("#cell-0-2", "4100.25")
    predict(browser)

    browser.click("#copy")
    browser.wait("#copied", "Copied")
    done = subprocess.run(browser.clipboard(), shell=True, capture_output=True, check=True)

    assert answers(browser)[0].startswith(json.loads(done.stdout)["predictions"][0])


@pytest.fixture
def runtime(mixed):
    """The address of SageMaker's runtime, which hands each call on to the server of the page."""

    class Runtime(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/endpoints/my-endpoint/invocations"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            names = ("Content-Type", "Accept")
            said = mixed.post(body, **{name: self.headers[name] for name in names})
            self.send_response(said.status_code)
            self.send_header("Content-Length", str(len(said.content)))
            self.end_headers()
            self.wfile.write(said.content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Runtime) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@in_browser
@pytest.mark.parametrize("language", ["boto3", "Python"])
def test_the_call_in_python_answers_as_the_page_does(browser, mixed, runtime, language):
    open_model(browser, mixed)
    browser.type("#cell-0-2", "4100.25")
    browser.script(
        "const list = document.querySelector('#language'); list.value = arguments[0];"
        "list.dispatchEvent(new Event('change'))",
        language,
    )
    predict(browser)

    environ = {"AWS_ENDPOINT_URL": runtime, "AWS_DEFAULT_REGION": "eu-west-1"}
    environ |= {"AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up"}
    code = [sys.executable, "-c", browser.text("#call")]
    done = subprocess.run(code, capture_output=True, check=True, env=os.environ | environ)

    said = done.stdout.decode()
    assert json.loads(said[said.index("{") :])["predictions"][0] == answers(browser)[0].split()[0]


@in_browser
def test_an_error_is_shown_beside_the_cell_that_it_names(browser, mixed):
    open_model(browser, mixed)
    browser.click("#add")
    browser.type("#cell-1-2", "heavy")

    browser.click("#form .primary")
    message = browser.wait("#cell-1-2-error", "expected a number")

    assert "heavy" in message
    assert browser.script("return document.activeElement.id") == "cell-1-2"
    assert browser.all("[aria-invalid]") == browser.all("#cell-1-2")
    browser.type("#cell-1-2", "4000")
    assert browser.text("#cell-1-2-error") == ""


@in_browser
@pytest.mark.parametrize(
    "rows",
    [
        "Dream\tTRUE\t4100.5\n007\tfalse\t\nBiscoe\tFALSE\t3900\n",
        "mass\tisland\ttagged\n4100.5\tDream\tTRUE\n\t007\tfalse\n3900\tBiscoe\tFALSE",
        "Dream,true,4100.5\n007,false,\nBiscoe,false,3900",
    ],
    ids=["spreadsheet", "with its header, in another order", "commas"],
)
def test_three_rows_are_pasted_and_answered(browser, mixed, rows):
    open_model(browser, mixed)
    browser.click("#cell-0-2")
    browser.paste(rows)
    browser.wait("#outcome", "3 rows pasted")

    predict(browser)

    body = '{"instances": [["Dream", true, 4100.5], ["007", false, null], ["Biscoe", false, 3900]]}'
    assert body in browser.text("#call")
    expected = mixed.post(body).json()["predictions"]
    assert [one.split("\n")[0] for one in answers(browser)] == expected


@in_browser
def test_the_keyboard_alone_fills_a_row_and_predicts(browser, mixed):
    open_model(browser, mixed)
    browser.press(TAB, TAB)  # the link, the first field
    assert browser.script("return document.activeElement.id") == "cell-0-0"
    browser.press("D", TAB, "t", TAB, CONTROL + "a", *"3500", TAB)
    assert browser.script("return document.activeElement.innerText") == "Predict"
    browser.press(SHIFT + TAB, CONTROL + ENTER)

    browser.wait("#outcome", "answered in")

    assert '["Dream", true, 3500]' in browser.text("#call")
    seen = browser.script("return getComputedStyle(document.activeElement).outlineStyle")
    assert seen == "solid"


# --------------------------------------------------------------------------------- a whole file


@in_browser
def test_a_dropped_file_shows_progress_is_cancelled_goes_on_and_is_saved(browser, mixed, tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "herd.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["mass", "tagged", "island"])
        writer.writerows(
            zip(rng.normal(4000, 500, 50_000).round(1), [True, False] * 25_000,
                rng.choice(["Biscoe", "Dream", "007", 'a "new", one'], 50_000), strict=True)
        )  # fmt: skip
    open_model(browser, mixed)
    browser.attach("#chosen", path)  # read by the browser, and dropped as a person would
    browser.until(lambda: browser.script("return !document.querySelector('#run').hidden"), "opened")
    assert browser.script("return document.querySelector('#run-header').checked")

    browser.click("#run-start")
    part = "return document.querySelector('#run-progress').value"
    browser.wait("#run-outcome", "rows answered")
    browser.click("#run-cancel")
    browser.wait("#run-outcome", "Cancelled")
    assert 0 < browser.script(part) < 1
    browser.click("#run-save")
    saved = browser.saved / "herd-answers.csv"
    browser.until(saved.exists, "nothing is saved")
    begun = len(read(saved))
    saved.unlink()
    browser.click("#run-start")
    browser.wait("#run-outcome", "All 50,000 rows answered")
    browser.click("#run-save")
    browser.until(saved.exists, "nothing is saved")

    rows, given = read(saved), read(path)
    expected = mixed.post(path.read_bytes(), "text/csv", Accept="text/csv").text.splitlines()
    assert 1 < begun < len(rows)
    assert rows[0] == [*given[0], "predict"]
    assert [row[:3] for row in rows] == given
    assert [row[3] for row in rows[1:]] == expected
    saved.unlink()


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@in_browser
def test_a_bad_row_of_a_file_is_named_and_can_be_skipped(browser, mixed, tmp_path):
    path = tmp_path / "bad.csv"
    lines = ["Dream,true,4000"] * 2500
    lines[1700] = "Dream,true,heavy"
    path.write_text("\n".join(lines) + "\n\n")
    open_model(browser, mixed)
    browser.attach("#chosen", path)

    browser.click("#run-start")
    said = browser.wait("#run-outcome", "expected a number")
    browser.click("#run-skip")
    browser.wait("#run-outcome", "All 2,500 rows answered. 1 row skipped.")
    browser.click("#run-save")
    saved = browser.saved / "bad-answers.csv"
    browser.until(saved.exists, "nothing is saved")

    assert said.startswith("Row 1,701, column 'mass'")
    assert "1,700 rows answered" in said
    assert [row[3] == "" for row in read(saved)] == [at == 1700 for at in range(2500)]
    saved.unlink()


@in_browser
def test_a_file_is_taken_where_it_is_dropped(browser, mixed):
    open_model(browser, mixed)
    browser.script(
        "const held = new DataTransfer();"
        "held.items.add(new File(['Dream,true,4000\\n'], '<b>.csv'));"
        "const drop = new DragEvent('drop', {dataTransfer: held, bubbles: true, cancelable: true});"
        "document.querySelector('#drop').dispatchEvent(drop);"
    )
    assert browser.wait("#run-name", "csv") == "<b>.csv"
    browser.click("#run-start")

    browser.wait("#run-outcome", "All 1 row answered")


@in_browser
def test_a_file_that_is_no_utf8_is_refused_with_a_sentence(browser, mixed, tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("Düne,true,1\n".encode("latin-1"))
    open_model(browser, mixed)

    browser.attach("#chosen", path)

    browser.wait("#run-outcome", "not UTF-8")


# ----------------------------------------------------------------------------------- many models


@in_browser
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("iris", "0\n"),
        ("text", "g"),
        ("wine", "row "),
        ("scaled", "-7.080243"),
        (page_models.HOSTILE[0], "0\n"),
    ],
)
def test_each_of_many_models_is_tried_under_its_name(browser, many, name, shown):
    open_model(browser, many, name)
    assert browser.text("#title") == name
    if name == "text":
        browser.type("#cell-0-0", "good wine, fine")

    predict(browser)

    assert answers(browser)[0].startswith(shown)
    browser.click("#copy")
    done = subprocess.run(browser.clipboard(), shell=True, capture_output=True, check=True)
    assert "predictions" in json.loads(done.stdout)


@in_browser
def test_a_script_that_reads_itself_is_offered_a_raw_body(browser, many):
    open_model(browser, many, "script")
    assert "input_fn" in browser.wait("#raw-why", "only the script knows")
    assert not browser.script("return document.querySelector('#try').checkVisibility()")
    browser.click("#raw .primary")
    browser.wait("#raw-outcome", "400: semicolons between numbers are expected")
    browser.type("#raw-type", "text/plain")
    browser.type("#raw-text", "5.1;3.5;1.4;0.2\n6.3;3.3;6.0;2.5")

    browser.click("#raw .primary")
    browser.wait("#raw-outcome", "200 in")

    assert browser.text("#raw-answer") == "[0,2]"
    browser.click("#copy")
    done = subprocess.run(browser.clipboard(), shell=True, capture_output=True, check=True)
    assert done.stdout == b"[0,2]"


@in_browser
def test_a_script_is_sent_a_file_as_it_is(browser, many, tmp_path):
    path = tmp_path / "the 'rows'.npy"
    np.save(path, [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])
    open_model(browser, many, "script")
    browser.attach("#raw-file", path)
    browser.wait("#raw-name", "the 'rows'.npy, 192 bytes, is sent as it is.")
    assert browser.script("return document.querySelector('#raw-type').value") == "application/x-npy"
    browser.type("#raw-accept", "application/x-npy")

    browser.click("#raw .primary")
    browser.wait("#raw-outcome", "200 in")
    browser.click("#raw-save")
    saved = browser.saved / "answer"
    browser.until(saved.exists, "nothing is saved")

    assert np.load(saved).tolist() == [0, 2]
    saved.unlink()
    browser.click("#copy")
    called = browser.clipboard()
    done = subprocess.run(called, shell=True, capture_output=True, check=True, cwd=tmp_path)
    assert np.load(io.BytesIO(done.stdout)).tolist() == [0, 2]
    browser.click("#raw-write")
    assert browser.script("return document.querySelector('#raw-text').checkVisibility()")


def test_each_of_many_models_describes_itself(many):
    for name in ("iris", "script", page_models.HOSTILE[0]):
        path = f"{many.url}/models/{quote(name, safe='')}"
        described = requests.options(path + "/invoke", timeout=30)
        document = requests.get(path + "/openapi.json", timeout=30).json()

        assert described.json()["model"] == "LogisticRegression"
        assert list(document["paths"]) == [f"/models/{quote(name, safe='')}/invoke"]
    assert many.ping() == 200
    lost = requests.options(many.url + "/models/lost/invoke", timeout=30)
    assert (lost.status_code, lost.json()["type"]) == (404, "ModelNotFoundException")


@pytest.mark.parametrize("path", ["/models/text/openapi.json", "/openapi.json"])
def test_a_server_of_many_models_answers_as_described(many, path):
    schema = schemathesis.openapi.from_url(many.url + path)
    schema.config.update(base_url=many.url)
    for operation in operations(schema):
        hold(operation, GenerationMode.POSITIVE, 5)


def test_a_server_of_many_models_lists_them_for_programs_too(many):
    listed = requests.get(many.url + "/", timeout=30).json()

    assert listed == requests.get(many.url + "/models", timeout=30).json()
    assert {one["modelName"] for one in listed["models"]} >= {"iris", *NAMED}


# -------------------------------------------------------------------------------- figures


@in_browser
def test_the_figures_of_metrics_are_shown_as_they_are(browser, mixed):
    registry = CollectorRegistry()
    requests_total = Counter("skserve_requests", "-", ["status"], registry=registry)
    requests_total.labels("200").inc(1234)
    requests_total.labels("other").inc(1)
    seconds = Histogram("skserve_request_seconds", "-", ["stage"], registry=registry)
    seconds.labels("total").observe(0.02)
    Gauge("skserve_memory_bytes", "-", ["kind"], registry=registry).labels("shared").set(50 << 20)
    text = generate_latest(registry).decode()
    open_model(browser, mixed)
    look = (
        "const [text, status, done] = arguments;"
        "document.querySelector('#figures').hidden = true;"
        "window.fetch = async () => new Response(text, {status});"
        "import('/page/figures.js').then(async (figures) => {"
        "  const read = figures.read(text); await figures.follow(); done(read);"
        "})"
    )

    browser.later(look, "", 404)  # as where SKSERVE_METRICS is off
    assert not browser.script("return document.querySelector('#figures').checkVisibility()")
    read = browser.later(look, text, 200)

    families = text_string_to_metric_families(text)
    expected = [(one.name, one.labels) for family in families for one in family.samples]
    assert [(one["name"], one["labels"]) for one in read] == expected
    shown = browser.wait("#figures", "1,235")
    assert "50 MiB" in shown


# ------------------------------------------------------------------------- hostile names


@in_browser
def test_names_and_categories_that_look_like_markup_are_text(browser, many):
    open_model(browser, many, "hostile")
    names = browser.script(
        "return [...document.querySelectorAll('.field label .name')].map(one => one.textContent)"
    )
    assert names == page_models.HOSTILE
    options = browser.script(
        "return [...document.querySelector('#cell-0-0').options].map(one => one.text)"
    )
    assert [one.split() for one in options[1:-1]] == [
        sorted(page_models.HOSTILE)[at].split() for at in range(6)
    ]
    predict(browser)

    assert browser.script("return document.querySelectorAll('main img, main script').length") == 0
    browser.click("#copy")
    done = subprocess.run(browser.clipboard(), shell=True, capture_output=True, check=True)
    [answer] = json.loads(done.stdout)["predictions"]
    assert answer in page_models.HOSTILE
    shown = browser.script("return document.querySelector('.value').textContent")
    assert shown == answer
    assert [one for one in browser.log() if "Failed to load resource" not in one] == []


@in_browser
def test_an_error_finds_its_cell_by_any_name(browser, many):
    open_model(browser, many, "numbers")
    for at in range(6):
        field = f"#cell-0-{at}"
        browser.type(field, "x")
        browser.click("#form .primary")
        browser.wait(f"{field}-error", "expected a number")
        browser.type(field, "0")


@in_browser
def test_an_error_finds_its_cell_among_10_000(browser, many):
    open_model(browser, many, "wide")
    browser.type("#find", "9999")
    browser.type("#cell-0-9999", "x")
    browser.type("#find", "")
    browser.click("#form .primary")

    browser.wait("#cell-0-9999-error", "expected a number")


@in_browser
def test_a_model_of_10_000_columns_or_categories_stays_usable(browser, many):
    open_model(browser, many, "wide")
    assert len(browser.all(".field")) == 60
    assert "of 10,000 columns" in browser.text("#shown")
    predict(browser)
    open_model(browser, many, "many")
    assert len(browser.all("#cell-0-0 option")) < 300
    predict(browser)

    browser.click("#cell-0-0")
    browser.script(
        "const list = document.querySelector('#cell-0-0'); list.value = 'other';"
        "list.dispatchEvent(new Event('change'))"
    )
    browser.type("#cell-0-0", page_models.many_names()[9_999])
    predict(browser)

    place = sorted(page_models.many_names()).index(page_models.many_names()[9_999])
    assert float(answers(browser)[0]) > 0
    assert place > 200


# --------------------------------------------------------------------------------- for everyone


@in_browser
@with_axe
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["wine", "script", "hostile", "wide"])
def test_axe_finds_no_serious_fault(browser, many, name, dark):
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.cdp("Emulation.setEmulatedMedia", features=[scheme])
    open_model(browser, many, name)
    if name != "script":
        predict(browser)
    browser.script(AXE.read_text())

    found = browser.later("axe.run().then(arguments[0])")["violations"]

    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], one["nodes"][0]["html"]) for one in serious] == []


@in_browser
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_window(browser, many, width):
    open_model(browser, many, "hostile")
    browser.cdp("Emulation.setDeviceMetricsOverride", width=width, height=800,
                deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
    try:
        predict(browser)
        assert browser.script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.cdp("Emulation.clearDeviceMetricsOverride")


# ------------------------------------------------------------------------------------ the files


def test_the_page_is_small_and_loads_nothing_from_elsewhere():
    files = [one for one in PAGE.iterdir() if one.stem != "diagram"]

    assert sum(one.stat().st_size for one in files) <= 60_000
    for one in files:
        text = one.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text


@pytest.mark.parametrize("path", ["/", *(f"/page/{one.name}" for one in sorted(PAGE.iterdir()))])
def test_each_file_has_an_etag_and_a_strict_policy(mixed, path):
    answer = requests.get(mixed.url + path, headers=HTML, timeout=30)
    etag = {"If-None-Match": answer.headers["ETag"]}
    again = requests.get(mixed.url + path, headers=HTML | etag, timeout=30)

    assert answer.status_code == 200
    assert (again.status_code, again.content) == (304, b"")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["..%2Froutes.py", "%2e%2e/routes.py", "nothing.js", "page.css/", "%00"]
)
def test_no_other_file_is_served(mixed, path):
    assert requests.get(f"{mixed.url}/page/{path}", timeout=30).status_code == 404


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/html;q=0.9", "application/json"),
        ("text/html", "text/html; charset=utf-8"),
        (HTML["Accept"], "text/html; charset=utf-8"),
    ],
)
def test_programs_are_answered_with_json_and_browsers_with_the_page(mixed, accept, kind):
    answer = requests.get(mixed.url + "/", headers={"Accept": accept}, timeout=30)

    assert answer.headers["Content-Type"] == kind
    assert "Accept" in answer.headers["Vary"]


def test_the_page_is_off_where_a_setting_says_so(folder):
    config = Config.from_env({"SKSERVE_PAGE": "off"})
    registry = LocalModel(Slots(1, 1, timeout=1), Model.load(folder / "iris", config))
    client = create_app(registry, config, Bodies(1 << 20)).test_client()

    root = client.get("/", headers=HTML)
    assert root.headers["Content-Type"] == "application/json"
    assert root.json["model"] == "LogisticRegression"
    assert client.get("/page/main.js").status_code == 404
