"""Loading the one model file of a directory, saying plainly why it does not load, and saving one.

A joblib file is code: it is loaded because the owner of the endpoint put it there. What fails while
it loads is nearly always a matter of versions, so the known failures are told as one sentence that
names the version to build the image with. All errors are `StartError`.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import pickle
import re
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skserve import archive
from skserve.config import Config
from skserve.errors import NoRoom, StartError

log = logging.getLogger("skserve")

SAVED_AS = "model.joblib"

# Bytes of an uncompressed joblib file, and of an array in it, from which arrays are mapped.
_MAPPED_FILE, _MAPPED_ARRAY = 64 * 2**20, 16 * 2**20

# How Python says that `__main__` lacks a name; started by `-m`, it prints as `skserve.__main__`.
_MAIN_CLASS = re.compile(
    r"attribute '(\w+)' on <module '(?:\w+\.)*__main__'"
    r"|module '(?:\w+\.)*__main__' has no attribute '(\w+)'"
)

Lookup = Callable[[str], Any]  # finds a class by name in the user's code, or raises AttributeError


@contextmanager
def readable() -> Iterator[None]:
    """Tell a file or folder that may not be read as one sentence that names it."""
    try:
        yield
    except PermissionError as error:
        raise StartError(
            f"{error.filename or 'A file of the model'} cannot be read by user {os.geteuid()}; "
            "make the model directory readable: chmod -R a+rX."
        ) from error


@readable()
def load(directory: Path, config: Config) -> tuple[Any, str | None]:
    """Return the model in `directory`, and the scikit-learn that saved it where it says so."""
    path = choose(directory, config.model_file)
    saved = archive.pickled_with(path)
    check_version(path, saved, config.version_policy)
    load_file = _load_skops if path.suffix.lower() == ".skops" else _load_joblib
    with warnings.catch_warnings():
        # The policy above has said once what scikit-learn would say for every estimator inside.
        warnings.filterwarnings("ignore", message="Trying to unpickle estimator")
        try:
            estimator = load_file(path, config)
        except (StartError, PermissionError):
            raise
        except MemoryError:
            raise NoRoom(f"{path.name} does not fit into this container's memory.") from None
        except Exception as error:
            raise StartError(_explained(path, saved, error)) from error
    return estimator, saved


def save(estimator: Any, directory: Path, sample: Any = None) -> Path:
    """Save a fitted estimator into `directory`, with its record and manifest; return its file.

    Uncompressed, so that serving can map it into memory. A file appears under its name once it is
    complete. `sample` is one row as JSON spells it. Raises OSError where it cannot be written.
    """
    import joblib

    record = {
        "numpy": installed("numpy"),
        "joblib": installed("joblib"),
        "python": ".".join(map(str, sys.version_info[:3])),
        "feature_names": _names_of(estimator),
        "n_features": getattr(estimator, "n_features_in_", None),
        "sample": sample,
    }
    path, beside = directory / SAVED_AS, directory / archive.RECORD
    partial = directory / f".{SAVED_AS}.partial"
    joblib.dump(estimator, partial)
    partial.replace(path)
    known = {key: value for key, value in record.items() if value is not None}
    beside.write_text(json.dumps(known, indent=1) + "\n")
    described = archive.manifest({SAVED_AS: path, archive.RECORD: beside}, SAVED_AS)
    (directory / archive.MANIFEST).write_bytes(archive.manifest_text(described))
    return path


def _names_of(estimator: Any) -> list[str] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


@readable()
def choose(directory: Path, chosen: str | None) -> Path:
    """Return the model file of `directory`: the chosen one, or the only one there is."""
    if not directory.is_dir():
        raise StartError(
            f"There is no model directory {directory}; mount one, or name it with --model-dir."
        )
    if chosen:
        path = directory / chosen
        if path.is_file():
            return path
        raise StartError(
            f"SKSERVE_MODEL_FILE names {chosen}, but {directory} holds "
            f"{archive.listing(directory)}."
        )
    found = archive.find_models(directory)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise StartError(
            f"{directory} holds {len(found)} models ({names}); choose one with SKSERVE_MODEL_FILE."
        )
    deeper = [
        path
        for below in directory.iterdir()
        if below.is_dir()
        for path in archive.find_models(below)
    ]
    hint = (
        f" Is {deeper[0].relative_to(directory)} the one? Name it with SKSERVE_MODEL_FILE."
        if deeper
        else ""
    )
    raise StartError(
        f"{directory} holds no model ({', '.join(archive.MODEL_SUFFIXES)}) and no script with a "
        f"model_fn; it holds {archive.listing(directory)}.{hint}"
    )


def check_version(path: Path, saved: str | None, policy: str) -> None:
    """Compare the scikit-learn that saved the model with the one here, as the policy says."""
    here = installed("scikit-learn")
    if policy == "off" or saved is None or _minor(saved) == _minor(here):
        return
    message = (
        f"{path.name} was saved by scikit-learn {saved} and this image has {here}; "
        f"build the image with --build-arg SKLEARN={_minor(saved)}, or save the model again."
    )
    if policy == "error":
        raise StartError(message + " (SKSERVE_VERSION_POLICY=error)")
    log.warning("%s Its answers may differ.", message)


@functools.cache
def installed(distribution: str) -> str:
    """Return the version of an installed distribution without importing it."""
    from importlib.metadata import version

    return version(distribution)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def import_scikit_learn() -> None:
    """Import scikit-learn without pandas, which 1.9 imports, but uses only where X is a frame.

    It would be a fifth of the memory of a server that needs none, and a tenth of its start. No
    other thread may import pandas meanwhile.
    """
    if "pandas" in sys.modules:
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import sklearn.utils.fixes  # noqa: F401
    finally:
        del sys.modules["pandas"]


def _load_joblib(path: Path, config: Config) -> Any:
    with path.open("rb") as file:
        head = file.read(23)
    if head == b"version https://git-lfs":
        raise StartError(
            f"{path.name} is a Git LFS pointer, not a model; fetch it with `git lfs pull`."
        )
    if head.startswith(pickle.PROTO) and path.stat().st_size >= _MAPPED_FILE and _stays(path):
        return _load_mapped(path)
    import joblib

    return joblib.load(path)


def _stays(path: Path) -> bool:
    """Whether nothing in this container can write to `path`, as where SageMaker mounts a model.

    A file written over while it is mapped changes the model in memory, and one cut short ends the
    process.
    """
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _load_mapped(path: Path) -> Any:
    """Load an uncompressed joblib file, its large arrays as private maps of the file.

    They are read when they are used, held once for all processes, and may be written to like any
    other: what is written stays in the process. joblib can only map all arrays or none; each map
    holds a file open, and a forest has thousands.
    """
    from joblib import numpy_pickle

    class Array(numpy_pickle.NumpyArrayWrapper):  # type: ignore[misc]
        allow_mmap: bool

        def read(self, unpickler: Any, ensure_native_byte_order: bool) -> Any:
            self.allow_mmap = (
                self.allow_mmap
                and math.prod(self.shape) * self.dtype.itemsize >= _MAPPED_ARRAY
                and self.subclass is unpickler.np.ndarray
                and self.dtype.isnative
                and self.safe_get_numpy_array_alignment_bytes() is not None  # joblib before 1.2
            )
            array = super().read(unpickler, not self.allow_mmap)
            return array.view(unpickler.np.ndarray) if self.allow_mmap else array

    class Unpickler(numpy_pickle.NumpyUnpickler):  # type: ignore[misc]
        def find_class(self, module: str, name: str) -> Any:
            found = super().find_class(module, name)
            return Array if found is numpy_pickle.NumpyArrayWrapper else found

    with path.open("rb") as file:
        return Unpickler(str(path), file, ensure_native_byte_order=False, mmap_mode="c").load()


def _load_skops(path: Path, config: Config) -> Any:
    """Load a .skops file, trusting only what skops itself trusts and what the deployer named.

    The list of trusted types never comes from the archive: it would vouch for itself.
    """
    import skops.io

    unknown = set(skops.io.get_untrusted_types(file=path)) - set(config.skops_trusted)
    if unknown:
        raise StartError(
            f"{path.name} wants to build {', '.join(sorted(unknown))}; if you trust these types, "
            "name them in SKSERVE_SKOPS_TRUSTED."
        )
    return skops.io.load(path, trusted=list(config.skops_trusted))


@contextmanager
def main_classes(lookup: Lookup | None) -> Iterator[None]:
    """Let classes pickled from a script's `__main__` be found by `lookup` instead.

    A module may answer for names it lacks (PEP 562), so the pickle finds them with no file changed
    and no second attempt. `lookup` raises AttributeError for what it does not know.
    """
    main = vars(sys.modules["__main__"])
    if lookup is None or "__getattr__" in main:
        yield
        return
    main["__getattr__"] = lookup
    try:
        yield
    finally:
        del main["__getattr__"]


def _explained(path: Path, saved: str | None, error: Exception) -> str:
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
        f"build the image with --build-arg SKLEARN={_minor(saved)}"
        if saved and _minor(saved) != _minor(here)
        else "build the image with the versions that saved it"
    )
    return (
        f"{path.name} cannot be loaded: it was saved by {origin} and this image has scikit-learn "
        f"{here} ({type(error).__name__}: {text}); {way_out}, or save the model again."
    )
