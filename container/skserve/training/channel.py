"""From the files of a channel to X and y, with little more memory than the data itself.

Each format has a module that reads its files. Whatever does not fit is a StartError that names the
file and the line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve import archive
from skserve.errors import StartError
from skserve.training.csv_files import read_csv
from skserve.training.dataset import Channel, Dataset
from skserve.training.json_files import read_json_lines
from skserve.training.npy_files import read_npy
from skserve.training.parquet_files import read_parquet

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


def read(channel: Channel, target: str | int | None) -> Dataset:
    """Read a channel. `target` names the column of y, or counts columns from 0. Raises StartError.

    Columns of CSV and JSON Lines objects are named; those of npy and JSON Lines lists are not.
    """
    try:
        kind, paths = _files(channel)
        values, names = _READERS[kind](paths, channel, target)
    except OSError as error:
        raise StartError(
            f"{error.filename or channel.folder} cannot be read: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise StartError(
            f"Channel {channel.name} is not UTF-8 text: {error.reason} at byte {error.start}; "
            "convert it, for example with iconv."
        ) from error
    if len(values) == 0:
        raise StartError(f"Channel {channel.name} holds no rows.")
    _check_names(names, channel)
    return _split(values, names, target, channel)


def _files(channel: Channel) -> tuple[str, list[Path]]:
    """Return the format of a channel and its files, in order of their names."""
    if not channel.folder.is_dir():
        around = channel.folder.parent
        others = archive.listing(around) if around.is_dir() else "nothing"
        raise StartError(
            f"There is no channel {channel.name} ({channel.folder}); the job brings {others}. "
            f"Add {channel.name} to the job's input."
        )
    paths = sorted(_walked(channel.folder))
    if not paths:
        raise StartError(
            f"Channel {channel.name} holds no data: {channel.folder} is empty, or its files are. "
            "Check the S3 prefix."
        )
    default = CONTENT_TYPES.get(channel.content_type.partition(";")[0].strip().lower())
    kinds = {ENDINGS.get(path.suffix.lower(), default): path for path in paths}
    if None in kinds:
        raise StartError(
            f"{kinds[None].name} in channel {channel.name} is of no known format; known endings: "
            f"{', '.join(ENDINGS)}. Unpack compressed files, or give the channel a ContentType."
        )
    if len(kinds) > 1:
        seen = " and ".join(sorted(path.name for path in kinds.values()))
        raise StartError(
            f"Channel {channel.name} mixes formats: {seen}. Put one format into a channel."
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


def _check_names(names: list[str] | None, channel: Channel) -> None:
    twice = sorted(name for name, count in Counter(names or ()).items() if count > 1)
    if twice:
        raise StartError(
            f"Channel {channel.name} has columns of the same name: {', '.join(twice[:5])}. If the "
            "first line is no header, set header=absent."
        )


# ---- X and y


def _split(values: Any, names: list[str] | None, target: Any, channel: Channel) -> Dataset:
    """Take the target out of the data."""
    columns = list(range(values.shape[1])) if names is None else names
    at = None if target is None else _place(target, columns, channel)
    y = None
    if at is not None and isinstance(values, np.ndarray):
        y = values[:, at].copy()
        values = _without(values, at)
    elif at is not None:
        y = values.pop(values.columns[at]).to_numpy()
    kept = [name for place, name in enumerate(columns) if place != at]
    if not kept:
        raise StartError(f"Channel {channel.name} has the target as its only column.")
    if isinstance(values, np.ndarray) and names is not None:
        import pandas as pd

        values = pd.DataFrame(values, columns=kept, copy=False)
    return Dataset(values, y, None if at is None else str(columns[at]))


def _place(target: Any, columns: Sequence[Any], channel: Channel) -> int:
    """Find the target by name, else by number; negative numbers count from the end."""
    if str(target) in columns:
        return columns.index(str(target))
    if isinstance(target, int) and not isinstance(target, bool):
        if -len(columns) <= target < len(columns):
            return target % len(columns)
        raise StartError(
            f"target={target}, but channel {channel.name} has {len(columns)} columns, 0 to "
            f"{len(columns) - 1}."
        )
    if columns and not isinstance(columns[0], str):
        raise StartError(
            f"target={target}, but the columns of channel {channel.name} have no names; give the "
            "target by number, from 0, or -1 for the last."
            + (" Is the first line a header? Then set header=present." if columns else "")
        )
    shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    raise StartError(f"target={target}, but channel {channel.name} has the columns {shown}.")


def _without(values: NDArray[Any], at: int) -> NDArray[Any]:
    """Take column `at` out of a C-ordered array by moving the rest together, without a copy."""
    rows, width = values.shape[0], values.shape[1] - 1
    flat = values.reshape(-1)
    for start in range(0, rows, 4096):
        block = np.delete(values[start : start + 4096], at, axis=1)
        flat[start * width : start * width + block.size] = block.reshape(-1)
    return flat[: rows * width].reshape(rows, width)


_READERS: dict[str, Callable[[list[Path], Channel, Any], tuple[Any, list[str] | None]]] = {
    "csv": read_csv,
    "npy": read_npy,
    "jsonlines": read_json_lines,
    "parquet": read_parquet,
}


def documents(data: Dataset, channel: Channel) -> Dataset:
    """Make the X of a text model: a list of strings from the only column there is."""
    if data.X.shape[1] != 1:
        raise StartError(
            f"The model reads texts, so channel {channel.name} must have one column of text beside "
            f"the target; it has {', '.join(data.names[:10])}."
        )
    texts = data.X.iloc[:, 0] if hasattr(data.X, "iloc") else data.X[:, 0]
    values = texts.tolist()
    odd = next((at for at, text in enumerate(values) if not isinstance(text, str)), None)
    if odd is not None:
        raise StartError(
            f"Row {odd + 1} of channel {channel.name} is {values[odd]}, expected text."
        )
    return replace(data, X=values)
