"""What rows that callers will send say of a model's columns: the `schema.json` to put beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from skserve import archive
from skserve.config import Config
from skserve.estimators.columns import ANY, TRUTH
from skserve.estimators.declared import Declared, document, type_of
from skserve.estimators.frame import plain
from skserve.estimators.schema import Schema
from skserve.formats.catalogue import DECODERS
from skserve.formats.conform import conform
from skserve.formats.csv_header import Header, names_anything
from skserve.formats.json_text import dumps
from skserve.formats.media_types import CSV, JSON, MediaType
from skserve.formats.table import Table
from skserve.inference import artifact, calls, hooks
from skserve.inference.calls import Call
from skserve.inference.estimator_handler import EstimatorHandler
from skserve.inference.source import Source

_SAID = ("number", "text", "unused")  # kinds of columns that the model alone decides


def schema_of(directory: Path, model: str, rows: Call) -> dict[str, Any]:
    """Return the `schema.json` for the file `model` of `directory`, by rows of CSV or JSON.

    The first line of a CSV body names the columns, unless a cell of it is empty or a number. A
    type that the model does not say is that of the values, as pandas writes them: 30 is an integer
    and 30.0 a number. The model is loaded, with the modules in `code/`, and has to answer the rows
    and the example, which is the first of them. Raises StartError, ServeError, or what the model
    raises.
    """
    config = Config(model_dir=directory, model_file=model)
    code = directory / archive.CODE_FOLDER
    script = hooks.load(Source(code, None)) if code.is_dir() else hooks.Hooks()
    with artifact.main_classes(script.lookup if code.is_dir() else None):
        estimator, _ = artifact.load(directory, config)
    learned = Schema.of(estimator)
    rows = _headed(rows, learned)
    texts = learned.text and _decoded(rows, learned).names is None
    schema = _texts(rows, learned) if texts else _table(rows, learned)
    declared = Declared.of_schema(schema, archive.SCHEMA)
    handler = EstimatorHandler.of(estimator, None, config, declared)
    for call in (rows, Call(dumps(schema["example"]), JSON)):
        handler.predict(handler.decode(call, None), None)
    return schema


def _headed(rows: Call, learned: Schema) -> Call:
    """Announce the header of CSV rows, where the model knows no names to find it by."""
    kind = calls.content_type(rows)
    if kind.name != CSV or "header" in kind.parameters or learned.names:
        return rows
    announced = f"{rows.content_type}; header=present"
    header = Header.of(rows.body, MediaType.parse(announced), learned)
    return Call(rows.body, announced) if header and names_anything(header.names) else rows


def _texts(rows: Call, learned: Schema) -> dict[str, Any]:
    """Declare the one column of a text model."""
    found = conform(_decoded(rows, learned), learned)
    return {"columns": [{"type": "text"}], "example": found[:1]}


def _table(rows: Call, learned: Schema) -> dict[str, Any]:
    """Declare the columns of rows; the values of one that the model does not say tell its type."""
    columns = tuple(one if one.kind in _SAID else ANY for one in learned.columns)
    reader = replace(learned, columns=columns, text=False, records=False, open=True, later={})
    table = _decoded(rows, reader)
    if columns:
        reader = replace(reader, names=learned.names or table.names, open=False)
    X = plain(conform(table, reader))
    names = [str(name) for name in X.columns] if hasattr(X, "columns") else table.names
    kinds = [one.kind for one in learned.columns] or ["any"] * X.shape[1]
    types, row = [], []
    for at, kind in enumerate(kinds):
        cells = (X.iloc[:, at] if hasattr(X, "iloc") else X[:, at]).tolist()
        own, first = _own_type(cells, table.spelled)
        types.append(kind if kind in ("number", "text", "date") else own)
        row.append(cells[0] if kind == "text" else first)
    example: Any = [None if cell != cell else cell for cell in row]
    if learned.records:
        example = dict(zip(names or (), example, strict=True))
    return document(types, names, example)


def _decoded(rows: Call, schema: Schema) -> Table:
    kind = calls.content_type(rows)
    return DECODERS[kind.name](rows.body, kind, schema).table


def _own_type(cells: list[Any], spelled: bool) -> tuple[str, Any]:
    """Return the type of a column by its cells, and the first of them in that type.

    In CSV, words for true and false alone are bools, and numbers beside a text are texts.
    """
    first = cells[0]
    texts = [cell for cell in cells if isinstance(cell, str)]
    if not (spelled and texts):
        return type_of(cells), first
    present = [cell for cell in cells if cell == cell]
    if len(texts) == len(present) and set(texts) <= set(TRUTH):
        return "boolean", TRUTH.get(first, first)
    return "text", first if first != first else str(first)
