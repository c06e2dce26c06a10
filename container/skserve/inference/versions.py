"""The versions of what is installed here, and whether a model's goes with them."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from skserve.errors import StartError

log = logging.getLogger("skserve")


def check_version(path: Path, saved: str | None, policy: str) -> None:
    """Compare the scikit-learn that saved the model with the one here, as the policy says."""
    here = installed("scikit-learn")
    if policy == "off" or saved is None or minor(saved) == minor(here):
        return
    message = (
        f"{path.name} was saved by scikit-learn {saved} and this image has {here}; "
        f"build the image with --build-arg SKLEARN={minor(saved)}, or save the model again."
    )
    if policy == "error":
        raise StartError(message + " (SKSERVE_VERSION_POLICY=error)")
    log.warning("%s Its answers may differ.", message)


@functools.cache
def installed(distribution: str) -> str:
    """Return the version of an installed distribution without importing it."""
    from importlib.metadata import version

    return version(distribution)


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
