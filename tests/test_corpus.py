"""Every body that a decoder once failed on, answered or refused by each of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skserve.errors import BadRequest
from skserve.estimators.schema import Schema
from skserve.formats.catalogue import DECODERS
from skserve.formats.media_types import JSON, NPY, NPZ
from skserve.inference import calls
from skserve.inference.calls import Call
from tests import decoding

BODIES = sorted(path for path in decoding.CORPUS.rglob("*") if path.is_file())


def test_the_corpus_is_there():
    assert len(BODIES) >= 8
    assert {path.parent for path in BODIES} <= set(map(decoding.folder_of, DECODERS))


@pytest.mark.parametrize("path", BODIES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_failed_once_is_answered_or_refused(path):
    for content_type in DECODERS:
        if decoding.folder_of(content_type) == path.parent or path.stat().st_size < 2000:
            decoding.decode(content_type, path.read_bytes())


class Touch:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content_type", [NPY, NPZ])
def test_no_pickle_is_ever_loaded(content_type, tmp_path):
    stream = io.BytesIO()
    save = np.save if content_type == NPY else np.savez
    save(stream, np.array([[Touch(tmp_path / "ran")]]))

    with pytest.raises(BadRequest):
        calls.decode(Call(stream.getvalue(), content_type), Schema(), JSON)

    assert not (tmp_path / "ran").exists()
