"""Loading an uncompressed joblib file with its large arrays mapped into memory."""

from __future__ import annotations

import math
import os
import pickle
from pathlib import Path
from typing import Any

# Bytes of an uncompressed joblib file, and of an array in it, from which arrays are mapped.
_MAPPED_FILE, _MAPPED_ARRAY = 64 * 2**20, 16 * 2**20


def possible(path: Path, head: bytes) -> bool:
    """Whether the file, which begins with `head`, can be mapped and is worth it."""
    large = head.startswith(pickle.PROTO) and path.stat().st_size >= _MAPPED_FILE
    return large and _stays(path)


def _stays(path: Path) -> bool:
    """Whether nothing in this container can write to `path`, as where SageMaker mounts a model.

    A file written over while it is mapped changes the model in memory, and one cut short ends the
    process.
    """
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def load(path: Path) -> Any:
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
