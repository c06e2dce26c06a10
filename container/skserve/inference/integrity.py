"""The model's files compared with SKSERVE_MODEL_SHA256 before any of them is unpickled or run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import unquote

from skserve import archive, digest
from skserve.config import ModelSettings
from skserve.errors import StartError
from skserve.inference.artifact import readable


@readable()
def check_digest(directory: Path, config: ModelSettings) -> None:
    """Raise StartError unless the files below `directory` have a digest that the settings name.

    Nothing is checked where they name none. Where they do, no setting may name a model or a script
    that lies elsewhere, because the digest says nothing of it.
    """
    if not config.model_sha256 or not directory.is_dir():
        return
    root = os.path.abspath(directory)  # noqa: PTH100  # of the path as it is written: no links
    for name, where in _named(directory, config):
        if "://" in where or not Path(os.path.abspath(where)).is_relative_to(root):  # noqa: PTH100
            raise StartError(
                f"{name} names {where}, which is not in {directory}, so SKSERVE_MODEL_SHA256 does "
                "not cover it; put it into the model's folder, code into its code/."
            )
    try:
        seen = digest.of_folder(directory)
    except ValueError as error:
        raise StartError(
            f"SKSERVE_MODEL_SHA256 cannot be checked: {error}; leave it out."
        ) from error
    if seen not in config.model_sha256:
        raise StartError(
            f"The files in {directory} have the digest {seen}, but SKSERVE_MODEL_SHA256 is "
            f"{', '.join(config.model_sha256)}: they are not those that were packed, or the "
            "setting is of another model."
        )
    # A .pyc that Python writes beside the script would be a file too many at the next start.
    sys.dont_write_bytecode = True


def _named(directory: Path, config: ModelSettings) -> list[tuple[str, str]]:
    """Return the settings that say where a model or code is, and the path that each names."""
    code = config.submit_directory or str(directory)
    return [
        ("SKSERVE_MODEL_FILE", str(directory / (config.model_file or ""))),
        ("SAGEMAKER_SUBMIT_DIRECTORY", unquote(code.removeprefix("file://"))),
        ("SAGEMAKER_PROGRAM", str(directory / archive.CODE_FOLDER / (config.program or ""))),
    ]
