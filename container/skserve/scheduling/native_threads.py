"""The threads of OpenMP and BLAS that one prediction may use."""

from __future__ import annotations


def limit_native_threads(count: int) -> None:
    """Give this thread its share of OpenMP threads; the process was started with one.

    One, because OpenMP does not survive the fork of a process that ran it in parallel.
    """
    if count > 1:
        from threadpoolctl import threadpool_limits

        threadpool_limits(count)
