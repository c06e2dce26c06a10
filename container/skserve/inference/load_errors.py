"""The known ways in which a pickle does not load, each told as one sentence with a way out."""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path

from skserve.inference.versions import installed, minor

# How Python says that `__main__` lacks a name; started by `-m`, it prints as `skserve.__main__`.
_MAIN_CLASS = re.compile(
    r"attribute '(\w+)' on <module '(?:\w+\.)*__main__'"
    r"|module '(?:\w+\.)*__main__' has no attribute '(\w+)'"
)


def explained(path: Path, saved: str | None, error: Exception) -> str:
    """Tell an unpickling failure as one sentence with a way out."""
    text = " ".join(str(error).split())[:300]
    here = installed("scikit-learn")
    main = _MAIN_CLASS.search(text)
    if main:
        return (
            f"{path.name} holds {main[1] or main[2]!r}, which was defined in __main__, the "
            "notebook or script that saved it; put its definition into code/inference.py beside "
            "the model, or save the model again with it in a module of its own below code/."
        )
    moved = re.search(r"No module named '([^']+)'", text)
    if moved and not moved[1].startswith(("sklearn", "numpy", "scipy", "joblib", "_")):
        return (
            f"{path.name} needs the Python module {moved[1]!r}; add it to code/requirements.txt, "
            "or its file to code/."
        )
    if isinstance(error, EOFError | pickle.UnpicklingError | struct.error):
        return f"{path.name} is not a whole joblib or pickle file ({text or 'it ends too early'})."
    origin = f"scikit-learn {saved}" if saved else "another version of scikit-learn or numpy"
    way_out = (
        f"build the image with --build-arg SKLEARN={minor(saved)}"
        if saved and minor(saved) != minor(here)
        else "build the image with the versions that saved it"
    )
    return (
        f"{path.name} cannot be loaded: it was saved by {origin} and this image has scikit-learn "
        f"{here} ({type(error).__name__}: {text}); {way_out}, or save the model again."
    )
