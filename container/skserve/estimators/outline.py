"""What a fitted estimator is made of: a tree of its steps, for people to look at.

Every look at the estimator goes through `methods.look`, and no value is printed but plain ones:
an older pickle, or a class of the user's own, may not survive more.
"""

from __future__ import annotations

import inspect
from typing import Any

from skserve.estimators.methods import look

# Steps within steps, steps of one estimator, values in one list, and characters of one value.
DEPTH, STEPS, VALUES, LETTERS = 8, 100, 20, 60

# What holds the fitted estimator, where a parameter of the other name holds the one to be cloned.
_FITTED = {"transformers": "transformers_", "estimator": "best_estimator_"}


def outline(estimator: object, name: str | None = None, depth: int = DEPTH) -> dict[str, Any]:
    """Return `class`, `name`, the `parameters` that differ from their defaults, and the `steps`.

    `flow` says whether the steps follow each other (`series`) or stand side by side (`parallel`).
    A step of a ColumnTransformer has the `columns` it takes.
    """
    if isinstance(estimator, str):  # "passthrough", "drop"
        return {"name": name, "class": estimator}
    node: dict[str, Any] = {"name": name, "class": type(estimator).__name__}
    parameters, steps = {}, []
    for key, default in _defaults(estimator).items():
        value = look(estimator, key)
        fitted = look(estimator, _FITTED.get(key, key))
        if found := _parts(key, value if fitted is None else fitted):
            steps += found
        elif spelled(value) != spelled(default):
            parameters[key] = spelled(value)
    if parameters:
        node["parameters"] = parameters
    if steps and depth:
        node["flow"] = "series" if look(estimator, "steps") else "parallel"
        node["steps"] = [
            outline(part, title, depth - 1) | columns for title, part, columns in steps[:STEPS]
        ]
    return node


def spelled(value: object) -> str:
    """Spell a plain value as Python does, and name the class of any other."""
    if type(value) in (list, tuple) and len(value) <= VALUES:  # type: ignore[arg-type]
        text = ", ".join(map(spelled, value))  # type: ignore[call-overload]
        text = f"[{text}]" if isinstance(value, list) else f"({text})"
    elif value is None or type(value) in (str, int, float, bool):
        text = repr(value)
    else:
        text = str(look(value, "__name__") or type(value).__name__)
    return text if len(text) <= LETTERS else text[:LETTERS] + "..."


def _defaults(estimator: object) -> dict[str, Any]:
    """Return the parameters of an estimator and their defaults; none of anything else."""
    if not _is_estimator(estimator):
        return {}
    try:
        signature = inspect.signature(type(estimator))
    except (TypeError, ValueError):
        return {}
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {one.name: one.default for one in signature.parameters.values() if one.kind not in fixed}


def _parts(key: str, value: Any) -> list[tuple[str, Any, dict[str, Any]]]:
    """Return the name, the estimator and the columns of each part that a parameter holds."""
    if _is_estimator(value):
        return [(key, value, {})]
    if not isinstance(value, list) or not value or not all(map(_is_part, value)):
        return []
    return [(str(one[0]), one[1], _columns(one[2:])) for one in value]


def _is_part(value: Any) -> bool:
    """Whether a value is a named step, as in a Pipeline: (name, estimator), columns behind."""
    return (
        isinstance(value, tuple)
        and len(value) in (2, 3)
        and (_is_estimator(value[1]) or value[1] in ("passthrough", "drop"))
    )


def _columns(behind: tuple[Any, ...]) -> dict[str, Any]:
    if not behind:
        return {}
    chosen = behind[0].tolist() if hasattr(behind[0], "tolist") else behind[0]
    listed = chosen if isinstance(chosen, list) else [chosen]
    names = [one if isinstance(one, str) else spelled(one) for one in listed[:VALUES]]
    return {"columns": names + ["..."] * (len(listed) > VALUES)}


def _is_estimator(value: object) -> bool:
    return not isinstance(value, type) and callable(look(value, "get_params"))
