"""npy files of a channel, into one array."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import StartError
from skserve.training.dataset import Channel

log = logging.getLogger("skserve")


def read_npy(paths: list[Path], channel: Channel, target: Any) -> tuple[Any, None]:
    parts = [_opened(path) for path in paths]
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise StartError(
            f"The files of channel {channel.name} have {min(widths)} to {max(widths)} columns."
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
