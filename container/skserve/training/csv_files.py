"""CSV files of a channel: plain numbers at the speed of C, anything else cell by cell."""

from __future__ import annotations

import csv
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from skserve.errors import StartError
from skserve.estimators.columns import to_number
from skserve.formats.csv_header import SAID, names_anything
from skserve.training.cells import Rows, gathered
from skserve.training.dataset import Channel

log = logging.getLogger("skserve")

_HEADERS = ("auto", *SAID)


def read_csv(paths: list[Path], channel: Channel, target: Any) -> tuple[Any, list[str] | None]:
    header = _header(paths[0], channel, target)
    try:
        return _plain_numbers(paths, header), header
    except ValueError:  # text, a missing cell, or a row that does not fit: look at each cell
        return gathered(lambda: _csv_rows(paths, header), header, to_number)


def _header(path: Path, channel: Channel, target: Any) -> list[str] | None:
    """Return the names in the first line, where it is a header.

    It is one if the job says so, by header= or in the channel's content type, or if the target is
    given by a name; otherwise if no cell of it is a number. The log says what was decided.
    """
    told = channel.content_type.lower().replace(" ", "").partition(";header=")[2] or channel.header
    if told not in _HEADERS:
        raise StartError(f"header={told}; expected {', '.join(_HEADERS)}.")
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = _names(file)
    if target is not None and len(first) == 1 and (found := re.search(r"[;\t|]", first[0])):
        raise StartError(
            f"{path.name} is one column, separated by {found[0]!r}? Save it with commas between "
            "cells, and points in numbers."
        )
    named = isinstance(target, str) and target in first
    if told == "absent" or not (told == "present" or named or names_anything(first)):
        log.info("%s: the first line is data (header=present says otherwise)", path.name)
        return None
    shown = ", ".join(first[:10]) + (", ..." if len(first) > 10 else "")
    log.info("%s: the first line is a header: %s", path.name, shown)
    return first


def _names(file: TextIO) -> list[str]:
    """Return the cells of the first line that is not empty."""
    first = next(filter(None, csv.reader(file)), [])
    return [cell.strip() for cell in first]


def _lines(path: Path, header: list[str] | None) -> Iterator[str]:
    """Yield the lines of a file after its header, which every file of a channel may repeat."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if header is not None:
            first = _names(file)
            if first != header and sorted(first) == sorted(header):
                raise StartError(
                    f"{path.name} has the columns of the first file in another order; put them "
                    "into the same."
                )
            if first != header:
                file.seek(0)
        yield from file


def _plain_numbers(paths: list[Path], header: list[str] | None) -> NDArray[np.float64]:
    """Parse a table of numbers and nothing else. Raises ValueError for any other."""
    lines = (line for path in paths for line in _lines(path, header))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "input contained no data": told by `read`
        values = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2, quotechar='"')
    if header is not None and values.shape[1] != len(header):
        raise ValueError
    return values


def _csv_rows(paths: list[Path], header: list[str] | None) -> Rows:
    for path in paths:
        reader = csv.reader(_lines(path, header), strict=True)
        try:
            for row in reader:
                if row:
                    yield f"{path.name}, line {reader.line_num + (header is not None)}", row
        except csv.Error as error:
            raise StartError(
                f"{path.name}, line {reader.line_num} is not CSV: {error}. Close every double "
                "quote."
            ) from error
