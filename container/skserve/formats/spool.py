"""Where an answer waits until it is whole, so that it can still become an error.

A little of it stays in memory; more goes to a file without a name, which the kernel takes away with
this process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

from skserve.config import MIB, BatchSettings
from skserve.errors import Overloaded, StartError, TooLarge
from skserve.machine import in_memory

_IN_MEMORY = 4 * MIB
_BLOCK = MIB  # bytes read back at a time


def check_spool(config: BatchSettings) -> None:
    """Raise StartError unless the folder of the setting can be written by this process."""
    if not os.access(config.spool_dir, os.W_OK | os.X_OK):
        raise StartError(
            f"SKSERVE_SPOOL_DIR is {config.spool_dir}, which user {os.geteuid()} cannot write; "
            "choose a folder that it can, such as /tmp."
        )


class Spool:
    """Bytes in the order in which they were written, at most `limit` of them."""

    def __init__(self, config: BatchSettings) -> None:
        given = config.spool_mb
        self._limit = given * MIB if given else max(_room(config), _IN_MEMORY)
        self._folder = config.spool_dir
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._folder))  # noqa: SIM115
        self.size = 0

    def write(self, part: bytes) -> None:
        """Add to the end. Raises TooLarge beyond the limit, Overloaded where the disk is full."""
        self.size += len(part)
        if self.size > self._limit:
            raise TooLarge(
                f"The answer has more than {self._limit >> 20:,} MiB, the limit of what is kept "
                f"in {self._folder}.",
                "Send fewer rows at a time, ask for stream=duplex, or set SKSERVE_SPOOL_DIR and "
                "SKSERVE_SPOOL_MB.",
            )
        try:
            self._file.write(part)
        except OSError as error:
            raise Overloaded(
                f"The answer cannot be kept in {self._folder}: {error.strerror}.",
                "Set SKSERVE_SPOOL_DIR to a folder with more room.",
            ) from error

    def blocks(self, sizes: Iterator[int] | None = None) -> Iterator[bytes]:
        """Read everything back, in blocks of the sizes given, and let go of it."""
        with self._file:
            self._file.seek(0)
            left = self.size
            while left:
                block = self._file.read(min(left, next(sizes) if sizes else _BLOCK))
                left -= len(block)
                yield block

    def close(self) -> None:
        self._file.close()


def _room(config: BatchSettings) -> int:
    """Return the bytes that one answer may take by itself."""
    found = os.statvfs(config.spool_dir)
    room = found.f_bavail * found.f_frsize // 2
    return min(room, config.machine.memory // 8) if in_memory(config.spool_dir) else room
