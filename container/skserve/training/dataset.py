"""What a training job learns from: where a channel's files are, and the X and y made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Channel:
    """A channel's folder, and what the job says of it. `header` is auto, present or absent."""

    name: str
    folder: Path
    content_type: str = ""
    header: str = "auto"


@dataclass(frozen=True)
class Dataset:
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


def missing(X: Any) -> int:
    """Return how many cells of X are missing, block by block."""
    if isinstance(X, np.ndarray):
        return sum(int(np.isnan(X[at : at + 4096]).sum()) for at in range(0, len(X), 4096))
    return int(sum(int(X[name].isna().sum()) for name in X.columns))
