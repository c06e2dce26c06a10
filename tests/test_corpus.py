"""Every body that a decoder once failed on, answered or refused by each of them."""

from __future__ import annotations

import pytest

from skserve.formats.catalogue import DECODERS
from tests import decoding

BODIES = sorted(path for path in decoding.CORPUS.rglob("*") if path.is_file())


def test_the_corpus_is_there():
    assert len(BODIES) > 10
    assert {path.parent for path in BODIES} <= set(map(decoding.folder_of, DECODERS))


@pytest.mark.parametrize("path", BODIES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_failed_once_is_answered_or_refused(path):
    for content_type in DECODERS:
        if decoding.folder_of(content_type) == path.parent or path.stat().st_size < 2000:
            decoding.decode(content_type, path.read_bytes())
