"""From the files of a channel to X and y, with little more memory than the data itself.

CSV of plain numbers is read at the speed of C straight into one array. Anything else that has rows
of cells is read twice: first to count the rows and to learn which columns hold numbers, then into
arrays of the right size. A column is a number where every cell is one or is missing; all others are
text. Whatever does not fit is a StartError that names the file and the line.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from skserve import archive
from skserve.errors import StartError
from skserve.estimators.columns import TRUTH

log = logging.getLogger("skserve")

# Which format a file holds, by its ending; by the channel's content type where it has none.
ENDINGS = {
    ".csv": "csv",
    ".npy": "npy",
    ".jsonl": "jsonlines",
    ".ndjson": "jsonlines",
    ".parquet": "parquet",
}
CONTENT_TYPES = {
    "text/csv": "csv",
    "application/x-npy": "npy",
    "application/jsonlines": "jsonlines",
    "application/x-ndjson": "jsonlines",
    "application/x-parquet": "parquet",
    "application/vnd.apache.parquet": "parquet",
}
_HEADERS = ("auto", "present", "absent")

csv.field_size_limit(1 << 31)


@dataclass(frozen=True)
class Source:
    """A channel's folder, and what the job says of it. `header` is auto, present or absent."""

    name: str
    folder: Path
    content_type: str = ""
    header: str = "auto"


@dataclass(frozen=True)
class Table:
    """X, (n_rows, n_columns): an array, or a DataFrame where columns have names or hold text.

    y is (n_rows,), or None where no target was asked for.
    """

    X: Any
    y: NDArray[Any] | None = None
    target: str | None = None

    @property
    def names(self) -> list[str]:
        """The columns of X, by name or by number from 0."""
        return [str(name) for name in getattr(self.X, "columns", range(self.X.shape[1]))]


def read(source: Source, target: str | int | None) -> Table:
    """Read a channel. `target` names the column of y, or counts columns from 0. Raises StartError.

    Columns of CSV and JSON Lines objects are named; those of npy and JSON Lines lists are not.
    """
    try:
        kind, paths = _files(source)
        values, names = _READERS[kind](paths, source, target)
    except OSError as error:
        raise StartError(
            f"{error.filename or source.folder} cannot be read: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise StartError(
            f"Channel {source.name} is not UTF-8 text: {error.reason} at byte {error.start}; "
            "convert it, for example with iconv."
        ) from error
    if len(values) == 0:
        raise StartError(f"Channel {source.name} holds no rows.")
    _check_names(names, source)
    return _split(values, names, target, source)


def _files(source: Source) -> tuple[str, list[Path]]:
    """Return the format of a channel and its files, in order of their names."""
    if not source.folder.is_dir():
        around = source.folder.parent
        others = archive.listing(around) if around.is_dir() else "nothing"
        raise StartError(
            f"There is no channel {source.name} ({source.folder}); the job brings {others}. "
            f"Add {source.name} to the job's input."
        )
    paths = sorted(_walked(source.folder))
    if not paths:
        raise StartError(
            f"Channel {source.name} holds no data: {source.folder} is empty, or its files are. "
            "Check the S3 prefix."
        )
    default = CONTENT_TYPES.get(source.content_type.partition(";")[0].strip().lower())
    kinds = {ENDINGS.get(path.suffix.lower(), default): path for path in paths}
    if None in kinds:
        raise StartError(
            f"{kinds[None].name} in channel {source.name} is of no known format; known endings: "
            f"{', '.join(ENDINGS)}. Unpack compressed files, or give the channel a ContentType."
        )
    if len(kinds) > 1:
        seen = " and ".join(sorted(path.name for path in kinds.values()))
        raise StartError(
            f"Channel {source.name} mixes formats: {seen}. Put one format into a channel."
        )
    return str(next(iter(kinds))), paths


