"""Make a catalogue of wines: an embedding of 300 numbers for each, in clusters, and a name.

usage: python generate.py FOLDER [--rows 180000] [--format npy|csv]

The same numbers come out each time. FOLDER gets `train/wines.npy` (rows, 300) float64 of unit
scale, `names.csv` with one name a line, and `request.json`, the embedding of the first wine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

COLUMNS, STYLES, SEED = 300, 240, 180_300

GRAPES = ("Riesling", "Syrah", "Nebbiolo", "Grenache", "Furmint", "Chenin", "Tempranillo", "Malbec")
PLACES = ("Mosel", "Rhône", "Piemonte", "Priorat", "Tokaj", "Loire", "Rioja", "Mendoza", "Douro")
ESTATES = ("Alt", "Bellevue", "Castell", "Dorn", "Encina", "Fonte", "Grange", "Horn", "Isola")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=180_000)
    parser.add_argument("--format", choices=("npy", "csv"), default="npy")
    given = parser.parse_args()
    train = given.folder / "train"
    train.mkdir(parents=True, exist_ok=True)
    wines, styles = catalogue(given.rows)
    if given.format == "npy":
        np.save(train / "wines.npy", wines)
    else:
        write_csv(wines, train / "wines.csv")
    (given.folder / "names.csv").write_text("\n".join(names(styles)) + "\n", "utf-8")
    (given.folder / "request.json").write_text(json.dumps([wines[0].tolist()]) + "\n")


def catalogue(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings, (rows, 300), and the style, a cluster, of each wine, (rows,)."""
    random = np.random.default_rng(SEED)
    centres = random.normal(size=(STYLES, COLUMNS))
    shares = random.dirichlet(np.full(STYLES, 2.0))  # some styles are common, some are rare
    styles = random.choice(STYLES, size=rows, p=shares)
    wines = np.empty((rows, COLUMNS))
    for start in range(0, rows, 10_000):
        block = centres[styles[start : start + 10_000]]
        block = block + 0.35 * random.normal(size=block.shape)
        wines[start : start + 10_000] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return wines, styles


def names(styles: np.ndarray) -> Iterator[str]:
    """Name each wine by its style, so that a recommendation can be judged by reading it."""
    for number, style in enumerate(styles.tolist()):
        grape, place = GRAPES[style % len(GRAPES)], PLACES[style // len(GRAPES) % len(PLACES)]
        estate = ESTATES[number * 7 % len(ESTATES)]
        yield f"{estate} {grape} {place}, style {style}, bottle {number}"


def write_csv(wines: np.ndarray, path: Path) -> None:
    with path.open("w") as file:
        for row in wines:
            file.write(",".join(map(repr, row.tolist())) + "\n")


if __name__ == "__main__":
    main()
