"""Checks of what callers do wrong: it is theirs, so the status is a 4xx and never a 5xx."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from skserve.formats.media_types import CSV, JSON, JSON_LINES, NPY, NPZ, RECORDIO
from skserve.selftest import contract
from skserve.selftest.bodies import records
from skserve.selftest.client import Answer
from skserve.selftest.tables import Table
from skserve.selftest.verdict import Verdict, failed, passed, warned
from skserve.selftest.walk import Walk


class Fault(NamedTuple):
    """A body that no model takes; `make` returns it, or None where it does not apply."""

    name: str
    content_type: str
    make: Callable[[Walk], bytes | None]


def _changed(change: Callable[[Table], Any]) -> Callable[[Walk], bytes | None]:
    """Make a JSON body by a change to the table of numbers and texts, where there is one."""

    def make(walk: Walk) -> bytes | None:
        if walk.table is None or walk.table.text or walk.about["n_features"] is None:
            return None
        changed = change(walk.table)
        return None if changed is None else json.dumps(changed).encode()

    return make


def _text_for_a_number(walk: Walk) -> bytes | None:
    kinds = [column["type"] for column in walk.about["columns"]]
    if walk.table is None or "number" not in kinds:
        return None
    row = list(walk.table.rows[0])
    row[kinds.index("number")] = "no number"
    return json.dumps([row]).encode()


def _unknown_name(table: Table) -> Any:
    if table.names is None:
        return None
    record = records(table)[0]
    name = next(iter(record))
    return [{("selftest " + key if key == name else key): cell for key, cell in record.items()}]


def _unequal(table: Table) -> Any:
    return [*table.rows[:2], table.rows[2 % len(table.rows)] + [1.0]]


SHAPES = (
    Fault("a value too many in a row", JSON, _changed(lambda table: [table.rows[0] + [1.0]])),
    Fault("a row without values", JSON, _changed(lambda table: [[]])),
    Fault("rows of unequal length", JSON, _changed(_unequal)),
    Fault("rows inside of rows", JSON, _changed(lambda table: [[row] for row in table.rows])),
    Fault("a text for a number", JSON, _text_for_a_number),
    Fault("a column of an unknown name", JSON, _changed(_unknown_name)),
)


def _always(body: bytes) -> Callable[[Walk], bytes | None]:
    return lambda walk: body


SYNTAX = (
    Fault("an empty body", JSON, _always(b"")),
    Fault("JSON that is cut off", JSON, _always(b'{"instances": [[1, 2')),
    Fault("a number for rows", JSON, _always(b"17")),
    Fault("an object of an unknown form", JSON, _always(b'{"selftest": [{}]}')),
    Fault("bytes that are no text, as JSON", JSON, _always(b'[["\xff\xfe"]]')),
    Fault("bytes that are no text, as CSV", CSV, _always(b"\xff\xfe\n")),
    Fault("JSON Lines that are cut off", JSON_LINES, _always(b"[1, 2]\n[3")),
    Fault("a broken npy", NPY, _always(b"\x93NUMPY\x01\x00 selftest")),
    Fault("a broken npz", NPZ, _always(b"PK\x03\x04 selftest")),
    Fault("a broken recordio", RECORDIO, _always(b"\x0a\x23\xd7\xce\xff\xff")),
)


def wrong_bodies(walk: Walk) -> Verdict:
    """Send bodies that cannot be read, and then some of a shape that the model does not take."""
    return _verdict(walk, list(_sent(walk)), "broken bodies and wrong shapes")


def _sent(walk: Walk) -> Iterator[tuple[str, Answer]]:
    for fault in SYNTAX if walk.reads_itself else (*SYNTAX, *SHAPES):
        body = fault.make(walk)
        if body is not None:
            yield fault.name, walk.post(body, fault.content_type)


def media_types(walk: Walk) -> Verdict | None:
    """Ask in a type that is not read, and for one that is not written."""
    if walk.sample is None:
        return None
    body, kind = walk.sample
    unread = walk.post(body, "application/x-selftest")
    unwritten = walk.post(body, kind, "application/x-selftest")
    if not walk.script and (unread.status, unwritten.status) != (415, 406):
        return failed(
            f"Content-Type application/x-selftest is answered {unread.said}, as Accept "
            f"{unwritten.said}.",
            "Expected 415 and 406: report it.",
        )
    asked = [("a Content-Type", unread)] if walk.reads_itself else []
    asked += [("an Accept", unwritten)] if walk.writes_itself else []
    return _verdict(
        walk, asked or [("a Content-Type", unread), ("an Accept", unwritten)], "unknown media types"
    )


def _verdict(walk: Walk, sent: list[tuple[str, Answer]], what: str) -> Verdict:
    """Judge the answers to faults: a script may take what it likes, but should refuse by a 4xx."""
    walk.errors_of_faults = contract.errors(walk)
    broken = [(name, answer) for name, answer in sent if answer.status >= 500]
    taken = [(name, answer) for name, answer in sent if answer.status < 400]
    if broken and walk.script:
        return warned(
            f"{len(broken)} of {len(sent)} faults are a 5xx; {broken[0][0]}: {broken[0][1].said}",
            "Let the script raise an exception that has a status_code, such as 400 or 415.",
        )
    if broken:
        return failed(
            f"{broken[0][0]} is answered {broken[0][1].said}",
            "A caller's fault must be a 4xx: the log has the traceback. Report it.",
        )
    if taken and not walk.script:
        return failed(
            f"{taken[0][0]} is answered {taken[0][1].said}",
            "It must be refused: the answer is that of other rows. Report it.",
        )
    return passed(f"{len(sent)} {what}, each of them refused by a 4xx.")
