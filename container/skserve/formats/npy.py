"""numpy's files, npy and npz, read without unpickling and without believing what they claim."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest, TooLarge, quote
from skserve.estimators.schema import Schema
from skserve.formats import sparse
from skserve.formats.answer import Answer
from skserve.formats.cells import listed, quoted
from skserve.formats.limits import expanded_limit
from skserve.formats.media_types import MediaType
from skserve.formats.table import Decoded, Table


def read_npy(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read an array of one or two dimensions."""
    return Decoded(_table(_array(body, "The array"), schema))


def _table(values: NDArray[Any], schema: Schema) -> Table:
    """Make a table of numbers, which are not copied where they are float64 already, or of cells."""
    if not 1 <= values.ndim <= 2:
        raise BadRequest(f"The array is {values.shape}.", "Send one of one or two dimensions.")
    if 0 in values.shape[1:]:  # any number of rows would fit into no bytes
        raise BadRequest(f"The array {values.shape} holds rows without values.")
    rows: Any
    if values.dtype.kind in "biuf" and schema.numeric:
        rows = np.require(values, np.float64, ["C", "A"])
    elif values.dtype.kind in "biuf":
        rows = values.tolist()  # some columns are more exact than float64, and some know bools
    elif values.dtype.kind == "U":
        rows = values.tolist()
    else:
        rows = np.char.decode(values, "utf-8", "replace").tolist()
    return Table(rows, flat=values.ndim == 1 and not schema.text)


def _array(body: bytes, what: str) -> NDArray[Any]:
    """Return the array that `body` holds, read-only and without a copy."""
    shape, fortran, dtype, start = npy_header(body)
    held, expected = len(body) - start, math.prod((dtype.itemsize, *shape))
    if held != expected or min(shape, default=0) < 0:
        raise BadRequest(
            f"{what} is said to be {shape} of {dtype.name}, {expected} bytes; "
            f"the body holds {held}.",
            "Send an array of one or two dimensions, whole.",
        )
    if dtype.itemsize == 0:
        raise BadRequest(f"{what} {shape} of {dtype.name} holds rows without values.")
    values = np.frombuffer(body, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "U":
        _check_characters(np.frombuffer(body, dtype.byteorder + "u4", offset=start))
    return values


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def npy_header(body: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read shape, order and dtype, and where the values start."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise BadRequest(
                f"npy version {version[0]}.{version[1]} is not read; save with numpy's default."
            )
        if b"\\" in body[: body.find(b"\n") + 1]:
            # numpy writes none for numbers and strings. Python would parse it, and warn in the log.
            raise BadRequest("The body is not a .npy file: its header holds a backslash.")
        shape, fortran, dtype = _HEADERS[version](stream)
    except BadRequest:
        raise
    except Exception as error:  # a bad header fails as syntax, tokens, types, memory
        raise BadRequest(f"The body is not a .npy file: {quote(str(error)[:200])}.") from None
    if dtype.kind not in "biufUS":
        raise BadRequest(
            f"The array holds {dtype.name} values, which are not read here.",
            "Save numbers or strings: np.save(file, X.astype(float), allow_pickle=False).",
        )
    return shape, fortran, dtype, stream.tell()


def _check_characters(points: NDArray[np.uint32]) -> None:
    """Raise BadRequest for numbers that are no characters, which no string may hold."""
    if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():
        raise BadRequest("The array holds strings that are not Unicode text.")


# ---------------------------------------------------------------------------------------- npz in


def read_npz(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read one array of np.savez, or a sparse table of scipy.sparse.save_npz."""
    arrays = {name: _array(part, name) for name, part in _members(body).items()}
    if "format" in arrays and "shape" in arrays:
        return Decoded(Table(_sparse(arrays, expanded_limit(len(body)))))
    if len(arrays) != 1:
        raise BadRequest(
            f"The file holds {len(arrays)} arrays: {quoted(sorted(arrays))}.",
            "Send one array, np.savez(file, X), or a table of scipy.sparse.save_npz.",
        )
    return Decoded(_table(arrays.popitem()[1], schema))


_MOST_NAMES = 4096  # bytes: a file of ours has a name or five, another could have a million


def _members(body: bytes) -> dict[str, bytes]:
    """Unpack the zip file that npz is: `{name: contents}`. Raises BadRequest or TooLarge."""
    end = body.rfind(b"PK\5\6", -(22 + 0xFFFF))
    if end < 0 or len(body) < end + 22:
        raise BadRequest("The body is not a .npz file: it has no end.", "Send it whole.")
    if struct.unpack_from("<L", body, end + 12)[0] > _MOST_NAMES:
        raise BadRequest("The .npz file holds too many names.", "Send one array.")
    limit = expanded_limit(len(body))
    parts: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for entry in archive.infolist():
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise BadRequest("The .npz file is not compressed as numpy does it.")
                with archive.open(entry) as part:
                    contents = part.read(limit + 1)
                limit -= len(contents)
                if limit < 0:
                    raise TooLarge(
                        f"The arrays take more than {expanded_limit(len(body)):,} bytes unpacked.",
                        "Send fewer rows, or do not compress them: np.savez.",
                    )
                parts[entry.filename.removesuffix(".npy")] = contents
    except (BadRequest, TooLarge):
        raise
    except Exception as error:  # a broken zip fails as a dozen types
        raise BadRequest(f"The body is not a .npz file: {quote(str(error)[:200])}.") from None
    return parts


def _sparse(arrays: dict[str, NDArray[Any]], limit: int) -> Any:
    """Make the matrix of what scipy wrote. Raises BadRequest."""
    form, shape = arrays["format"], arrays["shape"]
    name = form.item() if form.ndim == 0 else ""
    name = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
    needed = {"csr": ("indices", "indptr"), "csc": ("indices", "indptr"), "coo": ("row", "col")}
    if name not in needed:
        raise BadRequest(
            f"The sparse table is in the form {quote(repr(name[:40]))}.",
            "Save it as CSR: scipy.sparse.save_npz(file, X.tocsr()).",
        )
    if missing := {"data", *needed[name]} - set(arrays):
        raise BadRequest(f"The sparse table has no {listed(sorted(missing))}.")
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or min(shape.tolist()) < 0:
        raise BadRequest("The shape of the sparse table is not two numbers.")
    n_rows, width = shape.tolist()
    values, one, other = arrays["data"], *(arrays[part] for part in needed[name])
    if name == "csr":
        if other.shape != (n_rows + 1,):
            raise BadRequest(f"The sparse table says {n_rows} rows and holds others.")
        return sparse.rows_of(values, one, other, width)
    if n_rows * 8 > limit:
        raise TooLarge(f"The sparse table claims {n_rows:,} rows.", "Save it as CSR.")
    if name == "csc":
        if other.shape != (width + 1,):
            raise BadRequest(f"The sparse table says {width} columns and holds others.")
        other = sparse.spread(other, values.size)
    return sparse.rows_of_places(values, one, other, (n_rows, width))


def write_npy(answer: Answer, enveloped: bool) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, answer.array(), allow_pickle=False)
    return stream.getvalue()


def write_npz(answer: Answer, enveloped: bool) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **answer.arrays())  # type: ignore[arg-type]  # the names are not its options
    return stream.getvalue()


def npy_head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what stands before the values of an array in rows."""
    stream = io.BytesIO()
    described = np.lib.format.dtype_to_descr(dtype)
    head = {"descr": described, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, head)
    return stream.getvalue()
