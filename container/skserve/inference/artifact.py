"""Loading the one model file of a directory, saying plainly why it does not load, and saving one.

A joblib file is code: it is loaded because the owner of the endpoint put it there. What fails while
it loads is nearly always a matter of versions, so the known failures are told as one sentence that
names the version to build the image with. All errors are `StartError`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skserve import archive
from skserve.config import ModelSettings
from skserve.errors import NoRoom, StartError
from skserve.inference import memory_mapped
from skserve.inference.load_errors import explained
from skserve.inference.versions import check_version, installed

SAVED_AS = "model.joblib"


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
def load(directory: Path, config: ModelSettings) -> tuple[Any, str | None]:
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
            raise StartError(explained(path, saved, error)) from error
    return estimator, saved


def save(
    estimator: Any, directory: Path, sample: Any = None, schema: dict[str, Any] | None = None
) -> Path:
    """Save a fitted estimator into `directory`, with its record and manifest; return its file.

    Uncompressed, so that serving can map it into memory. A file appears under its name once it is
    complete. `sample` is one row as JSON spells it; `schema` says what the estimator may not know
    of its columns, as `schema.json` does. Raises OSError where something cannot be written.
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
    files = {SAVED_AS: path, archive.RECORD: beside}
    if schema:
        files[archive.SCHEMA] = directory / archive.SCHEMA
        files[archive.SCHEMA].write_bytes(archive.schema_text(schema))
    described = archive.manifest(files, SAVED_AS)
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


def _load_joblib(path: Path, config: ModelSettings) -> Any:
    with path.open("rb") as file:
        head = file.read(23)
    if head == b"version https://git-lfs":
        raise StartError(
            f"{path.name} is a Git LFS pointer, not a model; fetch it with `git lfs pull`."
        )
    if memory_mapped.possible(path, head):
        return memory_mapped.load(path)
    import joblib

    return joblib.load(path)


def _load_skops(path: Path, config: ModelSettings) -> Any:
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
