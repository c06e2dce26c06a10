"""What is to be reached: each figure of ours beside another one, or beside a bound.

usage: python -m benchmarks.targets RESULT.json      prints the targets as Markdown, for the README
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import mixed
from benchmarks.report import BEST_PEER, TARGETS_HEAD, Pick, Result, Target, markdown


def _pick(work: str, load: str, value: str, server: str = "skserve") -> Pick:
    return Pick(server, work, load, value)


def _ratios(
    label: str, work: str, load: str, *bounds: tuple[str, str, float, bool], ours: str = "skserve"
) -> list[Target]:
    """Make targets of one load: (value, other server, bound, at least)."""
    return [
        Target(label, _pick(work, load, value, ours), bound, _pick(work, load, value, other), least)
        for value, other, bound, least in bounds
    ]


IRIS, FOREST = "iris, logistic regression, 8 callers", "random forest of 100 trees"
BOOSTING, NEAR = "scaler and boosting", "cosine neighbours, 180,000 × 300"
MIXED = "mixed columns, logistic regression"
MANY = "100 iris pipelines in one server"
TARGETS = [
    *_ratios(IRIS, "iris", "8 callers", ("rps", "aws", 5, True), ("rps", "fastapi", 1, True)),
    *_ratios(
        IRIS, "iris", "8 callers", ("cpu_us", "aws", 0.3, False), ("cpu_us", "fastapi", 0.4, False)
    ),
    *_ratios(
        f"{IRIS}, no log in either",
        "iris",
        "8 callers",
        ("rps", "fastapi", 1, True),
        ("cpu_us", "fastapi", 0.75, False),
        ("cpu_us", "empty-flask", 1.35, False),
        ours="skserve-quiet",
    ),
    Target(f"{IRIS}, with its log", _pick("iris", "8 callers", "cpu_us"), 150),
    Target(IRIS, _pick("iris", "8 callers", "share"), 0.6),
    *(
        Target(
            f"{label}, 8 callers, beside {beside}",
            _pick(work, "8 callers", "cpu_us"),
            bound,
            _pick(other, "8 callers", "cpu_us"),
        )
        for label, work, bound, beside, other in (
            (MIXED, "mixed", 2, "iris", "iris"),
            ("mixed columns, forest of 100", "mixed forest", 2, "numbers alone", "numbers forest"),
            ("mixed columns, boosting", "mixed boosting", 2, "numbers alone", "numbers boosting"),
            ("30 words, Tfidf of 50,000", "text", 4, "iris", "iris"),
        )
    ),
    *_ratios(
        f"{MIXED}, 8 callers",
        *("mixed", "8 callers"),
        *(("rps", peer, 20, True) for peer in ("aws", "mlcc", "fastapi")),
    ),
    *_ratios(
        f"{MIXED}, 64 callers",
        *("mixed", "64 callers"),
        *(("rps", peer, 20, True) for peer in ("aws", "mlcc", "fastapi")),
    ),
    Target(
        f"{MIXED}, 64 callers beside 8",
        _pick("mixed", "64 callers", "rps"),
        0.9,
        _pick("mixed", "8 callers", "rps"),
        least=True,
    ),
    Target(
        "30 words, Tfidf of 50,000, 8 callers", _pick("text", "8 callers", "rps"), 3450, least=True
    ),
    *(
        Target(
            f"{name}, in process",
            _pick("families", name, "cpu_us"),
            bound,
            _pick("families", name, "cpu_us", other),
        )
        for other, bound, names in (
            ("in-process scikit-learn", 0.4, mixed.ALONE),
            ("sum of the parts", 1.5, mixed.WRAPPED),
        )
        for name in names
    ),
    *(
        Target(
            f"{label}, in process",
            _pick("families", label, "cpu_us"),
            bound,
            _pick("families", label, "cpu_us", "in-process pandas"),
        )
        for label, bound in (
            ("10,000 mixed rows, CSV", 1),
            ("10,000 mixed rows, JSON records", 0.8),
        )
    ),
    *(
        Target(f"proof at load, {name}", _pick("families", name, "seconds"), 0.3)
        for name in ("mixed, LogisticRegression", "numbers, RandomForest 100")
    ),
    *(
        Target(
            f"iris, 8 callers in turn, {what}",
            _pick("telling", "8 callers, in turn", "cpu_us", ours),
            bound,
            _pick("telling", "8 callers, in turn", "cpu_us", other),
        )
        for what, ours, bound, other in (
            ("metrics, beside the log alone", "skserve", 1.04, "skserve-no-metrics"),
            ("metrics, beside neither", "skserve-quiet", 1.04, "skserve-silent"),
            ("metrics and log, beside neither", "skserve", 1.15, "skserve-silent"),
        )
    ),
    Target("a scrape of /metrics, idle", _pick("telling", "a scrape, idle", "p50_ms"), 50),
    Target("a scrape, 8 callers", _pick("telling", "a scrape, 8 callers", "p50_ms"), 200),
    *(
        Target(
            f"iris, the page beside SKSERVE_PAGE=off, {what}",
            _pick("page", "in turn", value),
            1.03,
            _pick("page", "in turn", value, "skserve-no-page"),
        )
        for what, value in (("start", "seconds"), ("memory", "pss_mib"), ("8 callers", "cpu_us"))
    ),
    *(
        Target(
            f"overload, {model}, {times} times what it can",
            _pick("overload", f"{model}, {times} times", value),
            bound,
            least=value == "goodput",
        )
        for model, times, goodput in (("script", 10, 0.9), ("iris", 2, 0.7), ("mixed", 2, 0.7))
        for value, bound in (
            ("goodput", goodput),
            ("sent_p99_ms", 30_000),
            ("refused_ms", 50),
            ("ping_ms", 500),
            ("lost", 0),
        )
    ),
    *(
        Target(
            f"overload, {model}, afterwards",
            _pick("overload", f"{model}, afterwards", "goodput"),
            0.9,
            least=True,
        )
        for model in ("script", "iris", "mixed")
    ),
    *_ratios(f"{FOREST}, 8 callers", "forest", "8 callers", ("rps", "aws", 8, True)),
    *_ratios(f"{FOREST}, 64 callers", "forest", "64 callers", ("rps", "aws", 10, True)),
    *_ratios(f"{FOREST}, 8 callers", "forest", "8 callers", ("cpu_us", "aws", 0.12, False)),
    *_ratios(f"{FOREST}, 64 callers", "forest", "64 callers", ("cpu_us", "aws", 0.12, False)),
    *_ratios(f"{FOREST}, 1 caller", "forest", "1 caller", ("p50_ms", "aws", 0.2, False)),
    *_ratios(f"{BOOSTING}, 8 callers", "boosting", "8 callers", ("rps", BEST_PEER, 1.4, True)),
    *_ratios(f"{BOOSTING}, 64 callers", "boosting", "64 callers", ("rps", BEST_PEER, 1.4, True)),
    *(
        Target(
            f"{BOOSTING}, {load} beside 8",
            _pick("boosting", load, "rps"),
            0.8,
            _pick("boosting", "8 callers", "rps"),
            least=True,
        )
        for load in ("64 callers", "256 callers")
    ),
    Target(
        f"{NEAR}, 1 caller",
        _pick("neighbours", "1 caller", "p50_ms"),
        0.08,
        _pick("in-process", "1 caller", "p50_ms", "in-process scikit-learn"),
    ),
    *_ratios(f"{NEAR}, 8 callers", "neighbours", "8 callers", ("rps", BEST_PEER, 25, True)),
    *_ratios(f"{NEAR}, 64 callers", "neighbours", "64 callers", ("rps", BEST_PEER, 25, True)),
    *(
        Target(
            f"10,000 × 30 in {kind}, linear model",
            _pick("tables", kind, "p50_ms"),
            1.4,
            _pick("tables", kind, "p50_ms", f"in-process {kind.lower()}"),
        )
        for kind in ("CSV", "JSON")
    ),
    Target(
        "start to the first good prediction, iris",
        _pick("start", "start", "seconds"),
        1.1,
        _pick("start", "start", "seconds", "joblib.load alone"),
        plus=0.15,
    ),
    *_ratios("memory, iris, 2 workers", "iris", "memory", ("pss_mib", "aws", 0.45, False)),
    *(
        Target(
            f"memory, {model}, {workers} workers, beyond iris",
            _pick("memory", f"{model}, {workers} workers", "of_data"),
            bound,
        )
        for model, bound in (("neighbours", 1.6), ("neighbours compressed", 2.0))
        for workers in (2, 4)
    ),
    Target(f"{MANY}, each", _pick("many", "each model", "pss_mib", "skserve-many"), 9),
    Target(
        f"{MANY}, load to the first answer, median",
        _pick("many", "each model", "seconds", "skserve-many"),
        0.15,
    ),
    Target(
        f"{MANY}, a call, beside the model alone",
        _pick("many", "1 caller", "p50_ms", "skserve-many"),
        1,
        _pick("many", "1 caller", "p50_ms"),
        plus=0.25,
    ),
    Target(
        "8 hot models of many",
        _pick("many", "8 hot models", "cpus", "skserve-many"),
        1.6,
        least=True,
    ),
]


def rows(result: Result) -> list[list[str]]:
    """Return the rows of the works that were measured, reached or not."""
    measured = {one["work"] for one in result.whole["figures"]}
    return [one.row(result) for one in TARGETS if one.ours.work in measured]


if __name__ == "__main__":
    given = Result(json.loads(Path(sys.argv[1]).read_text()))
    print(markdown(TARGETS_HEAD, rows(given)), given.noise, sep="\n\n")
