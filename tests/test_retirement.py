"""A process is replaced before it must be: after so many answers, or when its memory has no end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from skserve.scheduling.retirement import JITTER, Retirement
from tests.conftest import serving
from tests.servers import children, until

MIB = 1 << 20
MEMORY = 2000 * MIB


def lived(held: Callable[[int], float], seconds: int, used: float = 1) -> tuple[list[str], bool]:
    """Return the reasons in a life, and whether growth was said; `held` is in MiB by second."""
    now = 0

    def left() -> int:
        return MEMORY - int(used * held(now) * MIB)

    retirement = Retirement(0, MEMORY, left, lambda: int(held(now) * MIB), lambda: float(now))
    reasons = []
    for now in range(seconds):  # noqa: B007 - the clock
        if reason := retirement.reason(0):
            reasons.append(reason)
    return reasons, retirement.grows


@pytest.mark.parametrize(
    ("held", "seconds", "says", "ends"),
    [
        (lambda at: 100, 5000, False, False),
        (lambda at: 100 + 50 * at, 37, True, True),  # fast: seen when memory is short
        (lambda at: 100 + 5 * at, 100, True, False),
        (lambda at: 100 + 5 * at, 400, True, True),
        (lambda at: 100 + at / 40, 30_000, True, False),  # slow, over hours
        (lambda at: 100 + 800 * (1 - math.exp(-at / 3)), 5000, False, False),  # warms up
        (lambda at: 100 + 900 * (at % 7 < 4), 5000, False, False),  # comes and goes
        (lambda at: 100 + 1750 * (at % 60 > 20), 5000, False, False),  # short again and again
        (lambda at: 100 + 20 * math.sin(at) + 3 * at, 400, True, False),
    ],
)
def test_memory_that_has_no_end_is_told_from_memory_that_comes_and_goes(
    held, seconds, says, ends, caplog
):
    with caplog.at_level(logging.WARNING):
        reasons, said = lived(held, seconds)
    assert said == says
    assert bool(reasons) == ends
    assert caplog.text.count("grows without end") == says


def test_a_process_ends_after_about_so_many_requests_and_not_all_at_once():
    limits = set()
    for _ in range(50):
        retirement = Retirement(1000, MEMORY, lambda: MEMORY, lambda: 0, lambda: 0.0)
        limits.add(next(n for n in range(2000) if retirement.reason(n)))
    assert min(limits) >= 1000 * (1 - JITTER)
    assert max(limits) <= 1000 * (1 + JITTER)
    assert len(limits) > 5


def test_no_request_fails_while_workers_are_replaced(model_with_script, tmp_path):
    script = "def predict_fn(data, model):\n    return model.predict(data)\n"
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SKSERVE_MAX_REQUESTS": "50"}
    with serving(model_with_script(script), tmp_path / "log", **settings) as server:
        before = set(children(server))
        with ThreadPoolExecutor(8) as callers:
            answers = callers.map(lambda _: server.post("[[5.1, 3.5, 1.4, 0.2]]"), range(600))
            assert {answer.status_code for answer in answers} == {200}
        until(lambda: not before & set(children(server)))
    assert "replaced: it has answered" in (tmp_path / "log").read_text()
