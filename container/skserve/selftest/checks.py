"""The checks in their order, and what one run of some of them finds."""

from __future__ import annotations

import http.client
from collections.abc import Callable

from skserve.selftest import contract, faults, load, many, media
from skserve.selftest.report import Row, progress
from skserve.selftest.verdict import Verdict, failed, warned
from skserve.selftest.walk import Walk

Checks = tuple[tuple[str, Callable[[Walk], Verdict | None]], ...]

# Those that need nothing but calls of the model.
CALLS: Checks = (
    ("rows", media.rows),
    ("one call", load.one_row),
    ("formats in", media.formats_in),
    ("formats out", media.formats_out),
    ("one row beside many", media.one_beside_many),
    ("order of columns", media.column_order),
    ("expected answers", media.expected),
    ("wrong bodies", faults.wrong_bodies),
    ("wrong media types", faults.media_types),
)

CHECKS: Checks = (
    ("start", contract.start),
    ("log of the start", contract.start_log),
    ("ping", contract.ping),
    ("what the model says", contract.description),
    ("versions", contract.versions),
    ("fast paths", contract.fast_paths),
    *CALLS,
    ("routes", contract.routes),
    ("payload limit", contract.payload_limit),
    ("batch parameters", contract.batch_parameters),
    ("large body", load.large_body),
    ("callers at once", load.throughput),
    ("ping under load", load.ping_under_load),
    ("memory", load.memory),
    ("SIGTERM", contract.sigterm),
    ("log", contract.errors_logged),
    ("multi-model", many.multi_model),
    ("model alone", media.model_alone),
    ("load by phase", media.load_by_phase),
)

# Those that take dozens of calls are left out where one takes longer than this, in seconds.
_MANY_CALLS = {"formats in", "formats out", "one row beside many", "large body"}
_LONG_CALL = 1.0


def made(walk: Walk, checks: Checks) -> list[Row]:
    """Make the checks one after the other; one that is not for this model has no row."""
    rows = []
    for number, (name, check) in enumerate(checks, 1):
        progress(f"{number} of {len(checks)}: {name}")
        if name in _MANY_CALLS and walk.row_seconds > _LONG_CALL:
            sentence = f"Left out: it takes many calls, and one takes {walk.row_seconds:.1f} s."
            rows.append(
                Row(name, warned(sentence, "Try it with a smaller model of the same kind."))
            )
            continue
        try:
            verdict = check(walk)
        except (OSError, http.client.HTTPException) as error:
            verdict = failed(
                f"The server does not answer: {type(error).__name__} {error}.",
                "The end of its log: " + " ".join(walk.server.log()[-2:])[-300:],
            )
        if verdict is not None:
            rows.append(Row(name, verdict))
    return rows
