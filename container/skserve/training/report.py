"""One page about one training: what was fitted, on what, how good it is. It loads nothing."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from skserve.inference.versions import installed
from skserve.training import plots
from skserve.training.dataset import Dataset, missing
from skserve.training.evaluation import Evaluation, last_step

_MOST_CLASSES = 20
_MOST_BARS = 20

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #6b6b70; --line: #d0d0d5;
  --accent: #7b2d43; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --dim: #9a9aa2; --line: #45454c;
  --accent: #d98a9f; --page: #1b1b1e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem 1.2rem .2rem 0;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; flex: 1 1 420px;
  max-width: 478px; }
figcaption { font-weight: 600; } small, p.dim { color: var(--dim); font-weight: 400; }
svg { width: 100%; font: 11px system-ui, sans-serif; } svg text { fill: var(--ink); }
.fill, .dot { fill: var(--accent); } .dot { opacity: .45; }
.axis, .guide, .curve { fill: none; stroke: var(--line); } .guide { stroke-dasharray: 4 4; }
.curve { stroke: var(--accent); stroke-width: 2; }
"""


def render(
    fitted: Any, train: Dataset, found: Evaluation, hyperparameters: Mapping[str, Any]
) -> str:
    """Return the page as HTML."""
    from sklearn.utils import estimator_html_repr

    name = type(fitted).__name__
    how = f"<p class='dim'>Measured on {html.escape(found.how)}.</p>" if found.how else ""
    drawn = "".join(_plots(fitted, train, found))
    parts = [
        f"<h1>{html.escape(name)}</h1>",
        "<h2>How good it is</h2>",
        how,
        _table((key, f"{value:.6g}") for key, value in found.metrics.items())
        or "<p>Nothing was measured: there was no target, or too few rows.</p>",
        f"<h2>Plots</h2><div class='plots'>{drawn}</div>" if drawn else "",
        "<h2>The estimator</h2>",
        estimator_html_repr(fitted),
        "<h2>The data</h2>",
        _table(_facts(train)),
        "<h2>Hyperparameters</h2>",
        _table((key, str(value)[:500]) for key, value in sorted(hyperparameters.items())),
        "<h2>Versions</h2>",
        _table(_versions()),
    ]
    head = f"<meta charset='utf-8'><title>{html.escape(name)}</title><style>{_STYLE}</style>"
    body = "\n".join(filter(None, parts))
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>\n"


def _table(rows: Any) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(str(value))}</td></tr>"
        for key, value in rows
    )
    return f"<table>{cells}</table>" if cells else ""


def _facts(train: Dataset) -> Iterator[tuple[str, str]]:
    yield "rows", f"{len(train.X):,}"
    if isinstance(train.X, list):
        yield "columns", "one, of text"
    else:
        yield "columns", f"{train.X.shape[1]:,}"
        yield "missing cells", f"{missing(train.X):,}"
    if train.y is None:
        return
    yield "target", train.target or ""
    if train.y.dtype.kind in "OiU":
        classes, counts = np.unique(train.y, return_counts=True)
        shown = [f"{one}: {count:,}" for one, count in zip(classes, counts, strict=True)]
        yield "classes", ", ".join(shown[:_MOST_CLASSES])
    else:
        yield "range", f"{train.y.min():.6g} to {train.y.max():.6g}, mean {train.y.mean():.6g}"


def _versions() -> Iterator[tuple[str, str]]:
    for name in ("scikit-learn", "numpy", "scipy", "joblib"):
        yield name, installed(name)
    yield "Python", platform.python_version()


def _plots(fitted: Any, train: Dataset, found: Evaluation) -> Iterator[str]:
    yield from _of_kind(found)
    names, weights = _importances(fitted, train)
    if names:
        order = np.argsort(-np.abs(weights))[:_MOST_BARS]
        note = f"the {len(order)} largest of {len(names)}" if len(order) < len(names) else ""
        yield plots.bars("What the model looks at", [names[at] for at in order],
                         [float(weights[at]) for at in order], note)  # fmt: skip


def _of_kind(found: Evaluation) -> Iterator[str]:
    """Draw what fits the task."""
    truth, predicted, measured = found.truth, found.predicted, found.measured
    if found.kind == "classifier" and truth is not None and predicted is not None:
        classes = [str(one) for one in np.unique(truth).tolist()]
        if len(classes) <= _MOST_CLASSES:
            yield plots.matrix("Confusion", classes, _confusion(truth, predicted, classes))
        if found.score is not None:
            yield _roc(truth, found.score)
    elif found.kind == "regressor" and truth is not None and predicted is not None:
        if predicted.ndim == 1:
            yield plots.scatter("Predicted and true", truth, predicted, ("true", "predicted"))
            yield plots.histogram("Errors", (predicted - truth).astype(float), "predicted - true")
    elif measured is not None and found.kind == "neighbours":
        yield plots.histogram("Distance to the nearest other row", measured, "distance")
    elif measured is not None and found.kind in ("clusterer", "outliers"):
        labels, counts = np.unique(measured, return_counts=True)
        names = [_ODD.get((found.kind, int(one)), str(one)) for one in labels[:_MOST_BARS]]
        yield plots.bars("Rows", names, counts[:_MOST_BARS].astype(float).tolist())
    elif measured is not None:
        names = [str(at + 1) for at in range(len(measured))]
        yield plots.bars("Explained variance", names[:_MOST_BARS], measured[:_MOST_BARS].tolist())


_ODD = {("outliers", -1): "outliers", ("outliers", 1): "others", ("clusterer", -1): "noise"}


def _confusion(truth: Any, predicted: Any, classes: list[str]) -> Any:
    place = {name: at for at, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for true, said in zip(truth.tolist(), predicted.tolist(), strict=True):
        if str(said) in place:
            counts[place[str(true)], place[str(said)]] += 1
    return counts


def _roc(truth: Any, score: Any) -> str:
    from sklearn.metrics import auc, roc_curve

    positive = np.unique(truth)[1]
    wrong, right, _ = roc_curve(truth == positive, score)
    note = f"area {auc(wrong, right):.4g}, class {positive}"
    return plots.curve("ROC", wrong, right, ("false positives", "true positives"), note)


def _importances(fitted: Any, train: Dataset) -> tuple[list[str], Any]:
    """Return names and weights of the columns, where the model has one weight for each."""
    last = last_step(fitted)
    weights = getattr(last, "feature_importances_", None)
    if weights is None:
        weights = getattr(last, "coef_", None)
    if not isinstance(weights, np.ndarray) or isinstance(train.X, list):
        return [], None
    weights = np.abs(weights).mean(axis=0) if weights.ndim == 2 else weights
    names = train.names
    if hasattr(fitted, "steps") and len(fitted.steps) > 1:
        try:
            names = [str(name) for name in fitted[:-1].get_feature_names_out()]
        except Exception:
            return [], None  # a step that does not name what it makes
    return (names, weights) if len(names) == len(weights) else ([], None)
