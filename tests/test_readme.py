"""What the README lists is what the code does."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
from itertools import pairwise

import pytest

from skserve import config
from skserve.estimators.methods import METHODS
from skserve.formats.catalogue import DECODERS, ENCODERS
from skserve.inference.hooks import HOOKS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def explained() -> dict[str, str]:
    """Return the text that stands under each field of a class in the module of settings."""
    texts = {}
    for group in ast.parse(inspect.getsource(config)).body:
        for one, below in pairwise(getattr(group, "body", [])):
            if isinstance(one, ast.AnnAssign) and isinstance(below, ast.Expr):
                texts[one.target.id] = " ".join(ast.literal_eval(below.value).split())
    return texts


def test_the_table_of_settings_is_the_codes():
    listed = [line for line in README.splitlines() if re.match(r"\| `[A-Z][A-Z0-9_]+` \|", line)]
    texts = explained()

    assert listed == [
        f"| `{one.metadata['name']}` | {one.metadata['shown']} | {texts[one.name]} |"
        for one in config.settings()
    ]


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS, *HOOKS, *METHODS])
def test_every_format_function_and_method_is_named(name):
    assert f"`{name}`" in README


def test_every_word_of_make_is_named():
    words = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert [word for word in words if f"make {word}" not in README and word != "help"] == []


def test_no_tracked_file_names_a_package_index():
    done = subprocess.run(
        ["git", "-C", ROOT, "grep", "-nIE", r"py[p]i\.org|python[h]osted|(extra-)?index-url *[=h]"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == ""
