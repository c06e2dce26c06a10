"""Environments of other servers: each is installed once from its lock, below the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.servers import Failed


def environment(folder: Path, lock: Path) -> Path:
    """Return the Python of the environment in `folder`, installed from `lock`. Raises Failed."""
    python, stamp = folder / "bin" / "python", folder / "lock.sha256"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {lock.stem} ...", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    # The locks name every package, so nothing is looked for: one of aws's own pins is overruled.
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", lock]
    venv: list[str | Path] = [sys.executable, "-m", "venv", folder]
    for command in (venv, pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"could not be installed:\n{done.stderr[-1500:]}")
    stamp.write_text(wanted)
    return python
