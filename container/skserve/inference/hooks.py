"""The user's script: importing it, and calling its functions the way AWS's containers do.

The functions and the order of their arguments are in docs/80-contract.md, 3.1. They are passed by
position, so their names are the user's own. A function may take one more, the request's context;
whether it does is decided once, at load. An exception that carries a status is the script's answer,
any other is a `ModelFault`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from skserve import archive
from skserve.errors import HookError, ModelFault, NoRoom, ServeError, StartError, quote
from skserve.inference.context import Context
from skserve.inference.requirements import imported_before
from skserve.inference.script_import import failure_text, imported
from skserve.inference.source import Source

log = logging.getLogger("skserve")

# How many arguments each function takes without the context.
HOOKS = {
    "pre_model_fn": 1,  # (model_dir)
    "model_fn": 1,  # (model_dir)
    "model_warmup_fn": 2,  # (model_dir, model)
    "input_fn": 2,  # (body, content_type)
    "predict_fn": 2,  # (data, model): the data first
    "output_fn": 2,  # (prediction, accept)
    "execution_parameters_fn": 0,  # ()
    "transform_fn": 4,  # (model, body, content_type, accept): the model first
}


@dataclass(frozen=True)
class Hook:
    """One function of the script. Calling it turns its failures into answers."""

    name: str
    function: Callable[..., Any]
    takes_context: bool

    def __call__(self, *arguments: Any, context: Context) -> Any:
        try:
            return self._called(arguments, context)
        except ServeError:
            raise
        except (Exception, SystemExit) as error:  # sys.exit in a script ends its request, not us
            raise answer_to(self.name, error) from error

    def at_start(self, *arguments: Any, context: Context) -> Any:
        """Call the function while the model is loaded. Raises StartError for whatever it raises."""
        try:
            return self._called(arguments, context)
        except StartError:
            raise
        except MemoryError as error:
            raise NoRoom(f"The script's {self.name} ran out of memory.") from error
        except (Exception, SystemExit) as error:
            raise StartError(f"The script's {self.name} failed: {failure_text(error)}") from error

    def _called(self, arguments: tuple[Any, ...], context: Context) -> Any:
        return self.function(*arguments, *([context] if self.takes_context else []))


@dataclass(frozen=True)
class Hooks:
    """The functions that the script defines; all None where there is no script."""

    module: ModuleType | None = None
    folder: Path | None = None
    pre_model_fn: Hook | None = None
    model_fn: Hook | None = None
    model_warmup_fn: Hook | None = None
    input_fn: Hook | None = None
    predict_fn: Hook | None = None
    output_fn: Hook | None = None
    transform_fn: Hook | None = None
    execution_parameters_fn: Hook | None = None

    def __bool__(self) -> bool:
        return self.module is not None

    def lookup(self, name: str) -> Any:
        """Find a class or function of the user's code by name. Raises AttributeError.

        The script comes first; then the module of its folder that defines the name. It is found by
        parsing, so that no other module, a training script say, is run.
        """
        if self.module is not None and hasattr(self.module, name):
            return getattr(self.module, name)
        for path in modules(self.folder) if self.folder else []:
            if _defines(path, name):
                inside = path.relative_to(self.folder).with_suffix("").parts  # type: ignore[arg-type]
                return getattr(importlib.import_module(".".join(inside)), name)
        raise AttributeError(f"Can't get attribute '{name}' on <module '__main__'>")


def load(source: Source | None) -> Hooks:
    """Import the script of `source` and take its functions. Raises StartError."""
    if source is None:
        return Hooks()
    for folder in (source.library, source.folder):
        if folder is not None and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    if source.library and (kept := imported_before(source.library)):
        log.warning(
            "requirements.txt brings %s, which the server itself has imported; the image's own "
            "version is used.",
            ", ".join(kept),
        )
    if source.program is None:
        return Hooks(folder=source.folder)
    module = imported(source, source.program)
    taken = {name: _hook(module, name) for name in HOOKS}
    hooks = Hooks(module=module, folder=source.folder, **taken)
    trio = [name for name in ("input_fn", "predict_fn", "output_fn") if taken[name]]
    if hooks.transform_fn and trio:
        raise StartError(
            f"{source.program} defines transform_fn together with {', '.join(trio)}; transform_fn "
            "stands for all three, so define it alone or not at all."
        )
    return hooks


def _hook(module: ModuleType, name: str) -> Hook | None:
    function = getattr(module, name, None)
    if function is None:
        return None
    if not callable(function):
        raise StartError(f"{name} in {module.__name__}.py is not a function.")
    if _is_async(function) or _is_async(getattr(function, "__call__", None)):  # noqa: B004
        raise StartError(
            f"{name} in {module.__name__}.py is async, which is not awaited here; write def, and "
            "asyncio.run inside where it is needed."
        )
    return Hook(name, function, _takes_context(function, name, HOOKS[name]))


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _takes_context(function: Callable[..., Any], name: str, count: int) -> bool:
    """Whether a function asks for the context: one argument more, without a default or so named."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False  # a builtin does not say
    places = [
        one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    needed = [one for one in places if one.default is one.empty]
    spread = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if len(needed) > count + 1 or (len(places) < count and not spread):
        raise StartError(
            f"{name} takes {len(places)} arguments; it is called with {count}, or with the context "
            f"as one more."
        )
    if len(needed) == count + 1:
        return True
    return len(places) > count and "context" in places[count].name.lower()


def answer_to(name: str, error: BaseException) -> ServeError:
    """Make the answer to an exception of the script: its own status, or a 500 that says where."""
    ours = any(one.__module__.startswith("werkzeug.") for one in type(error).__mro__)
    status = getattr(error, "code" if ours else "status_code", None)
    if not isinstance(status, int) or not 400 <= status <= 599:
        return ModelFault(f"The script's {name} failed.", "The log has the traceback.")
    if status == 415 and name == "output_fn":
        status = 406  # AWS's toolkits raise the same error for both directions
    text = getattr(error, "message", None) or getattr(error, "description", None) or error
    return HookError(quote(text), status)


def modules(folder: Path) -> list[Path]:
    """Return the Python files below `folder` that can be imported by a dotted name."""
    found = sorted(folder.rglob("*.py"), key=lambda path: (len(path.parts), path))
    return [
        path
        for path in found
        if all(part.isidentifier() for part in path.relative_to(folder).with_suffix("").parts)
    ]


def _defines(path: Path, name: str) -> bool:
    """Whether a Python file defines `name` itself, at its top; it is not run."""
    try:
        return archive.binds(path.read_bytes(), name, imported=False)
    except OSError:
        return False
