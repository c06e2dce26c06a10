"""docs/85-threats.md: each line of its tables names tests, and there are such tests."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "85-threats.md").read_text()

# The lines of every table that has a column for tests.
TABLES = [
    line.strip("|").split(" | ")
    for part in PAGE.split("\n## ")
    if "| test |" in part
    for line in part.splitlines()
    if line.startswith("|") and not line.startswith(("| threat |", "|--"))
]


def test_the_tables_are_found():
    assert len(TABLES) > 30


@pytest.mark.parametrize("row", TABLES, ids=lambda row: row[0].strip()[:60])
def test_every_line_names_a_test_that_exists(row):
    named = re.findall(r"`(test_\w+)::(test_\w+)`", row[-1])

    assert named
    for module, name in named:
        tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
