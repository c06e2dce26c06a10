"""What a file beside the model says of its columns, for those of which the model says nothing.

`schema.json` is ours: {"columns": [{"name": "ward", "type": "text", "values": ["north"]}, ...],
"example": [["north"]]}, where only the types are needed. `MLmodel` is MLflow's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from skserve.estimators.columns import Column

Names = tuple[str, ...] | None

TYPES = ("number", "integer", "boolean", "text", "date", "any")

# MLflow's types of columns; its others, such as binary, go to the model as sent.
_MLFLOW = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "string": "text",
    "datetime": "date",
}


@dataclass(frozen=True)
class Declared:
    """Columns and names as the file `source` has them, an example body, and the method to ask."""

    source: str
    columns: tuple[Column, ...] = ()
    names: Names = None
    example: Any = None
    method: str | None = None

    @classmethod
    def of_schema(cls, document: Any, source: str) -> Declared:
        """Read a `schema.json`. Raises ValueError with what is wrong in it."""
        if not isinstance(document, dict) or not isinstance(document.get("columns"), list):
            raise ValueError('it is no object with a list "columns"')
        columns = document["columns"]
        kinds = [_type(at, column, TYPES.__contains__) for at, column in enumerate(columns, 1)]
        found = tuple(
            Column(kind, _values(at, column), source=source)
            for at, (kind, column) in enumerate(zip(kinds, columns, strict=True), 1)
        )
        return cls(source, found, _names(columns), document.get("example"))

    @classmethod
    def of_mlflow(cls, document: Any, example: Any, source: str) -> Declared:
        """Read an `MLmodel`: its signature, and the method that MLflow itself would ask.

        Raises ValueError with what is wrong in it.
        """
        method = _within(document, "flavors", "python_function").get("predict_fn")
        inputs = _within(document, "signature").get("inputs")
        columns = json.loads(inputs) if isinstance(inputs, str) else []
        if any(column.get("type") == "tensor" for column in columns):
            columns = []  # one array, of which the estimator says more
        kinds = [
            _MLFLOW.get(_type(at, column, lambda kind: isinstance(kind, str)), "any")
            for at, column in enumerate(columns, 1)
        ]
        found = tuple(Column(kind, source=source) for kind in kinds)
        return cls(source, found, _names(columns), example, method)


def type_of(cells: Sequence[Any]) -> str:
    """Return the type of a column, as `schema.json` names it, by values of it."""
    present = [cell for cell in cells if cell is not None and cell == cell]
    kinds = set(map(type, present))
    if kinds == {int} and len(present) == len(cells):
        return "integer"
    if kinds and kinds <= {int, float}:
        return "number"
    return {frozenset([bool]): "boolean", frozenset([str]): "text"}.get(frozenset(kinds), "any")


def document(types: Sequence[str], names: Sequence[str] | None, row: Any) -> dict[str, Any]:
    """Make a `schema.json` of columns and an example row, which are in the order of the model."""
    named = [{"name": name} for name in names] if names else [{} for _ in types]
    columns = [{**name, "type": kind} for name, kind in zip(named, types, strict=True)]
    return {"columns": columns, "example": [row]}


def _type(at: int, column: Any, known: Callable[[Any], bool]) -> str:
    kind = column.get("type") if isinstance(column, dict) else None
    if not known(kind):
        raise ValueError(f"column {at} has the type {kind!r}, expected one of {', '.join(TYPES)}")
    return str(kind)


def _values(at: int, column: dict[str, Any]) -> tuple[Any, ...]:
    values = column.get("values") or []
    if not isinstance(values, list) or not {*map(type, values)} <= {str, int, float, bool}:
        raise ValueError(f"column {at} has values that are no list of texts, numbers and bools")
    return tuple(values)


def _within(document: Any, *keys: str) -> dict[str, Any]:
    """Return the object at `keys` in a document, empty where there is none."""
    place = "it"
    for key in (*keys, ""):
        if not isinstance(document or {}, dict):
            raise ValueError(f"{place} is no object")
        place = f'"{key}"'
        document = (document or {}).get(key) if key else document
    return document or {}


def _names(columns: list[dict[str, Any]]) -> Names:
    """Return the names of columns, if all have one."""
    names = tuple(str(column["name"]) for column in columns if column.get("name") is not None)
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    return names if names and len(names) == len(columns) else None


# Of a category whose values are not kept, such as CatBoost's: what its labels may be.
_LABELS = ("integer", "boolean", "text")


def joined(learned: Column, declared: Column) -> Column:
    """Join what the model learned of a column with what is declared of it.

    Values that were learned stay, because a cell must be one of them. A type that scikit-learn
    reads as a number in any case stays that.
    """
    numbers = ("number", "integer", "boolean")
    if learned.values or learned.kind in ("unused", "date") or declared.kind == "any":
        return learned
    if learned.kind == "category" and (learned.refusal or declared.kind not in _LABELS):
        return learned
    if learned.kind == "number":
        return replace(learned, source=declared.source) if declared.kind in numbers else learned
    return replace(declared, missing=learned.missing, blank=learned.blank)