def _walked(folder: Path) -> Iterator[Path]:
    """Yield the files that hold anything. Raises OSError for a folder that may not be read."""
    for path in folder.iterdir():  # rglob would pass over such a folder, and its rows be lost
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            yield from _walked(path)
        elif path.is_file() and path.stat().st_size:
            yield path


def _check_names(names: list[str] | None, source: Source) -> None:
    twice = sorted(name for name, count in Counter(names or ()).items() if count > 1)
    if twice:
        raise StartError(
            f"Channel {source.name} has columns of the same name: {', '.join(twice[:5])}. If the "
            "first line is no header, set header=absent."
        )


# ---- X and y


def _split(values: Any, names: list[str] | None, target: Any, source: Source) -> Table:
    """Take the target out of the table."""
    columns = list(range(values.shape[1])) if names is None else names
    at = None if target is None else _place(target, columns, source)
    y = None
    if at is not None and isinstance(values, np.ndarray):
        y = values[:, at].copy()
        values = _without(values, at)
    elif at is not None:
        y = values.pop(values.columns[at]).to_numpy()
    kept = [name for place, name in enumerate(columns) if place != at]
    if not kept:
        raise StartError(f"Channel {source.name} has the target as its only column.")
    if isinstance(values, np.ndarray) and names is not None:
        import pandas as pd

        values = pd.DataFrame(values, columns=kept, copy=False)
    return Table(values, y, None if at is None else str(columns[at]))


def _place(target: Any, columns: Sequence[Any], source: Source) -> int:
    """Find the target by name, else by number; negative numbers count from the end."""
    if str(target) in columns:
        return columns.index(str(target))
    if isinstance(target, int) and not isinstance(target, bool):
        if -len(columns) <= target < len(columns):
            return target % len(columns)
        raise StartError(
            f"target={target}, but channel {source.name} has {len(columns)} columns, 0 to "
            f"{len(columns) - 1}."
        )
    if columns and not isinstance(columns[0], str):
        raise StartError(
            f"target={target}, but the columns of channel {source.name} have no names; give the "
            "target by number, from 0, or -1 for the last."
            + (" Is the first line a header? Then set header=present." if columns else "")
        )
    shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    raise StartError(f"target={target}, but channel {source.name} has the columns {shown}.")


def _without(values: NDArray[Any], at: int) -> NDArray[Any]:
    """Take column `at` out of a C-ordered array by moving the rest together, without a copy."""
    rows, width = values.shape[0], values.shape[1] - 1
    flat = values.reshape(-1)
    for start in range(0, rows, 4096):
        block = np.delete(values[start : start + 4096], at, axis=1)
        flat[start * width : start * width + block.size] = block.reshape(-1)
    return flat[: rows * width].reshape(rows, width)


# ---- npy


def _read_npy(paths: list[Path], source: Source, target: Any) -> tuple[Any, None]:
    parts = [_opened(path) for path in paths]
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise StartError(
            f"The files of channel {source.name} have {min(widths)} to {max(widths)} columns."
        )
    kind = np.result_type(*(part.dtype for part in parts))
    kind = kind if kind in (np.float32, np.float64) else np.dtype(np.float64)
    values = np.empty((sum(len(part) for part in parts), widths.pop()), kind)
    at = 0
    for path, part in zip(paths, parts, strict=True):
        for block in _blocks(path, part):
            values[at : at + len(block)] = block
            at += len(block)
        log.info("%s: %d rows", path.name, len(part))
    return values, None


def _opened(path: Path) -> NDArray[Any]:
    """Map an npy file; nothing in it is unpickled."""
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise StartError(f"{path.name} is not a readable npy file of numbers: {error}") from error
    if values.dtype.kind not in "fiub" or values.ndim not in (1, 2):
        raise StartError(
            f"{path.name} holds {values.dtype} of shape {values.shape}; expected numbers in rows "
            "and columns."
        )
    return values.reshape(-1, 1) if values.ndim == 1 else values


