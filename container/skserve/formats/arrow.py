"""Parquet and Arrow, in and out, where the image has pyarrow.

pyarrow is compiled code that an untrusted file may crash, so it never runs in the process that
serves: it runs in a `Sandbox`, and plain numbers and strings come back.
"""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np

from skserve.errors import BadRequest, ModelFault, TooLarge, quote
from skserve.estimators.schema import Schema
from skserve.formats.answer import Answer
from skserve.formats.json_text import dumps
from skserve.formats.limits import expanded_limit
from skserve.formats.media_types import ARROW_FILE, ARROW_STREAM, PARQUET, X_PARQUET, MediaType
from skserve.formats.sandbox import Job, Sandbox, SandboxError, Work
from skserve.formats.table import Decoded, Table

FORMS = {PARQUET: "Parquet", X_PARQUET: "Parquet", ARROW_STREAM: "stream", ARROW_FILE: "file"}
INSTALLED = importlib.util.find_spec("pyarrow") is not None
WAY_OUT = "This image is built without Parquet and Arrow: docker build --build-arg FORMATS=parquet."

_MEMORY = 128 << 20  # bytes that a job may take whatever its size
_sandbox = Sandbox("skserve.formats.arrow")


def read_columns(body: bytes, kind: MediaType, schema: Schema) -> Decoded:
    """Read a table whose columns are matched by name, if the model knows names."""
    limit = expanded_limit(len(body))
    facts = {"do": "read", "form": FORMS[kind.name], "limit": limit, "numeric": schema.numeric}
    try:
        found, numbers = _sandbox.ask(facts, body, _MEMORY + 4 * limit)
    except SandboxError:
        raise BadRequest(
            "The file cannot be read: it breaks its reader.", "Write it anew."
        ) from None
    if "error" in found:
        if found["error"] in ("memory", "limit"):
            raise TooLarge(
                f"The file takes more than {limit:,} bytes unpacked.", "Send fewer rows at a time."
            )
        raise BadRequest(f"The file cannot be read: {quote(found['error'])}.", "Write it anew.")
    names = tuple(found["names"]) if schema.takes_names(found["names"]) else None
    values = np.frombuffer(numbers, np.float64)
    if found["matrix"]:
        return Decoded(Table(values.reshape(found["rows"], len(found["names"])), names))
    parts = iter(values.reshape(-1, found["rows"]))
    columns = [next(parts).tolist() if cells is None else cells for cells in found["columns"]]
    return Decoded(Table([list(row) for row in zip(*columns, strict=True)], names))


def parquet_shape(body: bytes) -> tuple[int, int]:
    """Return the rows and columns that the footer of a Parquet file claims. Raises ValueError."""
    length = int.from_bytes(body[-8:-4], "little") + 8
    if length > len(body) - 4:
        raise ValueError("no footer")
    try:
        found, _ = _sandbox.ask({"do": "shape"}, b"PAR1" + body[-length:], _MEMORY)
    except SandboxError as error:
        raise ValueError("no footer") from error
    if "error" in found:
        raise ValueError(found["error"])
    return found["rows"], found["columns"]


def write_columns(answer: Answer, media_type: str) -> bytes:
    """Write one column for each number of a row, named by its part of the answer."""
    heads: list[tuple[str, str | list[str | None]]] = []
    buffers: list[bytes] = []
    for name, part in answer.arrays().items():
        flat = part.reshape(len(part), -1).T
        for at, column in enumerate(flat):
            title = name if part.ndim == 1 else f"{name}_{at}"
            if column.dtype.kind in "biuf":
                heads.append((title, column.dtype.newbyteorder("=").str))
                buffers.append(column.astype(column.dtype.newbyteorder("=")).tobytes())
            else:
                heads.append((title, column.tolist()))
    facts = {"do": "write", "form": FORMS[media_type], "rows": answer.n_rows, "heads": heads}
    body = b"".join(buffers)
    try:
        done, written = _sandbox.ask(facts, body, _MEMORY + 8 * (len(body) + len(dumps(facts))))
    except SandboxError as error:
        raise ModelFault(
            f"The answer cannot be written: {quote(error)}.", "Ask for JSON."
        ) from error
    if "error" in done:
        raise ModelFault(f"The answer cannot be written: {quote(done['error'])}.", "Ask for JSON.")
    return written


# --------------------------------------------------------------------------------- in the sandbox


