"""How many threads and connections a worker has."""

from __future__ import annotations

import pytest

from skserve.config import Config
from skserve.serving import sizing
from skserve.serving.sizing import Limits, Plan


@pytest.mark.parametrize(("files", "most"), [(1 << 20, 1200), (256, 128)])
def test_a_worker_holds_no_more_connections_than_files_may_be_open(monkeypatch, files, most):
    monkeypatch.setattr(sizing.resource, "getrlimit", lambda _: (files, files))
    config = Config(queue=182)
    limits = Limits.make(config, Plan(1, 2, 1))

    assert limits.threads == 200
    assert limits.connections == most
