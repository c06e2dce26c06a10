"""What the pages name is there: files, and what is defined in them."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = subprocess.run(
    ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
).stdout.split()
PAGES = [name for name in FILES if re.fullmatch(r"(docs/)?[^/]+\.md", name)]

FILE = re.compile(r"(?<![\w/.-])[\w-]+(?:/[\w-]+)*\.(?:py|sh|js)\b")
PLACE = re.compile(r"`([\w.]+)` in `([\w/]+\.py)`")
USERS = {"setup.py"}  # files of users, of which no example is here


def found(name: str) -> list[str]:
    return [one for one in FILES if f"/{one}".endswith(f"/{name}")]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    spans = re.findall(r"`([^`\n]+)`", (ROOT / page).read_text())
    named = {name for span in spans for name in FILE.findall(span)} - USERS

    assert [name for name in sorted(named) if not found(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#[^)]*)?\)", (ROOT / page).read_text())
    here = Path(page).parent

    assert [link for link in links if link and not (ROOT / here / link).exists()] == []


@pytest.mark.parametrize(("name", "file"), PLACE.findall((ROOT / "docs/00-map.md").read_text()))
def test_what_the_map_places_in_a_file_is_defined_there(name, file):
    (path,) = found(f"skserve/{file}") or found(file)
    tree = ast.parse((ROOT / path).read_text())
    defined = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    for node in tree.body:  # the tables, and what else stands at the top
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {target.id for target in targets if isinstance(target, ast.Name)}

    assert set(name.split(".")) <= defined
