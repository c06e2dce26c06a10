"""Every decoder, fuzzed for a while by what code a body reaches."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skserve.formats import arrow as arrow_formats
from skserve.formats.answer import Answer
from skserve.formats.catalogue import ENCODERS
from skserve.formats.media_types import NPY, NPZ, RECORDIO
from tests import decoding
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris is not installed"),
]

SECONDS = int(os.environ.get("SKSERVE_FUZZ_SECONDS", "30"))

X = np.array([[1.5, -2.0, 3e9], [0.0, np.nan, 1.0]])


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"a": [1.0], "b": [2], "c": ["x"]}), stream)
    return stream.getvalue()


def arrow(new: type) -> bytes:
    stream, table = io.BytesIO(), pa.table({"a": [1.0], "b": [2], "c": ["x"]})
    with new(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


# Bodies to begin with; texts have what is said in their own grammar.
SEEDS: dict[str, list[bytes]] = {
    "application/json": [
        b"[[1,2.5,3]]",
        b'{"instances":[{"a":1,"b":null,"c":"x"}],"method":"predict"}',
        b'{"columns":["a","b","c"],"data":[[1,2,3]],"index":[0]}',
        b'{"inputs":[1e308,-0.0,9007199254740993]}',
        b'["a text","\\ud83d\\ude00"]',
    ],
    "text/csv": [b"a,b,c\r\n1,2,3\n", b'1,"2.5",\n"x ""y""",,-1e-7\n', b"\xef\xbb\xbf1,2,3"],
    "application/jsonlines": [b'[1,2,3]\n{"a":1,"b":2,"c":3}\n\n', b'"a text"\n"b"\n'],
    "text/libsvm": [b"1 0:1.5 2:3 # x\n-1 1:2\n", b"qid:3 0:1"],
    NPY: [ENCODERS[NPY](Answer((X,)), False)],
    NPZ: [ENCODERS[NPZ](Answer((X,)), False)],
    RECORDIO: [ENCODERS[RECORDIO](Answer((X,)), False)],
    "application/x-parquet": [parquet()],
    "application/vnd.apache.arrow.stream": [arrow(pa.ipc.new_stream)],
    "application/vnd.apache.arrow.file": [arrow(pa.ipc.new_file)],
}


@pytest.mark.parametrize("content_type", decoding.kinds())
def test_no_body_breaks_a_decoder(content_type, tmp_path):
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    known = [path.read_bytes() for path in decoding.folder_of(content_type).glob("*")]
    for number, body in enumerate([*SEEDS.get(content_type, []), *known]):
        (seeds / str(number)).write_bytes(body)
    found = tmp_path / "found"
    found.mkdir()
    command = [sys.executable, "-m", "tests.fuzz_decoders", content_type]
    command += [f"-max_total_time={SECONDS}", "-timeout=120", "-rss_limit_mb=3000"]
    command += ["-max_len=4096", "-print_final_stats=1", str(found), str(seeds)]
    path = os.pathsep.join([str(ROOT / "container"), str(ROOT)])

    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )

    last = [line for line in done.stderr.splitlines() if "stat::" in line or "artifact" in line]
    print(content_type, *last, sep="\n")
    assert done.returncode == 0, done.stderr[-5000:]
    if content_type not in arrow_formats.FORMS:  # those are read by C++, in another process
        assert len(list(Path(found).iterdir())) > 0
