"""`schema.json` for an archive, from rows that callers will send and the model they are for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployment.errors import Refused
from deployment.payload import type_of
from skserve.errors import ServeError, StartError

_TYPES = ("text/csv", "application/json", "application/jsonlines")
_BY_HAND = "or write schema.json beside the model by hand: docs/25-columns.md"


def schema_of(files: Mapping[str, Path], model: str | None, rows: Path) -> dict[str, Any]:
    """Return the `schema.json` for the member `model` of an archive of `files`.

    The model is loaded here and asked for an answer to `rows`, a file of CSV or JSON. Raises
    Refused where that fails.
    """
    kind = type_of(rows.name)
    if kind not in _TYPES:
        raise Refused(f"{rows} cannot be an example", "give rows as .csv, .json or .jsonl")
    if model is None:
        raise Refused(
            "a model_fn loads the model, so --example cannot ask it", _BY_HAND.removeprefix("or ")
        )
    try:
        body = rows.read_bytes()
    except OSError as error:
        raise Refused(f"{rows} cannot be read: {error.strerror}", "name a file of rows") from None
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in files.items():
            link = Path(scratch) / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        return _asked(Path(scratch), model, body, kind, rows.name)


def _asked(folder: Path, model: str, body: bytes, kind: str, rows: str) -> dict[str, Any]:
    try:
        from skserve.inference import example
        from skserve.inference.calls import Call
    except ModuleNotFoundError as error:
        raise Refused(
            f"--example loads the model, and {error.name} is not installed here",
            f"pip install -r requirements/serve-1.9.txt, {_BY_HAND}",
        ) from None
    try:
        return example.schema_of(folder, model, Call(body, kind))
    except StartError as error:
        raise Refused(f"{model} cannot be asked: {error}", _BY_HAND.removeprefix("or ")) from error
    except ServeError as error:
        raise Refused(f"the model does not answer {rows}: {error.message}", error.hint) from error
    except Exception as error:  # what the model itself raises
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Refused(
            f"the model does not answer {rows}: {said}", "send rows as it was fitted on them"
        ) from error
