"""What memory a model may take: looked at before and after it loads, and told to the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skserve import archive, privileges
from skserve.config import MIB, Config
from skserve.errors import NoRoom
from skserve.machine import resident

# What a model takes at least beside its file, in bytes: an iris pipeline measures about 8 MiB.
FLOOR = 8 * MIB

# What is left at least for calls when a model has been loaded, in bytes.
REST = 16 * MIB

# How many times the size of its file a compressed model takes in memory, at the least. Too low a
# guess costs a load that ends for want of memory; too high a one would evict others for nothing.
EXPANSION = 2

# Share of the memory that a loaded model has on top of its growth as the kernel counts it.
_STANDING = 600


@contextmanager
def first_to_go(memory: int) -> Iterator[None]:
    """Be the process that the kernel ends if memory runs out; afterwards be judged by growth.

    It ends the process with the most memory plus its adjustment in thousandths of all memory. So a
    small model that grows without end goes before a large one that does not. Who has said that it
    is loaded does not go first any more. The file is opened here, while root may still do so.
    """
    try:
        file = privileges.open_own("oom_score_adj", os.O_WRONLY)
        os.write(file, b"1000")
    except OSError:
        yield
        return
    try:
        yield
        share = resident() * 1000 // memory
        with suppress(OSError):  # the container's runtime may have raised its minimum
            os.write(file, b"%d" % max(0, _STANDING - share))
    finally:
        os.close(file)


def check_room(directory: Path, config: Config) -> None:
    """Compare what the model will take at the least with the memory that is left. Raises NoRoom."""
    needed, left = (
        FLOOR + sum(map(_in_memory, archive.find_models(directory))),
        config.machine.left(),
    )
    if needed > left:
        raise NoRoom(
            f"The model needs at least {needed // MIB:,} MiB of memory; {left // MIB:,} are left."
        )


def check_rest(config: Config) -> None:
    """Leave memory to those who answer: of many loads at once each saw the same. Raises NoRoom."""
    left = config.machine.left()
    if left < REST:
        raise NoRoom(
            f"With the model {left // MIB:,} MiB of memory would be left; calls need {REST // MIB}."
        )


def _in_memory(path: Path) -> int:
    return path.stat().st_size * (EXPANSION if archive.is_compressed(path) else 1)
