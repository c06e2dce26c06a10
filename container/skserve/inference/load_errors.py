"""The known ways in which a pickle does not load, each told as one sentence with a way out."""

from __future__ import annotations

import pickle
import re
import struct
import zlib
from pathlib import Path

from skserve import archive
from skserve.inference.versions import installed, minor

# How Python says that `__main__` lacks a name; started by `-m`, it prints as `skserve.__main__`.
_MAIN_CLASS = re.compile(
    r"attribute '(\w+)' on <module '(?:\w+\.)*__main__'"
    r"|module '(?:\w+\.)*__main__' has no attribute '(\w+)'"
)


# How numpy says that a file ends within an array.
_CUT_SHORT = re.compile(r"EOF: reading array|mmap length is greater")

# What lies in the place of a model by a slip, by its first bytes.
_OTHERS = (
    (b"<", "is an HTML or XML page; look whether the download of the model failed"),
    (b"{", "is JSON; a booster saved as JSON needs a model_fn in code/inference.py that loads it"),
    (b"[", "is JSON"),
    (b"PK\x03\x04", "is a zip archive; a model saved with skops must end in .skops"),
    (b"\x93NUMPY", "is an array of numpy; save the fitted model with joblib.dump"),
    (b"\x89HDF", "is HDF5, as Keras writes it; it needs a model_fn in code/inference.py"),
    (b"CBM1", "is CatBoost's own format; save the fitted model with joblib.dump"),
    (b"tree\n", "is LightGBM's own format; save the fitted model with joblib.dump"),
    (b"%PDF", "is a PDF"),
)
# A pickle of protocol 0 begins with the names of a module and of what is in it.
_TEXT_PICKLE = re.compile(rb"[(cdl]+[\w.]+\n[\w.]+\n")


def _other_kind(path: Path) -> str | None:
    """Say what a file is that is no pickle; None where it begins as one."""
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        return "is empty"
    for begin, what in _OTHERS:
        if head.lstrip().startswith(begin):
            return what
    if head[257:262] == b"ustar":
        return "is a tar archive; put the file that is in it in its place"
    pickled = head.startswith(b"\x80") or _TEXT_PICKLE.match(head)
    if pickled or archive.is_compressed(path):
        return None
    return "does not begin as one"


def explained(path: Path, saved: str | None, error: Exception) -> str:
    """Tell an unpickling failure as one sentence with a way out."""
    text = " ".join(str(error).split())[:300]
    here = installed("scikit-learn")
    if other := _other_kind(path):
        return f"{path.name} is not a joblib or pickle file: it {other}."
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
    damaged = isinstance(error, EOFError | pickle.UnpicklingError | struct.error | zlib.error)
    if damaged or _CUT_SHORT.search(text):
        return f"{path.name} is not a whole joblib or pickle file: it ends too early or is damaged."
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
