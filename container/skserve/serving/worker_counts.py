"""What the master and its workers count of themselves: forks, ends and why, memory, readiness."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import Any

from skserve import telemetry
from skserve.config import Config
from skserve.counters import FIRST_WORKER
from skserve.process_memory import MemoryLook
from skserve.serving import summary
from skserve.serving.arbiter import Arbiter
from skserve.telemetry import counters

log = logging.getLogger("skserve")

# What the log says of a worker that ended in the middle of its work.
_ENDS = {
    "crash": "crashed, or its script ended it",
    "out_of_memory": "was ended by the kernel: the container's memory was used up",
}


class WorkerCounts:
    """Made in the master. Each worker has its copy from the fork on."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._forked_at = time.perf_counter()
        self._memory, self._oom_kills = MemoryLook(), config.machine.oom_kills()

    def about_to_fork(self, arbiter: Arbiter, worker: Any) -> None:
        """Choose where a worker is going to count. Called in the master."""
        worker.region = counters.join()

    def forked(self, arbiter: Arbiter, worker: Any) -> None:
        """Begin to count there. Called in the worker."""
        self._forked_at = time.perf_counter()
        counters.use(worker.region)
        counters.put("skserve_workers", "", 1)
        if self._config.metrics:
            MemoryLook().keep_putting()
        if self._config.metrics and not self._config.multi_model and worker.region == FIRST_WORKER:
            find = partial(summary.find_digest, self._config)
            threading.Thread(target=find, name="digest", daemon=True).start()

    def ready(self) -> None:
        """Say that this worker can predict."""
        telemetry.took("workers", time.perf_counter() - self._forked_at)
        counters.put("skserve_ready", "", 1)

    def hung(self) -> None:
        """Say that this worker cannot predict any more, and is about to end for that."""
        counters.put("skserve_ready", "", 0)
        telemetry.ends("hang")

    def ended(self, arbiter: Arbiter, worker: Any) -> None:
        """Count the end of a worker, unless it was planned. Called in the master."""
        before, self._oom_kills = self._oom_kills, self._config.machine.oom_kills()
        out_of_memory = self._oom_kills > before
        lost = counters.unfinished(worker.region)
        reason = counters.leave(worker.region) or arbiter.unplanned(worker, out_of_memory)
        if reason:
            counters.add("skserve_worker_ends", reason)
        if reason in _ENDS:
            log.error(
                "Worker %d %s. Requests left unanswered: %d.", worker.pid, _ENDS[reason], lost
            )

    def look(self) -> None:
        """Look at the memory of the master now and then. Called often."""
        if self._config.metrics:
            self._memory.put()
