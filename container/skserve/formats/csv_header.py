"""The first line of a CSV body, where it names the columns.

Under batch transform only the first part of a file has it. So there it must name the columns in the
order of the model, which is how the other parts are read, and it is answered by a line of its own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from skserve.errors import BadRequest
from skserve.estimators.columns import NUMBER
from skserve.estimators.schema import Schema
from skserve.formats.cells import is_number, listed
from skserve.formats.conform import conform
from skserve.formats.media_types import MediaType
from skserve.formats.table import Table

csv.field_size_limit(1 << 31)  # the body has a limit of its own; a long text is not an error

SAID = ("present", "absent")  # by header= in the type of the content


def names_fitted(cells: Sequence[str], fitted: Sequence[str] | None) -> bool:
    """Whether a first line names the fitted columns, all of them or at least half of its cells.

    Half is enough to call a wrong header by its name instead of reading it as data; a row of data
    that holds that many column names does not occur.
    """
    known = set(fitted or ())  # a tuple would be searched once for each cell
    named = sum(cell in known for cell in cells)
    return named > 0 and named * 2 >= len(cells)


def names_anything(cells: Sequence[str]) -> bool:
    """Whether a first line can name columns that are not known yet: no cell is empty or number."""
    return all(cells) and not any(map(is_number, cells))


@dataclass(frozen=True)
class Header:
    """The line as it stands in the body, with its end, and the names in it."""

    line: bytes
    names: tuple[str, ...]

    @classmethod
    def of(cls, body: bytes, kind: MediaType, schema: Schema, batch: bool = False) -> Header | None:
        """Find the header of a body, if it has one. Raises BadRequest for a wrong one in batch."""
        said = kind.parameters.get("header", "").lower()
        if not said and schema.records:
            said = "present"  # there is no other way to read the line
        if said not in ("", *SAID):
            raise BadRequest(
                f"header={said} is not known.", "Send header=present or header=absent."
            )
        if said == "absent" or (said != "present" and not schema.names):
            return None
        if batch and not schema.names:
            raise BadRequest(
                "Only the first part of a file has its header, and the model was fitted without "
                "names to know one by.",
                "Take the header line out of the file, and header=present out of the type.",
            )
        taken = 0

        def lines() -> Iterator[str]:
            nonlocal taken
            for line in io.TextIOWrapper(io.BytesIO(body), "utf-8", "replace", newline=""):
                taken += len(line.encode())
                yield line.removeprefix("\ufeff")

        try:
            names = schema.own(tuple(next(csv.reader(lines(), strict=True), [])))
        except csv.Error:
            return None  # the decoder says what is wrong
        # Each part of a file is said to have a header in batch, but it is only known by its names.
        if not names_fitted(names, schema.names) and (batch or said != "present"):
            return None
        if batch:
            _check_order(names, schema)
        return cls(body[:taken], names)


def _check_order(names: tuple[str, ...], schema: Schema) -> None:
    assert schema.names  # in batch there is no header otherwise
    if sorted(names) != sorted(schema.names):
        # A part without the header has a cell for each of the fitted columns, read or not.
        strict = replace(schema, columns=(NUMBER,) * len(schema.names), ignores_extra=False)
        conform(Table([[]], names), strict)  # says which are missing or unexpected
    if names != schema.names:
        raise BadRequest(
            "The header names the columns in another order than the model, and only the first "
            "part of a file has it: the others would be read in the wrong order.",
            f"Write the columns of the file in this order: {listed(schema.names)}.",
        )
