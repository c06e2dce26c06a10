"""What is counted: the families of /metrics, and the cell of each series in a region of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STATUSES = ["200", "400", "404", "406", "408", "413", "415", "500", "503", "504", "507", "other"]

# A series costs, so ten statuses are shown at most. By whether many models are served: those that
# are not answered there, or hardly ever, and stand as `other`.
UNSHOWN = {False: ("404", "507"), True: ("406", "408")}
STAGES = ("decode", "queue", "predict", "encode", "total")
REJECTED = ("queue", "time", "late", "memory", "hang", "not_ready", "other")
ENDS = ("crash", "hang", "out_of_memory", "recycled")
PHASES = ("import", "code", "model", "check", "workers")
CELLS = ("missing", "unseen", "out_of_range")

# Upper bounds of the buckets, in seconds: from a linear model's 0.05 ms to a request's 60 s.
# With the last one, which has no bound, there are twelve.
BUCKETS = (0.00005, 0.0002, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 10.0, 60.0)

# Columns, and models of the multi-model mode, that have series of their own.
COLUMNS, MODELS = 50, 50
OTHER_MODELS = MODELS  # the place of all the others together

# Bytes for the name of a model, in UTF-8.
NAME = 128


@dataclass(frozen=True)
class Family:
    """One metric: `says` is its help, `values` those of its one label, if it has one.

    Over the processes a `greatest` gauge is the largest, and everything else the sum.
    """

    name: str
    kind: str  # counter, gauge or histogram
    says: str
    label: str = ""
    values: Sequence[str] = ("",)
    greatest: bool = False


# The help is short, as a scrape is paid for by the byte: docs/90-slow-or-failing.md says more.
FAMILIES = (
    Family("skserve_requests", "counter", "Invocations.", "status", STATUSES),
    Family("skserve_request_seconds", "histogram", "Time by stage.", "stage", STAGES),
    Family("skserve_rows", "counter", "Rows predicted."),
    Family("skserve_predictions", "counter", "Model calls."),
    Family("skserve_body_bytes", "counter", "Body bytes.", "direction", ("in", "out")),
    Family("skserve_requests_in_progress", "gauge", "Unanswered."),
    Family("skserve_requests_waiting", "gauge", "Waiting."),
    Family("skserve_rejected", "counter", "Refused.", "reason", REJECTED),
    Family("skserve_workers", "gauge", "Processes."),
    Family("skserve_worker_ends", "counter", "Ended workers.", "reason", ENDS),
    Family("skserve_memory_bytes", "gauge", "Memory.", "kind", ("shared", "private")),
    Family("skserve_ready", "gauge", "Can predict.", greatest=True),
    Family("skserve_start_seconds", "gauge", "Start time.", "phase", PHASES, greatest=True),
    Family("skserve_cells", "counter", "Not as learned.", "kind", CELLS),
    Family("skserve_log_lines_dropped", "counter", "Lines lost."),
)


# A region begins with the cells of models, then come the series.
MODEL_NUMBERS = 3  # requests, errors, seconds
_BY_MODEL = (MODELS + 1) * MODEL_NUMBERS


def _places() -> tuple[dict[tuple[str, str], int], int]:
    """Return the cell of each series, and the first behind all of them.

    A histogram's is the first of its buckets; its sums follow behind all of them.
    """
    at, places = _BY_MODEL, {}
    for family in FAMILIES:
        buckets = len(BUCKETS) + 1 if family.kind == "histogram" else 1
        for value in family.values:
            places[family.name, value] = at
            at += buckets
        if buckets > 1:
            for value in family.values:
                places[family.name + "_sum", value] = at
                at += 1
    return places, at


PLACE, _SERIES = _places()

# The cells up to this one are sums over requests. Nothing else adds to them.
SUMS = PLACE["skserve_requests_in_progress", ""]

# After the series: what a worker says of its own end, and the cells of columns.
ENDING = _SERIES
BY_COLUMN = ENDING + 1
END = BY_COLUMN + COLUMNS * len(CELLS)
GAUGES = [
    PLACE[family.name, value]
    for family in FAMILIES
    if family.kind == "gauge"
    for value in family.values
] + [ENDING]