def _blocks(path: Path, part: Any) -> Iterator[NDArray[Any]]:
    """Yield the rows of an npy file in blocks; pages of a mapped file would count as ours."""
    rows, width = part.shape
    for start in range(0, rows, 4096):
        count = min(4096, rows - start)
        if not part.flags.c_contiguous:
            yield part[start : start + count]
            continue
        offset = part.offset + start * width * part.itemsize
        block = np.fromfile(path, part.dtype, count * width, offset=offset)
        yield block.reshape(count, width)


# ---- CSV

Rows = Iterator[tuple[str, list[Any]]]  # where a row stands, for messages, and its cells


def _read_csv(paths: list[Path], source: Source, target: Any) -> tuple[Any, list[str] | None]:
    header = _header(paths[0], source, target)
    try:
        return _plain_numbers(paths, header), header
    except ValueError:  # text, a missing cell, or a row that does not fit: look at each cell
        return _cells(lambda: _csv_rows(paths, header), header, _spelled)


def _header(path: Path, source: Source, target: Any) -> list[str] | None:
    """Return the names in the first line, where it is a header.

    It is one if the job says so, by header= or in the channel's content type, or if the target is
    given by a name; otherwise if no cell of it is a number. The log says what was decided.
    """
    told = source.content_type.lower().replace(" ", "").partition(";header=")[2] or source.header
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
    if told == "absent" or not (told == "present" or named or _is_header(first)):
        log.info("%s: the first line is data (header=present says otherwise)", path.name)
        return None
    shown = ", ".join(first[:10]) + (", ..." if len(first) > 10 else "")
    log.info("%s: the first line is a header: %s", path.name, shown)
    return first


def _names(file: TextIO) -> list[str]:
    """Return the cells of the first line that is not empty."""
    first = next(filter(None, csv.reader(file)), [])
    return [cell.strip() for cell in first]


def _is_header(cells: list[str]) -> bool:
    return all(cells) and not any(_is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        _spelled(cell)
    except ValueError:
        return False
    return True


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


def _spelled(cell: str) -> float:
    """Read a cell of CSV as a number, as `serve` does; an empty one is missing."""
    if not cell.strip():
        return math.nan
    if "_" in cell:
        raise ValueError  # Python reads 1_000, no file format does
    return float(TRUTH.get(cell.strip(), cell))


# ---- JSON Lines


def _read_json_lines(
    paths: list[Path], source: Source, target: Any
) -> tuple[Any, list[str] | None]:
    _, first = next(_json_rows(paths), ("", []))
    names = [str(name) for name in first] if isinstance(first, dict) else None
    return _cells(lambda: _listed(_json_rows(paths), names), names, _typed)


def _json_rows(paths: list[Path]) -> Iterator[tuple[str, Any]]:
    for path in paths:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path.name}, line {number}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise StartError(f"{where} is not JSON: {error}.") from error
                if not isinstance(row, list | dict):
                    raise StartError(f"{where} is no list and no object.")
                yield where, row


def _listed(rows: Iterator[tuple[str, Any]], names: list[str] | None) -> Rows:
    """Put the values of objects into the order of the first one; what it lacks is missing."""
    for where, row in rows:
        if isinstance(row, list) != (names is None):
            raise StartError(f"{where}: lists and objects are mixed.")
        if names is not None:
            if unknown := sorted(row.keys() - set(names)):
                raise StartError(
                    f"{where} has {', '.join(unknown[:5])}, which the first object has not."
                )
            row = [row.get(name) for name in names]
        yield where, row


def _typed(cell: Any) -> float:
    """Read a JSON value as a number: null is missing, and a string is never a number."""
    if cell is None:
        return math.nan
    if isinstance(cell, str | list | dict):
        raise ValueError
    return float(cell)


# ---- rows of cells


