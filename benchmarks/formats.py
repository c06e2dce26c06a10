#!/usr/bin/env python3
"""Time reading and writing tables in this process, beside what others take for the same bytes.

usage: formats.py

Prints CPU milliseconds, the best of several rounds taken in turn, and the ratio to the first line
of each group, the floor. Then the microseconds that one row takes. Nothing is served here.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import orjson
import pandas as pd

from skserve.estimators.columns import NUMBER
from skserve.estimators.schema import Schema
from skserve.formats.answer import Answer
from skserve.formats.media_types import CSV, JSON, JSON_LINES, NPY
from skserve.formats.negotiation import answer_type
from skserve.inference import calls
from skserve.inference.calls import Call, Request

ROWS, COLUMNS, ROUNDS = 10_000, 30, 7

Work = Callable[[], object]


def main() -> None:
    X = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
    schema = Schema(n_features=COLUMNS, columns=(NUMBER,) * COLUMNS)
    text = pd.DataFrame(X).to_csv(header=False, index=False).encode()
    holes = pd.DataFrame(np.where(X > 2, np.nan, X)).to_csv(header=False, index=False).encode()
    quoted = b"".join(b'"%b"\n' % line.replace(b",", b'","') for line in text.splitlines())
    rows = orjson.dumps(X.tolist())
    nulls = orjson.dumps(np.where(X > 2, np.nan, X), option=orjson.OPT_SERIALIZE_NUMPY)
    array = _npy(X)

    def read(body: bytes, kind: str) -> Work:
        return lambda: calls.decode(Call(body, kind), schema, JSON).X

    def write(kind: str) -> Work:
        return lambda: calls.encode(Answer.of(X), Request(None, kind))

    print(f"{ROWS:,} rows of {COLUMNS} doubles, {len(text) / 1e6:.1f} MB of CSV")
    for group in (
        {
            "pandas.read_csv": lambda: pd.read_csv(io.BytesIO(text), header=None).to_numpy(),
            "numpy.loadtxt": lambda: np.loadtxt(io.BytesIO(text), delimiter=","),
            "read CSV": read(text, CSV),
            "read CSV, empty cells": read(holes, CSV),
            "read CSV, quoted cells": read(quoted, CSV),
        },
        {
            "orjson.loads, asarray": lambda: np.asarray(orjson.loads(rows)),
            "read JSON": read(rows, JSON),
            "read JSON, some null": read(nulls, JSON),
        },
        {"numpy.load": lambda: np.load(io.BytesIO(array)), "read npy": read(array, NPY)},
        {
            "DataFrame.to_csv": lambda: pd.DataFrame(X).to_csv(header=False, index=False),
            "write CSV": write(CSV),
            "write JSON": write(JSON),
            "write JSON Lines": write(JSON_LINES),
            "write npy": write(NPY),
        },
    ):
        took = _in_turn(group)
        floor = next(iter(took.values()))
        print()
        for name, seconds in took.items():
            print(f"{name:26} {seconds * 1e3:9.2f} ms {seconds / floor:7.2f} x")
    print()
    _long()
    _one_row()


def _long() -> None:
    """Read as large a body as is taken by default, also with an empty cell at its end."""
    schema = Schema(n_features=2, columns=(NUMBER,) * 2)
    body = b"1.5,2\n" * 4_200_000
    for name, end in (("25 MB of CSV", b""), ("an empty cell in it", b",1\n")):
        call, began = Call(body + end, CSV), time.process_time()
        calls.decode(call, schema, JSON)
        print(f"{name:26} {(time.process_time() - began) * 1e3:9.2f} ms")


def _one_row() -> None:
    """Say what a single row of four numbers takes, from the body to the answer and back."""
    schema = Schema(n_features=4, columns=(NUMBER,) * 4)
    y = np.array([0])
    print()
    for body, kind in ((b"[[5.1,3.5,1.4,0.2]]", JSON), (b"5.1,3.5,1.4,0.2\n", CSV)):
        call = Call(body, kind, kind)

        def many(call: Call = call) -> None:
            for _ in range(1000):
                accept = answer_type(call.accept, JSON)
                calls.encode(Answer.of(y, "predict"), calls.decode(call, schema, accept))

        (seconds,) = _in_turn({"": many}).values()
        print(f"{'one row, ' + kind:26} {seconds * 1e3:9.2f} µs")


def _in_turn(works: dict[str, Work]) -> dict[str, float]:
    """Return the least CPU seconds of each, over rounds that take them in turn."""
    took = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            began = time.process_time()
            work()
            took[name] = min(took[name], time.process_time() - began)
    return took


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


if __name__ == "__main__":
    main()
