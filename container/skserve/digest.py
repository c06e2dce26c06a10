"""The digest of a model's folder: one SHA-256 over the names and the contents of all its files.

Only the standard library is imported here, so the deployment scripts share this module with the
image. The digest is what a shell prints in that folder by

    find -L . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum -z | sha256sum

Modes, owners, times and empty folders are not part of it, because archives and mounts change them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from skserve.archive import sha256


def of_files(files: Mapping[str, str]) -> str:
    """Return the digest of a tree, in hex.

    `files` maps the name of each file, with / between folders, to the SHA-256 of its content in
    hex.
    """
    digest = hashlib.sha256()
    for name in sorted(map(os.fsencode, files)):
        digest.update(files[os.fsdecode(name)].encode() + b"  ./" + name + b"\0")
    return digest.hexdigest()


def of_folder(folder: Path) -> str:
    """Return the digest of what lies below `folder`; a link to a file counts as that file.

    Raises OSError for what cannot be read, and ValueError for what is neither a file nor a folder,
    and for a link to a folder: an archive has none of these.
    """
    files = {}
    for root, folders, names in os.walk(folder, onerror=_raise):
        linked = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in linked + names:
            path = Path(root) / name
            if not path.is_file():
                raise ValueError(f"{path} is neither a file nor a folder")
            files[path.relative_to(folder).as_posix()] = sha256(path.open("rb"))
    return of_files(files)


def _raise(error: OSError) -> NoReturn:
    raise error