def ready() -> Work:
    """Import pyarrow, and return what does a job. Only the child calls it."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    pa.set_memory_pool(pa.system_memory_pool())
    for form in FORMS.values():  # so that threads and their heaps are there before any limit is
        tiny = _write({"form": form, "rows": 1, "heads": [("x", "<f8")]}, b"12345678")
        _read({"form": form, "limit": 1 << 20, "numeric": True}, tiny)
    jobs: dict[str, Work] = {
        "read": _read,
        "shape": _shape,
        "write": lambda facts, body: ({}, _write(facts, body)),
    }
    return lambda facts, body: jobs[facts["do"]](facts, body)


class _LimitError(Exception):
    """The table is larger than it may be."""


def _read(facts: dict[str, Any], body: bytes) -> Job:
    try:
        table = _table(facts["form"], body, facts["limit"])
        table = table.drop_columns(
            [name for name in table.column_names if name.startswith("__index_level_")]
        )
        columns = [_column(one, name, facts["numeric"]) for name, one in _named(table)]
    except _LimitError:
        return {"error": "limit"}, b""
    if not columns:
        raise ValueError("it has no columns")
    matrix = all(isinstance(column, np.ndarray) for column in columns)
    numbers = [column for column in columns if isinstance(column, np.ndarray)]
    found = {
        "rows": table.num_rows,
        "names": table.column_names,
        "matrix": matrix,
        "columns": [None if isinstance(one, np.ndarray) else one for one in columns],
    }
    shaped = np.stack(numbers, axis=1 if matrix else 0) if numbers else np.empty(0)
    return found, shaped.tobytes()


def _shape(facts: dict[str, Any], body: bytes) -> Job:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pq.read_metadata(pa.BufferReader(body))
    return {"rows": max(0, found.num_rows), "columns": max(0, found.num_columns)}, b""


def _table(form: str, body: bytes, limit: int) -> Any:
    """Read a whole table, or nothing of one that claims to be larger than `limit` bytes."""
    import pyarrow as pa

    source = pa.BufferReader(body)
    if form == "Parquet":
        import pyarrow.parquet as pq

        file = pq.ParquetFile(source)
        _check_size(file.metadata.num_rows, file.metadata.num_columns, limit)
        table = file.read(use_threads=False)
    else:
        reader = pa.ipc.open_stream(source) if form == "stream" else pa.ipc.open_file(source)
        batches: list[Any] = []
        rows = 0
        for batch in _batches(reader, limit):
            rows += batch.num_rows
            _check_size(rows + len(batches), batch.num_columns, limit)
            batch.validate(full=True)
            batches.append(batch)
        table = pa.Table.from_batches(batches, reader.schema)
    table.validate(full=True)
    return table


def _batches(reader: Any, limit: int) -> Any:
    """Return the batches of a stream, or those that a file says it has."""
    if not hasattr(reader, "num_record_batches"):
        return reader
    _check_size(reader.num_record_batches, 1, limit)
    return (reader.get_batch(at) for at in range(reader.num_record_batches))


def _check_size(rows: int, columns: int, limit: int) -> None:
    if rows < 0 or rows * max(columns, 1) * 8 > limit:
        raise _LimitError


def _named(table: Any) -> Any:
    return zip(table.column_names, table.columns, strict=True)


def _column(column: Any, name: str, numeric: bool) -> Any:
    """Return float64 for numbers, null as NaN; a list for text, dates as ISO spells them.

    Whole numbers are a list too where the model takes more than numbers.
    """
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kinds.is_temporal(column.type):
        column = column.cast(pa.string())
    if kinds.is_boolean(column.type) and numeric:
        column = column.cast(pa.uint8())
    kind = column.type
    texts = (kinds.is_boolean, kinds.is_string, kinds.is_large_string, kinds.is_string_view)
    if any(is_text(kind) for is_text in texts):
        return column.to_pylist()
    if kinds.is_integer(kind) and not numeric:
        return column.to_pylist()  # an id may be more exact than float64
    if kinds.is_null(kind) or kinds.is_primitive(kind) or kinds.is_decimal(kind):
        return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64, copy=False)
    raise ValueError(f"column {name!r} is of type {kind}, expected numbers or text")


def _write(facts: dict[str, Any], body: bytes) -> bytes:
    import pyarrow as pa

    arrays, at = {}, 0
    for name, head in facts["heads"]:
        if isinstance(head, str):
            values = np.frombuffer(body, head, facts["rows"], at)
            at += values.nbytes
            arrays[name] = pa.array(values)
        else:
            arrays[name] = pa.array(head, pa.string())
    table = pa.table(arrays)
    stream = io.BytesIO()
    if facts["form"] == "Parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, stream)
    else:
        make = pa.ipc.new_stream if facts["form"] == "stream" else pa.ipc.new_file
        with make(stream, table.schema) as writer:
            writer.write_table(table)
    return stream.getvalue()
