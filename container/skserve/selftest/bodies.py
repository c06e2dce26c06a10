"""A table written in each form that the server reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skserve.formats.answer import Answer
from skserve.formats.catalogue import ENCODERS
from skserve.formats.media_types import (
    ARROW_FILE,
    ARROW_STREAM,
    CSV,
    JSON,
    JSON_LINES,
    LIBSVM,
    NDJSON,
    NPY,
    NPZ,
    PARQUET,
    RECORDIO,
    X_LIBSVM,
    X_PARQUET,
)
from skserve.selftest.tables import Table


class Form(NamedTuple):
    """One way to write a table; `fits` says which tables it can hold.

    A model may refuse an `optional` one, such as sparse rows.
    """

    name: str
    content_type: str
    write: Callable[[Table], bytes]
    fits: Callable[[Table], bool] = lambda table: True
    optional: bool = False


def rows(table: Table) -> list[Any]:
    """Return the rows as JSON has them: a text model's are texts."""
    return [row[0] for row in table.rows] if table.text else table.rows


def write_json(table: Table) -> bytes:
    return json.dumps(rows(table)).encode()


def write_csv(table: Table) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table.rows)
    return text.getvalue().encode()


def _write_header_and_csv(table: Table) -> bytes:
    assert table.names
    return write_csv(table.with_rows([list(table.names), *table.rows]))


def _write_records(table: Table) -> bytes:
    return json.dumps(records(table)).encode()


def records(table: Table) -> list[dict[str, Any]]:
    """Return the rows of a table with names as objects."""
    assert table.names
    return [dict(zip(table.names, row, strict=True)) for row in table.rows]


def _write_split(table: Table) -> bytes:
    return json.dumps({"columns": table.names, "data": table.rows}).encode()


def _write_lines(table: Table) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows(table))


def _array(table: Table) -> NDArray[Any]:
    return np.array(rows(table), np.float64 if table.numeric else str)


def _saved(save: Callable[[Any, Any], None]) -> Callable[[Table], bytes]:
    def write(table: Table) -> bytes:
        stream = io.BytesIO()
        save(stream, _array(table))
        return stream.getvalue()

    return write


def _write_recordio(table: Table) -> bytes:
    return ENCODERS[RECORDIO](Answer((_array(table),)), False)


def _write_libsvm(table: Table) -> bytes:
    lines = (" ".join(f"{at}:{cell!r}" for at, cell in enumerate(row)) for row in table.rows)
    return "".join(f"0 {line}\n" for line in lines).encode()


def _columns(content_type: str) -> Form:
    def write(table: Table) -> bytes:
        if not table.names:
            return ENCODERS[content_type](Answer((_array(table),)), False)
        columns = (np.array(column) for column in zip(*table.rows, strict=True))
        return ENCODERS[content_type](Answer(tuple(columns), table.names), False)

    # A column is of one type; a table without names is one array.
    def fits(table: Table) -> bool:
        kinds = [{type(cell) for cell in column} for column in zip(*table.rows, strict=True)]
        named = table.names is not None and all(
            len(one) == 1 and one <= {int, float, str} for one in kinds
        )
        return named or table.numeric

    return Form(content_type, content_type, write, fits)


def _has_names(table: Table) -> bool:
    return table.names is not None


def _numeric(table: Table) -> bool:
    return table.numeric


def _one_type(table: Table) -> bool:
    return table.numeric or table.text


FORMS = (
    Form(JSON, JSON, write_json),
    Form(
        f"{JSON} (instances)", JSON, lambda table: json.dumps({"instances": rows(table)}).encode()
    ),
    Form(f"{JSON} (records)", JSON, _write_records, _has_names),
    Form(f"{JSON} (columns and data)", JSON, _write_split, _has_names),
    Form(CSV, f"{CSV}; header=absent", write_csv),
    Form(f"{CSV} (header)", f"{CSV}; header=present", _write_header_and_csv, _has_names),
    Form(JSON_LINES, JSON_LINES, _write_lines),
    Form(NDJSON, NDJSON, _write_lines),
    Form(NPY, NPY, _saved(np.save), _one_type),
    Form(NPZ, NPZ, _saved(np.savez), _one_type),
    Form(RECORDIO, RECORDIO, _write_recordio, _numeric),
    Form(LIBSVM, f"{LIBSVM}; base=0", _write_libsvm, _numeric, optional=True),
    Form(X_LIBSVM, f"{X_LIBSVM}; base=0", _write_libsvm, _numeric, optional=True),
    *map(_columns, (PARQUET, X_PARQUET, ARROW_STREAM, ARROW_FILE)),
)


def forms(table: Table, content_types: list[str]) -> Iterator[Form]:
    """Yield the forms that can hold `table` and whose media type the server reads."""
    for form in FORMS:
        if form.content_type.partition(";")[0] in content_types and form.fits(table):
            yield form