def _cells(
    rows: Callable[[], Rows], names: list[str] | None, number: Callable[[Any], float]
) -> tuple[Any, list[str] | None]:
    """Gather rows: one array if all columns are numbers, a DataFrame otherwise."""
    count, width, texts = _surveyed(rows(), names, number)
    numbers = [at for at in range(width) if at not in texts]
    values = np.empty((count, len(numbers)))
    words: dict[int, list[Any]] = {at: [] for at in texts}
    for place, (_, row) in enumerate(rows()):
        values[place] = [number(row[at]) for at in numbers]
        for at, column in words.items():
            column.append(_word(row[at]))
    if not texts:
        return values, names
    import pandas as pd

    named = names or [str(at) for at in range(width)]
    log.info("text columns: %s", ", ".join(named[at] for at in sorted(texts)))
    columns = {
        name: pd.Series(words[at], dtype=object) if at in texts else values[:, numbers.index(at)]
        for at, name in enumerate(named)
    }
    return pd.DataFrame(columns), named


def _surveyed(
    rows: Rows, names: list[str] | None, number: Callable[[Any], float]
) -> tuple[int, int, set[int]]:
    """Return the number of rows, that of columns, and which columns hold text."""
    count, width, texts = 0, len(names) if names is not None else 0, set[int]()
    for where, row in rows:
        width = width or len(row)
        if len(row) != width:
            raise StartError(f"{where} has {len(row)} values, expected {width}.")
        for at, cell in enumerate(row):
            if at not in texts:
                try:
                    number(cell)
                except (ValueError, TypeError, OverflowError):
                    texts.add(at)
        count += 1
    return count, width, texts


def _word(cell: Any) -> Any:
    """Keep a text as it is; an empty cell and null are missing."""
    return math.nan if cell is None or cell == "" else cell


# ---- Parquet


def _read_parquet(paths: list[Path], source: Source, target: Any) -> tuple[Any, list[str] | None]:
    import pandas as pd

    try:
        frames = [pd.read_parquet(path) for path in paths]
    except ImportError:
        raise StartError(
            "This image was built without pyarrow, so it reads no Parquet: send CSV or npy, or "
            "build it with --build-arg FORMATS=parquet."
        ) from None
    except ValueError as error:
        raise StartError(f"Channel {source.name} is not readable Parquet: {error}.") from error
    frame = pd.concat(frames, ignore_index=True)
    names = [str(name) for name in frame.columns]
    numeric = [isinstance(kind, np.dtype) and kind.kind in "fiub" for kind in frame.dtypes]
    if all(numeric):
        return frame.to_numpy(dtype=np.float64), names
    # Text as the other formats give it, and as the model will meet it when it serves.
    columns = [
        frame.iloc[:, at].astype(np.float64 if number else object)
        for at, number in enumerate(numeric)
    ]
    return pd.DataFrame(dict(zip(names, columns, strict=True))), names


_READERS: dict[str, Callable[[list[Path], Source, Any], tuple[Any, list[str] | None]]] = {
    "csv": _read_csv,
    "npy": _read_npy,
    "jsonlines": _read_json_lines,
    "parquet": _read_parquet,
}


def missing(X: Any) -> int:
    """Return how many cells of X are missing, block by block."""
    if isinstance(X, np.ndarray):
        return sum(int(np.isnan(X[at : at + 4096]).sum()) for at in range(0, len(X), 4096))
    return int(sum(int(X[name].isna().sum()) for name in X.columns))


def documents(table: Table, source: Source) -> Table:
    """Make the X of a text model: a list of strings from the only column there is."""
    if table.X.shape[1] != 1:
        raise StartError(
            f"The model reads texts, so channel {source.name} must have one column of text beside "
            f"the target; it has {', '.join(table.names[:10])}."
        )
    texts = table.X.iloc[:, 0] if hasattr(table.X, "iloc") else table.X[:, 0]
    values = texts.tolist()
    odd = next((at for at, text in enumerate(values) if not isinstance(text, str)), None)
    if odd is not None:
        raise StartError(f"Row {odd + 1} of channel {source.name} is {values[odd]}, expected text.")
    return replace(table, X=values)
