"""A request checked against botocore's service model, refused in the words that AWS has for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session

from .errors import invalid

_SENTENCE = "{count} validation error{s} detected: {faults}"
_FAULT = "Value {value} at '{path}' failed to satisfy constraint: {constraint}"


@cache
def service_model(service: str) -> Any:
    """Return botocore's model of a service."""
    return botocore.session.get_session().get_service_model(service)


def check(service: str, operation: str, given: Mapping[str, Any]) -> None:
    """Raise ValidationException where `given` does not satisfy the operation's input shape."""
    shape = service_model(service).operation_model(operation).input_shape
    faults = list(_walk(shape, given, "")) if shape is not None else []
    if faults:
        raise invalid(
            _SENTENCE.format(
                count=len(faults), s="s" if len(faults) > 1 else "", faults="; ".join(faults)
            )
        )


def _walk(shape: Any, value: Any, path: str) -> Iterator[str]:
    if shape.type_name in _INSIDE:
        yield from _INSIDE[shape.type_name](shape, value, path)
    for constraint in _broken(shape, value):
        shown = "null" if value is None else f"'{value}'"
        yield _FAULT.format(value=shown, path=path, constraint=constraint)


def _structure(shape: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield _FAULT.format(value=f"'{value}'", path=path, constraint="Member must be a structure")
        return
    for name in shape.required_members:
        if value.get(name) is None:
            constraint = "Member must not be null"
            yield _FAULT.format(
                value="null", path=_below(path, _camel(name)), constraint=constraint
            )
    for name, member in shape.members.items():
        if value.get(name) is not None:
            yield from _walk(member, value[name], _below(path, _camel(name)))


def _list(shape: Any, value: Any, path: str) -> Iterator[str]:
    for number, item in enumerate(value if isinstance(value, list) else (), 1):
        yield from _walk(shape.member, item, f"{path}.{number}.member")


def _map(shape: Any, value: Any, path: str) -> Iterator[str]:
    for key, item in (value if isinstance(value, Mapping) else {}).items():
        yield from _walk(shape.key, key, f"{path}.key")
        yield from _walk(shape.value, item, f"{path}.{key}.member")


_INSIDE: Mapping[str, Callable[[Any, Any, str], Iterator[str]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
}
_SIZED = ("string", "list", "map", "blob")


def _broken(shape: Any, value: Any) -> Iterator[str]:
    """Yield the constraints that the value itself breaks."""
    sized = shape.type_name in _SIZED
    if sized and not hasattr(value, "__len__"):
        yield f"Member must be a {shape.type_name}"
        return
    size = len(value) if sized else value
    kind = "have length" if sized else "have value"
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"Member must {kind} greater than or equal to {low}"
    if high is not None and size > high:
        yield f"Member must {kind} less than or equal to {high}"
    enum, pattern = getattr(shape, "enum", None), shape.metadata.get("pattern")
    if enum and value not in enum:
        yield f"Member must satisfy enum value set: [{', '.join(enum)}]"
    elif pattern and not _matches(pattern, value):
        yield f"Member must satisfy regular expression pattern: {pattern}"


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        # Java's POSIX classes, which Python's `re` does not know.
        return re.compile(pattern.replace(r"\p{Alnum}", "a-zA-Z0-9"), re.DOTALL)
    except re.error:
        return None


def _matches(pattern: str, value: str) -> bool:
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(value) is not None


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _camel(name: str) -> str:
    return name[0].lower() + name[1:]
