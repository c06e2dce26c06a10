"""InputFilter and OutputFilter: the part of JSONPath that batch transform has.

`$` is the whole record, `.name` and `['a','b']` choose keys, `[0,2,-1]` and `[1:]` choose items,
`*` everything inside. The record of a CSV line is the list of its cells.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

_STEP = re.compile(
    r"\.(?P<name>\w+)|\.?(?P<all>\*|\[\*\])|\[(?P<keys>'[^']*'(?:\s*,\s*'[^']*')*)\]"
    r"|\[(?P<items>-?\d+(?:\s*,\s*-?\d+)*)\]|\[(?P<start>-?\d*):(?P<stop>-?\d*)\]"
)


class FilterError(ValueError):
    """The expression is none, or does not fit a record."""


class Filter:
    """A compiled expression."""

    def __init__(self, expression: str) -> None:
        self.whole = expression == "$"
        self._text, self._steps = expression, []
        if not expression.startswith("$"):
            raise FilterError(f"the filter {expression} does not start with $")
        at = 1
        while at < len(expression):
            found = _STEP.match(expression, at)
            if found is None:
                raise FilterError(f"the filter {expression} cannot be read at {expression[at:]}")
            self._steps.append(_step(found))
            at = found.end()

    def __call__(self, record: Any) -> Any:
        """Return the part of a record that is chosen. Raises `FilterError`."""
        try:
            for step in self._steps:
                record = step(record)
        except (LookupError, TypeError) as error:
            raise FilterError(
                f"the filter {self._text} does not fit a record: {error!r}"
            ) from error
        return record


def _step(found: re.Match[str]) -> Callable[[Any], Any]:
    if name := found["name"]:
        return lambda record: record[name]
    if found["all"]:
        return lambda record: list(record.values()) if isinstance(record, dict) else list(record)
    if found["keys"]:
        keys = re.findall(r"'([^']*)'", found["keys"])
        if len(keys) == 1:
            return lambda record: record[keys[0]]
        return lambda record: {key: record[key] for key in keys}
    if found["items"]:
        items = [int(item) for item in found["items"].split(",")]
        if len(items) == 1:
            return lambda record: [record[items[0]]] if _is_row(record) else record[items[0]]
        return lambda record: [record[item] for item in items]
    start, stop = (int(found[key]) if found[key] else None for key in ("start", "stop"))
    return lambda record: record[start:stop]


def _is_row(record: Any) -> bool:
    """Whether a record is a line of CSV: one cell of it is a line again."""
    return isinstance(record, list) and all(isinstance(cell, str) for cell in record)


def parse(line: bytes, content_type: str) -> Any:
    """Return the record of a line: cells of CSV, or what JSON holds."""
    if content_type.startswith("text/csv"):
        return next(csv.reader([line.decode()]), [])
    return json.loads(line)


def write(record: Any, content_type: str) -> bytes:
    """Return a record as a line without its end."""
    if not content_type.startswith("text/csv"):
        return json.dumps(record).encode()
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(record if isinstance(record, list) else [record])
    return text.getvalue().encode()
