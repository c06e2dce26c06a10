"""Parquet files of a channel, where the image is built with pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from skserve.errors import StartError
from skserve.training.dataset import Channel


def read_parquet(paths: list[Path], channel: Channel, target: Any) -> tuple[Any, list[str] | None]:
    import pandas as pd

    try:
        frames = [pd.read_parquet(path) for path in paths]
    except ImportError:
        raise StartError(
            "This image was built without pyarrow, so it reads no Parquet: send CSV or npy, or "
            "build it with --build-arg FORMATS=parquet."
        ) from None
    except ValueError as error:
        raise StartError(f"Channel {channel.name} is not readable Parquet: {error}.") from error
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
