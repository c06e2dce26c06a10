"""make audit: every pin is looked up, and what must not be there fails it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

REQUIREMENTS = ROOT / "requirements"
sys.path.insert(0, str(REQUIREMENTS))
import audit  # noqa: E402


def run(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REQUIREMENTS / "audit.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_locked_package_has_a_licence_that_is_allowed():
    done = run()

    assert (done.returncode, done.stdout.splitlines()[-1][-8:]) == (0, "0 faults")
    assert "not looked up" in done.stderr
    known = {line.split()[0] for line in done.stdout.splitlines()}
    assert {name for name, _ in audit.pins(REQUIREMENTS)} <= known


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("AGPL-3.0 OR MIT-0-or-so", False),
        ("not said", False),
    ],
)
def test_an_expression_fits_if_each_of_its_licences_does(text, fits):
    assert audit.allowed(text) == fits


def advisory(name: str, **affected: Any) -> dict[str, Any]:
    package = {"ecosystem": "PyPI", "name": name}
    return {"id": "X-1", "summary": "bad", "affected": [{"package": package, **affected}]}


def by_range(*events: dict[str, str]) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


PINNED = {("a-b", "1.10"): ["serve.txt"]}


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (advisory("A_b", versions=["1.10"]), True),
        (advisory("a-b", versions=["1.1"]), False),
        (advisory("other", versions=["1.10"]), False),
        (advisory("a-b", **by_range({"introduced": "0"})), True),
        (advisory("a-b", **by_range({"introduced": "0"}, {"fixed": "1.9"})), False),
        (advisory("a-b", **by_range({"introduced": "0"}, {"fixed": "1.10"})), False),
        (advisory("a-b", **by_range({"introduced": "1.10"}, {"fixed": "1.11"})), True),
        (advisory("a-b", **by_range({"introduced": "0"}, {"last_affected": "1.10"})), True),
        (advisory("a-b", **by_range({"introduced": "0"}, {"last_affected": "1.9"})), False),
        (
            advisory(
                "a-b", **by_range({"introduced": "0"}, {"fixed": "1.2"}, {"introduced": "1.9"})
            ),
            True,
        ),
        ({**advisory("a-b", versions=["1.10"]), "withdrawn": "2026-01-01T00:00:00Z"}, False),
    ],
)
def test_an_advisory_names_the_versions_of_its_list_and_its_ranges(record, named):
    found = audit.vulnerable(PINNED, iter([record]))

    assert found == (["a-b 1.10: X-1 bad (serve.txt)"] if named else [])


def test_every_locked_package_is_looked_up(tmp_path):
    pinned = audit.pins(REQUIREMENTS)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for number, (name, version) in enumerate(pinned):
            record = advisory(name, versions=[version])
            archive.writestr(f"{number}.json", json.dumps(record))

    done = run(tmp_path / "all.zip")

    assert done.returncode == 1
    assert len(re.findall(r": X-1 bad \(", done.stdout)) == len(pinned) > 90
