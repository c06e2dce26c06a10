"""Work grows with the bytes: twice the bytes, at most 2.5 times the work.

Measured as CPU time of this process, the best of several, because much of the work is in C.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import orjson
import pytest

from skserve.errors import ServeError
from skserve.estimators.schema import Schema
from skserve.formats.catalogue import DECODERS
from skserve.formats.conform import conform
from skserve.formats.media_types import MediaType, negotiate

MOST = 2.5
DOUBLINGS = 3  # one alone would say more of the processor's caches than of the work
SIGNAL = 0.02  # seconds of CPU; a clock is not to be trusted with less
SIZE = 500  # names or the like; with many more they no longer fit into the processor's cache

SCHEMA = Schema(n_features=2, names=("a", "b"))


def cost(work: Callable[[], object], times: int = 1) -> float:
    """The least CPU time that the work took, done so many times."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for _ in range(times):
            with suppress(ServeError, ValueError):
                work()
        best = min(best, time.process_time() - began)
    return best


def assert_linear(made: Callable[[int], Callable[[], object]]) -> None:
    """Compare a size with one doubled three times."""
    one, other = made(SIZE), made(SIZE * 2**DOUBLINGS)
    times = 1 + int(SIGNAL / max(cost(one), 1e-6))
    ratios: list[float] = []
    # The larger work makes enough objects for searches for garbage, which would look at all that
    # other tests have left in this process.
    gc.collect()
    gc.freeze()
    try:
        while len(ratios) < 5 and not (ratios and min(ratios) <= MOST**DOUBLINGS):  # others run too
            ratios.append(cost(other, times) / cost(one, times))
    finally:
        gc.unfreeze()

    assert min(ratios) <= MOST**DOUBLINGS, ratios


def _wide(size: int) -> Schema:
    return replace(SCHEMA, n_features=size, names=tuple(f"c{at}" for at in range(size)))


def _columns(size: int) -> bytes:
    return ",".join(f"c{at}" for at in reversed(range(size))).encode()


# (media type, body of a size, schema of a size)
BODIES = {
    "csv: two names repeated": ("text/csv", lambda n: b"a,b," * n + b"\n1,2\n", None),
    "csv: unknown names": (
        "text/csv; header=present",
        lambda n: _columns(n) + b"\n1,2\n",
        None,
    ),
    "csv: all names in another order": (
        "text/csv",
        lambda n: _columns(n) + b"\n" + b"1," * (n - 1) + b"1\n",
        _wide,
    ),
    "json: keys of one record": (
        "application/json",
        lambda n: orjson.dumps([{f"c{at}": 1 for at in reversed(range(n))}]),
        _wide,
    ),
    "json: unknown keys": (
        "application/json",
        lambda n: orjson.dumps({f"k{at}": 1 for at in range(n)}),
        None,
    ),
    "json: columns named twice": (
        "application/json",
        lambda n: orjson.dumps({"columns": [f"c{at // 2}" for at in range(n)], "data": [[1] * n]}),
        _wide,
    ),
    "json: blanks between rows": (
        "application/json",
        lambda n: b"[[1" + b"] " * 100 * n + b"]" + b" " * 100 * n,  # read in blocks, all of them
        None,
    ),
    "json lines: keys": (
        "application/jsonlines",
        lambda n: orjson.dumps({f"c{at}": 1 for at in reversed(range(n))}) + b"\n",
        _wide,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_costs_what_it_weighs(name):
    content_type, body_of, schema_of = BODIES[name]

    def made(size):
        kind, body = MediaType.parse(content_type), body_of(size)
        schema = schema_of(size) if schema_of else SCHEMA
        return lambda: conform(DECODERS[kind.name](body, kind, schema).table, schema)

    assert_linear(made)


HEADERS = {
    "a quote that is never closed": lambda n: '"' + '\\"' * n,
    "quotes that are never closed": lambda n: 'a/b,"' * n,
    "ranges that nothing matches": lambda n: "a/b," * n,
    "names refused last": lambda n: "image/x;q=0," * n + "text/csv;q=0," + "*/*," * n,
    "a long token": lambda n: "a" * n,
    "blanks": lambda n: "a/b" + " " * n + "x",
    "parameters": lambda n: "a/b" + ";c=d" * n,
}


@pytest.mark.parametrize("name", HEADERS)
def test_accept_costs_what_it_weighs(name):
    def made(size):
        accept = HEADERS[name](size)
        return lambda: negotiate(accept, ("text/csv",), "text/csv")

    assert_linear(made)
