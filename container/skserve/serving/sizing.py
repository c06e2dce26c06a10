"""How the container's CPUs and memory are shared out, and what each worker holds at most."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

from skserve.config import MIB, Config

# Seconds an idle connection is kept; SageMaker's router keeps its own for about a minute.
KEEP_ALIVE = 65

# Connections of a worker that may wait for their next request, and files left for all else.
IDLE, FILES = 1000, 128

# Threads beyond those that requests can hold, for refusals and all that needs no place.
SPARE_THREADS = 16

# What a worker adds to the memory of the process it was forked from, measured with pandas loaded.
WORKER_MEMORY = 64 * MIB


@dataclass(frozen=True)
class Plan:
    """How the container's CPUs and memory are shared out."""

    workers: int
    threads: int  # predictions at once in each worker
    native_threads: int  # OpenMP and BLAS threads of each prediction

    @classmethod
    def make(cls, config: Config, scripted: bool, resident: int) -> Plan:
        """Fit `config` to the machine; `resident` is what this process holds now, in bytes.

        workers x native threads stay within the CPUs; `scripted` models run one thread a worker.
        """
        free = config.machine.memory * 0.9 - resident
        affordable = max(1, int(free / WORKER_MEMORY))
        workers = config.workers or max(1, min(int(config.machine.cpus), affordable))
        threads = config.threads or (1 if scripted else 2)
        native = config.native_threads or max(1, int(config.machine.cpus / (workers * threads)))
        return cls(workers, threads, native)


@dataclass(frozen=True)
class Limits:
    """What a worker holds at most, and for how long."""

    connections: int
    calls: int  # of models, in threads
    threads: int
    keep_alive: float  # seconds that an idle connection is kept
    body_timeout: float  # seconds that a body may take in any case
    body: int  # bytes of any body

    @classmethod
    def make(cls, config: Config, plan: Plan) -> Limits:
        """Hold, beyond the connections with a request in a thread, as many as files may be open."""
        calls = plan.threads + config.queue
        threads = calls + SPARE_THREADS
        connections = max(1, min(threads + IDLE, _descriptors() - FILES))
        return cls(connections, calls, threads, KEEP_ALIVE, config.timeout, config.max_body)


def places(workers: int) -> int:
    """Return how many workers there may be at once: a reload starts new ones beside the old."""
    return 2 * workers + 8


def _descriptors() -> int:
    """Return how many files a process may have open, connections included."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
