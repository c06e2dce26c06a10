"""Ask a running recommender for wines like one of the catalogue, and print their names.

usage: python recommend.py CATALOGUE [--wine 0] [--url http://127.0.0.1:8080]

CATALOGUE is the folder that generate.py has made.
"""

from __future__ import annotations

import argparse
import io
import urllib.request
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--wine", type=int, default=0)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    given = parser.parse_args()
    names = (given.catalogue / "names.csv").read_text("utf-8").splitlines()
    wines = np.load(given.catalogue / "train" / "wines.npy", mmap_mode="r")
    print(f"Like {names[given.wine]}:")
    distances, indices = nearest(given.url, wines[given.wine])
    for distance, index in zip(distances, indices.astype(int), strict=True):
        if index != given.wine:
            print(f"  {distance:.3f}  {names[index]}")


def nearest(url: str, wine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances and indices of the nearest wines: the answer's shape is (1, 2, n)."""
    stream = io.BytesIO()
    np.save(stream, wine.reshape(1, -1))
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
    request = urllib.request.Request(f"{url}/invocations", stream.getvalue(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        distances, indices = np.load(io.BytesIO(answer.read()))[0]
    return distances, indices


if __name__ == "__main__":
    main()
