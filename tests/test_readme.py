"""What the README lists is what the code does."""

from __future__ import annotations

import re
import subprocess

import pytest

from skserve.config import settings
from skserve.estimators.methods import METHODS
from skserve.formats.catalogue import DECODERS, ENCODERS
from skserve.inference.hooks import HOOKS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def row(setting) -> str:
    name, shown, says = (setting.metadata[key] for key in ("name", "shown", "says"))
    return f"| `{name}` | {shown} | {says} |"


def test_the_table_of_settings_is_the_codes():
    listed = [line for line in README.splitlines() if re.match(r"\| `[A-Z][A-Z0-9_]+` \|", line)]

    assert listed == [row(setting) for setting in settings()]


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS, *HOOKS, *METHODS])
def test_every_format_function_and_method_is_named(name):
    assert f"`{name}`" in README


def test_every_word_of_make_is_named():
    words = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert [word for word in words if f"make {word}" not in README and word != "help"] == []


def test_no_tracked_file_names_a_package_index():
    done = subprocess.run(
        ["git", "-C", ROOT, "grep", "-nIE", r"pypi\.org|pythonhosted|(extra-)?index-url *[=h]"],
        capture_output=True,
        text=True,
        check=False,
    )
    named = [line for line in done.stdout.splitlines() if "tests/test_readme.py" not in line]

    assert named == []
