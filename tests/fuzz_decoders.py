"""Fuzz one decoder, guided by the code that it reaches. Needs atheris, from requirements/fuzz.txt.

usage: python -m tests.fuzz_decoders CONTENT_TYPE [options and folders of libFuzzer]

What fails is written into the folder of the corpus, where `tests/test_corpus.py` replays it.
"""

from __future__ import annotations

import sys
import warnings

import atheris
import scipy.sparse  # noqa: F401  # else the first body waits for it

with atheris.instrument_imports(include=["skserve"]):
    from tests import decoding


def main(content_type: str, *options: str) -> None:
    warnings.simplefilter("ignore")  # numpy's, of overflows
    folder = decoding.folder_of(content_type)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [sys.argv[0], f"-artifact_prefix={folder}/", *options]
    atheris.Setup(arguments, lambda body: decoding.decode(content_type, body))
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
