"""Arrays to bodies and back, as AWS's two toolkits do it, but safely.

Two tables choose by media type (case and parameters do not matter). An unknown type raises
UnsupportedFormatError: 415 from decode, 406 from encode. An unreadable body raises a ValueError,
ours or json's own, with `status_code = 400` added. Deliberate differences from the originals: a
pickle is never loaded nor written, and NaN and infinity leave JSON as null. Their bare NaN is not
JSON, and most readers outside Python refuse it; AWS's scikit-learn container, whose default
reader casts to float32, reads null back as NaN.
"""

import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sagemaker_containers.beta.framework import content_types, errors

Array = npt.NDArray[Any]


def array_to_json(array_like: Any) -> str:
    """Write lists, dictionaries, numbers and whatever has `tolist()` as JSON."""
    try:
        return json.dumps(array_like, default=_plain, allow_nan=False)
    except ValueError:  # a NaN or an infinity somewhere: only then pay for the walk
        return json.dumps(_null_for_nan(array_like), default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _null_for_nan(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_for_nan(item) for item in value]
    return value


def array_to_csv(array_like: Any) -> str:
    r"""Write one line per row, each ended by "\n"; a flat list becomes a column."""
    array = np.array(array_like)
    if array.ndim not in (1, 2):
        raise TypeError(f"text/csv holds a list or a table, not {array.ndim} dimensions")
    out = io.StringIO()
    rows = array.reshape(-1, 1) if array.ndim == 1 else array
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def array_to_npy(array_like: Any) -> bytes:
    """Write numpy's own format. Labels held as Python objects become numpy strings."""
    array = np.asanyarray(array_like)
    if array.dtype == object and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def json_to_numpy(string_like: str, dtype: npt.DTypeLike | None = None) -> Array:
    """Read a JSON list. A null is None, in an object array, until a cast makes it NaN."""
    return np.array(json.loads(string_like), dtype=dtype)


def csv_to_numpy(string_like: str, dtype: npt.DTypeLike | None = None) -> Array:
    """Read floats, an empty cell being NaN; if one is no number, all stay str objects.

    One line or one column becomes flat, as scripts that reshape it expect.
    """
    try:
        rows = list(csv.reader(io.StringIO(string_like), strict=True))
    except csv.Error as error:
        raise errors.ClientError(f"Error while decoding csv: {error}") from error
    widths = {len(row) for row in rows}
    if len(widths) != 1 or 0 in widths:
        raise errors.ClientError(f"Error while decoding csv: rows of {sorted(widths)} cells")
    # Not numpy's str: there one long cell makes every cell as wide.
    cells = np.array(rows, dtype=object).squeeze()
    try:
        if dtype is not None:
            return cells.astype(dtype)
        return np.where(cells == "", np.nan, cells).astype(float)
    except ValueError as error:
        if dtype is None:
            return cells
        raise errors.ClientError(f"Error while decoding csv as {dtype}: {error}") from error


def npy_to_numpy(npy_array: bytes) -> Array:
    """Read numpy's own format, never a pickle."""
    try:
        array: Array = np.lib.format.read_array(io.BytesIO(npy_array), allow_pickle=False)
    except Exception as error:  # a bad header fails as syntax, types, or memory claimed
        raise errors.ClientError(f"Error while decoding npy: {error}") from error
    if array.size and not array.nbytes:  # such a header claims any number of rows for free
        raise errors.ClientError("Error while decoding npy: items of zero bytes")
    return array


ENCODERS: dict[str, Callable[[Any], str | bytes]] = {
    content_types.NPY: array_to_npy,
    content_types.CSV: array_to_csv,
    content_types.JSON: array_to_json,
}
DECODERS: dict[str, Callable[[Any], Array]] = {
    content_types.NPY: npy_to_numpy,
    content_types.CSV: csv_to_numpy,
    content_types.JSON: json_to_numpy,
}


def encode(array_like: Any, content_type: str) -> str | bytes:
    """Write an array-like as `content_type`: str for JSON and CSV, bytes for npy."""
    encoder = ENCODERS.get(_media_type(content_type))
    if encoder is None:
        raise errors.UnsupportedFormatError(content_type, 406, ENCODERS)
    return encoder(array_like)


def decode(obj: str | bytes, content_type: str) -> Array:
    """Read a body of `content_type`. What the caller did wrong carries a `status_code`."""
    media_type = _media_type(content_type)
    decoder = DECODERS.get(media_type)
    if decoder is None:
        raise errors.UnsupportedFormatError(content_type, 415, DECODERS)
    try:
        if isinstance(obj, bytes) and media_type in content_types.UTF8_TYPES:
            obj = obj.decode()
        return decoder(obj)
    except (ValueError, RecursionError) as error:
        error.status_code = 400  # type: ignore[union-attr]
        raise


def _media_type(content_type: str) -> str:
    return (content_type or "").partition(";")[0].strip().lower()
