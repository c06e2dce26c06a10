"""The same work without any server, in this process: what no server can be quicker than.

usage: python -m benchmarks.floors KIND FILE SECONDS      prints the median and best ms

neighbours  scikit-learn's own answer for one row; FILE is the model
csv, json   parse the bytes of FILE into float64, with pandas.read_csv or orjson.loads
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def measured(kind: str, file: Path, seconds: float) -> dict[str, float]:
    """Return the figures of one floor, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.floors", kind, str(file), str(seconds)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return dict(json.loads(done.stdout))


def _neighbours(file: Path) -> Callable[[], object]:
    import joblib

    model = joblib.load(file)
    with np.load(file.parent.parent / "case.npz") as saved:
        rows = saved["rows"]
    turn = iter(range(sys.maxsize))
    return lambda: model.kneighbors(rows[[next(turn) % len(rows)]])


def _csv(file: Path) -> Callable[[], object]:
    import pandas as pd

    body = file.read_bytes()
    return lambda: pd.read_csv(io.BytesIO(body), header=None).to_numpy()


def _json(file: Path) -> Callable[[], object]:
    import orjson

    body = file.read_bytes()
    return lambda: np.asarray(orjson.loads(body))


FLOORS = {"neighbours": _neighbours, "csv": _csv, "json": _json}


def main(kind: str, file: str, seconds: str) -> None:
    work = FLOORS[kind](Path(file))
    work()
    took: list[float] = []
    ending = time.perf_counter() + float(seconds)
    while time.perf_counter() < ending or len(took) < 3:
        began = time.perf_counter()
        work()
        took.append(1e3 * (time.perf_counter() - began))
    print(json.dumps({"p50_ms": statistics.median(took), "best_ms": min(took)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
