"""Giving root up, where that is possible. The real thing is in test_image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skserve import privileges
from skserve.config import Config


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give root up")
def test_what_another_user_must_be_able_to_read(tmp_path, monkeypatch):
    """In a child's stead: this process stays root, and asks for what the mode bits say."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "dangling").symlink_to("/no/such/file")
    (tmp_path / "code").mkdir(mode=0o700)
    code = tmp_path / "code"

    assert privileges._first_unreadable([tmp_path / "model" / "dangling", tmp_path]) == ""
    for where in (f"file://{code}", str(code), str(code / "serve.py")):
        assert privileges._local_code(Config(submit_directory=where)) == [code]
    assert privileges._local_code(Config(submit_directory="s3://b/k")) == []
    assert privileges._local_code(Config()) == []
    monkeypatch.setattr(privileges, "__file__", "/")
    for module in (privileges.os, privileges.numpy):
        monkeypatch.setattr(module, "__file__", "/")
    nobody = privileges.pwd.getpwnam("nobody")
    assert privileges._obstacle(nobody, [Path("/etc/hostname")]) == ""
    assert privileges._obstacle(nobody, [code]) == f"nobody cannot read {code}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lose its capabilities")
def test_root_without_capabilities_stays_root(monkeypatch):
    def refused(*_: object) -> None:
        raise PermissionError("no capability")

    monkeypatch.setattr(privileges.os, "setgroups", refused)
    nobody = privileges.pwd.getpwnam("nobody")

    assert privileges._obstacle(nobody, []) == "root may not become nobody here"
    monkeypatch.undo()
    monkeypatch.setattr(privileges.os, "kill", refused)
    readable = [Path("/etc/hostname")]
    assert privileges._obstacle(nobody, readable, ends_it=True).startswith("root may not end")
    monkeypatch.setattr(privileges.os, "setgroups", refused)
    privileges.give_up_root(Config(model_dir=Path("/etc"), user="nobody"))
    assert os.geteuid() == 0
