"""JSON Schema of what one model takes and answers, made of what `GET /` says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
Described = Mapping[str, Any]

# The functions of a script that decide what a body is, and what an answer is.
READS = frozenset({"input_fn", "transform_fn"})
WRITES = frozenset({"predict_fn", "output_fn", "transform_fn"})

ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "hint", "request_id"],
            "properties": {
                "code": {"type": "string", "examples": ["bad_request"]},
                "message": {"type": "string", "description": "What was seen and expected."},
                "hint": {"type": "string", "description": "The way out."},
                "request_id": {"type": "string", "description": "It stands in the log too."},
            },
        }
    },
}

# How Multi Model Server says what failed, and a failure of the model itself within its answer.
MANY_ERROR: Json = {
    "type": "object",
    "required": ["code", "type", "message"],
    "properties": {
        "code": {"type": "integer"},
        "type": {"type": "string"},
        "message": {"type": "string"},
        "request_id": {"type": "string", "description": "It stands in the log too."},
    },
}

_SCALAR: Json = {"type": ["number", "string", "boolean", "null"]}
_NUMBER: Json = {"type": ["number", "null"]}  # NaN and infinity leave as null
_NUMBERS: Json = {"type": "array", "items": _NUMBER}
_NESTED: Json = {
    "type": "array",
    "items": {"anyOf": [_NUMBER, {"$ref": "#/components/schemas/Nested"}]},
}
_NESTING: Json = {"$ref": "#/components/schemas/Nested"}

# What each method answers for one row; that of several outputs is a list deeper.
_ANSWERS: dict[str, Json] = {
    "predict": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]},
    "kneighbors": {
        "type": "object",
        "required": ["distances", "indices"],
        "properties": {
            "distances": _NUMBERS,
            "indices": {"type": "array", "items": {"type": "integer"}},
        },
    },
    "transform": {"type": "array", "items": _SCALAR},
    "score_samples": _NUMBER,
    "predict_proba": _NESTING,
    "predict_log_proba": _NESTING,
    "decision_function": {"anyOf": [_NUMBER, _NUMBERS]},
    "apply": {"anyOf": [_NUMBER, _NESTING]},
}

# What a cell of a column may be in JSON; of other kinds anything that JSON can say.
_CELLS: dict[str, Json] = {"number": _NUMBER, "text": {"type": ["string", "null"]}}


def reads(model: Described) -> bool:
    """Whether a function of the script decides what a body is."""
    return not READS.isdisjoint(model["script"])


def writes(model: Described) -> bool:
    """Whether a function of the script decides what an answer is."""
    return not WRITES.isdisjoint(model["script"])


def schemas(model: Described) -> Json:
    """Return the named schemas: of a row, a body, an answer, an error."""
    named = {"Error": ERROR}
    if not reads(model):
        named |= {"Row": _row(model), "Body": _body(model)}
        if names := _names(model):
            named["Record"] = _record(names)
    if not writes(model):
        named |= {"Answer": _answer(model), "Nested": _NESTED}
    return named


def _row(model: Described) -> Json:
    """One row as a list: of as many cells as the model has columns, each of its own kind."""
    if model["input"] == "list of texts":
        return {"type": "string"}
    if model["input"] == "list of objects":
        return {"type": "object", "additionalProperties": True}
    columns = [_column(one) for one in model["columns"]]
    if not columns:
        return {"type": "array", "items": _SCALAR}
    count = len(columns)
    return {"type": "array", "prefixItems": columns, "minItems": count, "maxItems": count}


def _column(column: Described) -> Json:
    values = list(column.get("values", ()))
    schema = dict(_CELLS.get(column["type"], _SCALAR))
    if values and column["type"] == "number":
        schema["examples"] = values
    elif values:
        schema = {"anyOf": [{"enum": values}, schema]}
    if "minimum" in column:
        # No `minimum` of JSON Schema: that would forbid the numbers beyond, which are answered.
        low, high = column["minimum"], column["maximum"]
        schema["description"] = f"{low:g} to {high:g} where the model was fitted; any is answered."
        schema["examples"] = [low, high]
    if column["name"] is not None:
        schema["title"] = column["name"]
    return schema


def _names(model: Described) -> list[str]:
    return [one["name"] for one in model["columns"] if one["name"] is not None]


def _record(names: list[str]) -> Json:
    """One row as an object; its cells are those of `Row`."""
    cells = {
        name: {"$ref": f"#/components/schemas/Row/prefixItems/{at}"}
        for at, name in enumerate(names)
    }
    return {
        "type": "object",
        "properties": cells,
        "required": names,
        "additionalProperties": False,
    }


def _body(model: Described) -> Json:
    """The forms in which JSON carries rows."""
    rows = _listed("Row")
    split: Json = {"columns": {"type": "array"}, "data": rows}
    enveloped: list[Json] = [{"instances": rows}, {"inputs": rows}]
    forms = [rows]
    if names := _names(model):
        forms.append(_listed("Record"))
        split["columns"] = {"const": names}
        frame = {"type": "object", "required": list(split), "properties": split}
        enveloped += [{"dataframe_records": _listed("Record")}, {"dataframe_split": frame}, split]
    method = {"method": {"enum": model["methods"]}} if model["methods"] else {}
    forms += [
        {
            "type": "object",
            "required": list(keys),
            "properties": keys | method,
            "additionalProperties": False,
        }
        for keys in enveloped
    ]
    return {"anyOf": forms, "examples": [model["example"]["body"]]}


def _answer(model: Described) -> Json:
    """One answer a row, in the envelope of the body."""
    kinds = [_ANSWERS[name] for name in model["methods"] if name in _ANSWERS]
    if model["classes"]:
        kinds.insert(0, {"enum": list(model["classes"]), "description": "A class."})
    rows = {"type": "array", "items": {"anyOf": kinds} if kinds else {}}
    whole = {"type": "object", "required": ["predictions"], "properties": {"predictions": rows}}
    return {"anyOf": [rows, whole]}


def _listed(name: str) -> Json:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}, "minItems": 1}
