"""Draw latency against offered load from a result.

usage: python -m benchmarks.picture RESULT.json PICTURE.svg

Of a noisy run none is drawn: it would hide the distance between the servers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks import report

mpl.use("svg")
from matplotlib import pyplot as plt

# Grey that can be read on white and on black; the page shows through everything else.
INK = "#7d8590"
COLOURS = {"skserve": "#2f81f7", "fastapi": "#d29922", "aws": "#e5534b"}
NAMES = {"fastapi": "FastAPI by hand", "aws": "AWS's library"}
STYLE: Any = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text: a small file
    "svg.hashsalt": "skserve",  # the same figures, the same bytes
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(result: dict, path: Path) -> None:
    """Draw p50 as lines and p99 as dashes over requests per second, one colour per server."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
        for server, colour in COLOURS.items():
            points = [
                one["values"]
                for one in result["figures"]
                if one["server"] == server and one["work"] == "iris" and "rate" in one["values"]
            ]
            # Where a server is behind, latency is only how long was measured.
            points = [one for one in points if one["rps"] >= 0.99 * one["rate"]]
            rates = [one["rate"] for one in points]
            if not rates:
                continue
            label = NAMES.get(server, server)
            axes.plot(
                rates, [one["p50_ms"] for one in points], "o-", color=colour, ms=3, label=label
            )
            axes.plot(rates, [one["p99_ms"] for one in points], "o--", color=colour, ms=3)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlim(left=0)
        axes.legend(frameon=False, labelcolor="linecolor")
        axes.grid(color=INK, alpha=0.2, lw=0.6)
        axes.set_xlabel("requests offered per second (iris, one row of JSON, two workers)")
        axes.set_ylabel("latency in ms: median —, p99 - -")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None})
        plt.close(figure)


def main(run: Path, path: Path) -> None:
    """Draw a run, if the machine was quiet."""
    given = report.Result(json.loads(run.read_text()))
    if given.quiet:
        draw(given.whole, path)
    else:
        print(f"No picture is drawn. {given.noise}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
