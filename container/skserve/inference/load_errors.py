"""The known ways in which a pickle does not load, each told as one sentence with a way out."""

from __future__ import annotations

import pickle
import re
import struct
import sys
import zlib
from pathlib import Path

from skserve import archive
from skserve.inference.versions import installed, minor

# How Python says that `__main__` lacks a name; started by `-m`, it prints as `skserve.__main__`.
_MAIN_CLASS = re.compile(
    r"attribute '(\w+)' on <module '(?:\w+\.)*__main__'"
    r"|module '(?:\w+\.)*__main__' has no attribute '(\w+)'"
)

_NO_ATTRIBUTE = re.compile(r"attribute '([\w.]+)' on <module '([\w.]+)'")

# Modules whose versions are those of the image.
_OURS = ("sklearn", "numpy", "scipy", "joblib", "_")

# How numpy says that a file ends within an array.
_CUT_SHORT = re.compile(r"EOF: reading array|mmap length is greater")

# What lies in the place of a model by a slip, by its first bytes.
_OTHERS = (
    (b"<<<<<<<", "holds two versions in a conflict of git; choose one of them"),
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


def _of_another_version(path: Path, needed: str, module: str) -> str:
    """Tell that a module which is here lacks what the pickle names."""
    name = module.partition(".")[0]
    return (
        f"{path.name} needs {needed}, which the {name!r} that is here does not have; put the "
        "version that saved it into code/requirements.txt, or its file into code/."
    )


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
    lacking = _NO_ATTRIBUTE.search(text)
    if lacking and not lacking[2].startswith(_OURS):
        return _of_another_version(path, f"{lacking[1]!r} of the module {lacking[2]!r}", lacking[2])
    moved = re.search(r"No module named '([^']+)'", text)
    if moved and not moved[1].startswith(_OURS):
        if moved[1].partition(".")[0] in sys.modules:
            return _of_another_version(path, f"the Python module {moved[1]!r}", moved[1])
        return (
            f"{path.name} needs the Python module {moved[1]!r}; add it to code/requirements.txt, "
            "or its file to code/."
        )
    damaged = isinstance(error, EOFError | pickle.UnpicklingError | struct.error | zlib.error)
    no_pickle = isinstance(error, KeyError) and isinstance(error.args[0], int)  # pickle's opcodes
    if damaged or no_pickle or _CUT_SHORT.search(text):
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
