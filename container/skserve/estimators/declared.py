"""What a file beside the model says of its columns, for those of which the model says nothing.

`schema.json` is ours: {"columns": [{"name": "ward", "type": "text", "values": ["north"]}, ...],
"example": [["north"]]}, where only the types are needed. `MLmodel` is MLflow's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from skserve.estimators.columns import Column

Names = tuple[str, ...] | None

TYPES = ("number", "integer", "boolean", "text", "any")

# MLflow's types of columns; its others, such as datetime and binary, go to the model as sent.
_MLFLOW = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "string": "text",
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
            Column(kind, tuple(column.get("values") or ()), source=source)
            for kind, column in zip(kinds, columns, strict=True)
        )
        return cls(source, found, _names(columns), document.get("example"))

    @classmethod
    def of_mlflow(cls, document: Any, example: Any, source: str) -> Declared:
        """Read an `MLmodel`: its signature, and the method that MLflow itself would ask.

        Raises ValueError with what is wrong in it.
        """
        flavors = document.get("flavors") or {}
        method = (flavors.get("python_function") or {}).get("predict_fn")
        inputs = (document.get("signature") or {}).get("inputs")
        columns = json.loads(inputs) if isinstance(inputs, str) else []
        if any(column.get("type") == "tensor" for column in columns):
            columns = []  # one array, of which the estimator says more
        kinds = [
            _MLFLOW.get(_type(at, column, lambda kind: isinstance(kind, str)), "any")
            for at, column in enumerate(columns, 1)
        ]
        found = tuple(Column(kind, source=source) for kind in kinds)
        return cls(source, found, _names(columns), example, method)


def _type(at: int, column: Any, known: Callable[[Any], bool]) -> str:
    kind = column.get("type") if isinstance(column, dict) else None
    if not known(kind):
        raise ValueError(f"column {at} has the type {kind!r}, expected one of {', '.join(TYPES)}")
    return str(kind)


def _names(columns: list[dict[str, Any]]) -> Names:
    """Return the names of columns, if all have one."""
    names = tuple(str(column["name"]) for column in columns if column.get("name") is not None)
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    return names if names and len(names) == len(columns) else None


def joined(learned: Column, declared: Column) -> Column:
    """Join what the model learned of a column with what is declared of it.

    Values that were learned stay, because a cell must be one of them. A type that scikit-learn
    reads as a number in any case stays that.
    """
    numbers = ("number", "integer", "boolean")
    if learned.values or learned.kind in ("unused", "category", "date") or declared.kind == "any":
        return learned
    if learned.kind == "number" and declared.kind in numbers:
        return replace(learned, source=declared.source)
    return replace(declared, missing=learned.missing, blank=learned.blank)
