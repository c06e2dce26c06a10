"""batch_local.sh: what it makes of a file is what one call for the whole file answers."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import ROOT, serving

SCRIPT = ROOT / "local_test" / "batch_local.sh"
ROWS = np.random.default_rng(0).normal(size=(2000, 3)).round(3).tolist()
FILES = {
    "rows.csv": "".join(",".join(map(str, row)) + "\n" for row in ROWS),
    "header.csv": "a,b,c\n" + "\r\n".join(",".join(map(str, row)) for row in ROWS),
    "rows.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
}
KINDS = {".csv": "text/csv", ".jsonl": "application/jsonlines"}


@pytest.fixture(scope="module")
def batch(models, tmp_path_factory):
    log = tmp_path_factory.mktemp("batch") / "log"
    settings = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"}
    with serving(models("named"), log, **settings) as server:
        yield server


def rounded(text: str) -> str:
    """Round floats: the last bits of a sum depend on how many rows are summed at once."""
    return re.sub(r"\d+\.\d+", lambda one: f"{float(one[0]):.6f}", text)


def transform(server, tmp_path: Path, *options: str, **files: str):
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, newline="")
    inputs = [str(folder / name) for name in files]
    command = [str(SCRIPT), *options, server.url, *inputs, str(tmp_path / "out")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [[], ["--payload-mb", "0.01"], ["--payload-mb", "0"]])
def test_its_output_is_that_of_a_single_call(batch, tmp_path, options):
    done = transform(batch, tmp_path, *options, "--concurrent", "3", **FILES)

    assert done.returncode == 0, done.stderr
    assert "3 files" in done.stderr
    for name, text in FILES.items():
        kind = KINDS[Path(name).suffix]
        whole = batch.post(text, kind, Accept=kind)
        out = (tmp_path / "out" / f"{name}.out").read_text()
        assert rounded(out) == rounded(whole.text)
        assert out.count("\n") == len(text.splitlines())


@pytest.mark.parametrize("name", FILES)
def test_lines_are_joined_with_their_answers(batch, tmp_path, name):
    done = transform(batch, tmp_path, "--join", "--payload-mb", "0.01", **{name: FILES[name]})

    assert done.returncode == 0, done.stderr
    records = FILES[name].splitlines()
    lines = (tmp_path / "out" / f"{name}.out").read_text().splitlines()
    for record, line in zip(records, lines, strict=True):
        if name.endswith("csv"):
            assert line.startswith(record + ",")
        else:
            assert json.loads(line)["SageMakerInput"] == json.loads(record)


def test_one_record_a_call(batch, tmp_path):
    text = "".join(FILES["rows.csv"].splitlines(keepends=True)[:5])
    done = transform(batch, tmp_path, "--single", **{"five.csv": "a,b,c\n" + text})

    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "five.csv.out").read_text().splitlines()
    assert lines[0] == "prediction"
    assert len(lines) == 6


def test_a_refused_mini_batch_ends_the_job_with_the_servers_words(batch, tmp_path):
    text = FILES["rows.csv"] + "1,x,3\n"
    done = transform(batch, tmp_path, **{"bad.csv": text})

    assert done.returncode == 1
    assert "Line 2001, column 'b': expected a number, got 'x'" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


class Flaky(BaseHTTPRequestHandler):
    """Refuses the first calls, echoes the others, and has no execution parameters."""

    protocol_version = "HTTP/1.1"
    refusals = 2

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/ping" else 404, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Flaky.refusals -= 1
        self.answer(503 if Flaky.refusals >= 0 else 200, body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_what_may_pass_is_sent_again(tmp_path):
    stub = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{stub.server_port}"
    try:
        done = transform(SimpleNamespace(url=url), tmp_path, **{"a.csv": "1\n2\n3"})
    finally:
        stub.shutdown()
        stub.server_close()

    assert done.returncode == 0, done.stderr
    assert "1 calls at once, 6 MB" in done.stderr
    assert "3 lines" in done.stderr
    assert "2 sent again" in done.stderr
    assert (tmp_path / "out" / "a.csv.out").read_text() == "1\n2\n3\n"
