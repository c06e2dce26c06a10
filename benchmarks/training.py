"""What memory training takes beside its data: the 180,000 x 300 wine index from npy and from CSV.

usage: python benchmarks/training.py [IMAGE [--rows N]]      (needs Docker)

Each training runs in a container of the image without swap and under a memory limit of the ratio
that is promised, so a training that needs more is killed. Peak is the most that the process held at
one moment (ru_maxrss), Python and scikit-learn included, over the bytes of the data as float64.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "wine_at_scale"
COLUMNS = 300
PROMISED = {"npy": 2.2, "csv": 3.0}  # times the data
FULL = 180_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", default="skserve:1.9")
    parser.add_argument("--rows", type=int, default=FULL)
    given = parser.parse_args()
    print(f"{'data':6}{'MiB':>7}{'limit MiB':>11}{'peak MiB':>10}{'of the data':>13}{'s':>7}")
    held = True
    for kind, promised in PROMISED.items():
        with tempfile.TemporaryDirectory() as scratch:
            size = given.rows * COLUMNS * 8
            limit = int(size * promised)
            peak, seconds = train(Path(scratch), kind, given.rows, given.image, limit)
            ratio = peak * 2**20 / size
            held = held and ratio < promised
            print(f"{kind:6}{size / 2**20:7.0f}{limit / 2**20:11.0f}{peak:10.0f}"
                  f"{ratio:11.2f} x{seconds:7.1f}", flush=True)  # fmt: skip
    # With little data, Python and scikit-learn themselves are most of it.
    sys.exit(given.rows >= FULL and not held)


def train(base: Path, kind: str, rows: int, image: str, limit: int) -> tuple[float, float]:
    """Train in a container; return its peak memory in MiB, and seconds."""
    data, config = base / "input" / "data", base / "input" / "config"
    generate = [sys.executable, str(EXAMPLE / "generate.py"), str(data), "--rows", str(rows)]
    subprocess.run([*generate, "--format", kind], check=True)
    config.mkdir(parents=True)
    hyperparameters = json.loads((EXAMPLE / "hyperparameters.json").read_text())
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    (config / "inputdataconfig.json").write_text('{"train": {}}')
    limits = ["--memory", str(limit), "--memory-swap", str(limit)] if rows >= FULL else []
    began = time.perf_counter()
    done = subprocess.run(
        ["docker", "run", "--rm", *limits, "--user", f"{os.getuid()}:{os.getgid()}",
         "-v", f"{base}:/opt/ml", image, "train"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    peak = re.search(r"at most (\d+) MiB", done.stderr)
    if done.returncode or not peak:
        raise SystemExit(done.stderr)
    return float(peak[1]), seconds


if __name__ == "__main__":
    main()
