"""What `from sagemaker_containers.beta.framework import ...` finds.

Four names are files beside this one. The others come along in the import line of AWS's abalone
example and its many copies, which never use them: they import as empty modules, and only using
one is an error, with a sentence.
"""

import importlib
from types import ModuleType

from sagemaker_containers import training_env

__all__ = ["training_env"]

_FILES = {"content_types", "encoders", "errors", "worker"}
_IMPORTED_BUT_UNUSED = {"env", "functions", "logging", "modules", "server", "transformer"}


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> object:
        raise AttributeError(
            f"{self.__name__}.{name} does not exist: skserve starts the server, finds the code "
            f"and reads the settings itself. A script may use {', '.join(sorted(_FILES))}."
        )


def __getattr__(name: str) -> ModuleType:
    """Load a file when it is first asked for: only `worker` needs Flask."""
    if name in _FILES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _IMPORTED_BUT_UNUSED:
        return _Empty(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
