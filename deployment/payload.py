"""What a call sends: a body, and the content type that its file's ending names."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

from deployment.errors import Refused, Usage

# What a file's ending says about its content, for `invoke` and `transform`.
CONTENT_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
    ".parquet": "application/x-parquet",
    ".txt": "text/plain",
}


def payload(source: str | None, data: str | None, content_type: str) -> tuple[bytes, str]:
    """Return the body and content type of `invoke`: literal data, a file, or stdin for `-`."""
    if data is not None:
        return data.encode(), content_type or "text/csv"
    if source is None or source == "-":
        if source is None and sys.stdin.isatty():
            raise Usage("nothing is given to send", "name a file, --data TEXT, or - for what you "
                        "type, ended by Ctrl-D")  # fmt: skip
        return sys.stdin.buffer.read(), content_type or "text/csv"
    path = Path(source)
    kind = content_type or type_of(source)
    try:
        body = path.read_bytes()
    except OSError as error:
        raise Usage(f"{path} cannot be read: {error.strerror}") from error
    return body, kind


def type_of(name: str) -> str:
    """Return the content type that the ending of a file or key names. Raises `Refused`."""
    kind = CONTENT_TYPES.get(PurePosixPath(name).suffix.lower(), "")
    if not kind:
        raise Refused(
            f"the type of {PurePosixPath(name).name} is not known", "give it with --content-type"
        )
    return kind
