"""`/metrics`: the counters of all processes in Prometheus' text format.

Only this module imports `prometheus_client`, of which it takes the format alone: its own
multi-process mode maps a file for each process and kind of metric, reads all of them at each
scrape, adds nothing up for processes that are gone unless their files stay, and has no gauges that
a killed process leaves right. `counters` is one piece of memory, made before the fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector, CollectorRegistry

from skserve import telemetry
from skserve.series import BUCKETS, CELLS, COLUMNS, FAMILIES, OTHER_MODELS, UNSHOWN, Family
from skserve.totals import Totals

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# What is known of the model is in labels; its value is 1.
MODEL_LABELS = ("estimator", "method", "scikit_learn", "saved_with", "digest", "accelerated")
MODEL_INFO = "skserve_model_info", "The model."
COLUMN_CELLS = "skserve_column_cells", "Cells the model did not learn, by column."
MODEL_REQUESTS = "skserve_model_requests", "Invocations of a model answered."
MODEL_ERRORS = "skserve_model_errors", "Of these, with a status of 400 or more."
MODEL_SECONDS = "skserve_model_seconds", "Time of the invocations of a model."

_BOUNDS = [str(bound) for bound in BUCKETS] + ["+Inf"]


class Exposition(Collector):
    """What one scrape answers; any worker gives it for all processes.

    `model` says the labels of `MODEL_LABELS` once a model is loaded here. `columns` are names, if
    cells are to be counted by column; `many` asks for the series of each model of many.
    """

    def __init__(
        self,
        model: Callable[[], Mapping[str, str] | None],
        columns: Callable[[], Sequence[str]],
        many: bool,
    ) -> None:
        self._model, self._columns, self._many = model, columns, many
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the text of one scrape."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Name no metric ahead: there is no other collector to collide with."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its samples."""
        totals = telemetry.counters.totals()
        for family in FAMILIES:
            if family.kind == "histogram":
                yield _histogram(family, totals)
            else:
                yield _plain(family, self._series(family, totals))
        labels = self._model()
        if labels is not None:
            info = GaugeMetricFamily(*MODEL_INFO, labels=MODEL_LABELS)
            info.add_metric([labels[name] for name in MODEL_LABELS], 1.0)
            yield info
        columns = self._columns()[:COLUMNS]
        if columns:
            yield _by_column(columns, totals)
        if self._many:
            yield from _by_model(totals)

    def _series(self, family: Family, totals: Totals) -> dict[str, float]:
        """Return the numbers of a counter or gauge by the value of its label."""
        series = {value: totals.of(family, value) for value in family.values}
        if family.label == "status":
            series["other"] += sum(series.pop(status) for status in UNSHOWN[self._many])
        return series


def _histogram(family: Family, totals: Totals) -> Metric:
    metric = HistogramMetricFamily(family.name, family.says, labels=[family.label])
    for value in family.values:
        counts, seconds = totals.histogram(family, value)
        so_far, buckets = 0.0, []
        for bound, count in zip(_BOUNDS, counts, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        metric.add_metric([value], buckets, round(seconds, 6))
    return metric


def _plain(family: Family, series: Mapping[str, float]) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.says, labels=[family.label] if family.label else [])
    for value, number in series.items():
        metric.add_metric([value] if family.label else [], number)
    return metric


def _by_column(columns: Sequence[str], totals: Totals) -> Metric:
    metric = CounterMetricFamily(*COLUMN_CELLS, labels=["column", "kind"])
    for at, column in enumerate(columns):
        for kind, count in zip(CELLS, totals.column(at), strict=True):
            metric.add_metric([column, kind], count)
    return metric


def _by_model(totals: Totals) -> Iterator[Metric]:
    names = telemetry.counters.models()
    places = [*range(len(names)), OTHER_MODELS]
    if not any(totals.model(OTHER_MODELS)):
        places.pop()
    requests = CounterMetricFamily(*MODEL_REQUESTS, labels=["model"])
    errors = CounterMetricFamily(*MODEL_ERRORS, labels=["model"])
    seconds = SummaryMetricFamily(*MODEL_SECONDS, labels=["model"])
    for place in places:
        name = [names[place] if place < len(names) else "other"]
        answered, failed, took = totals.model(place)
        requests.add_metric(name, answered)
        errors.add_metric(name, failed)
        seconds.add_metric(name, int(answered), took)
    yield from (requests, errors, seconds)
