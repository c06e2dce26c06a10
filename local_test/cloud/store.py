"""What the account holds, on disk, so that a process that was killed is taken up by the next.

SageMaker's tables are one JSON file. moto's own backends are pickled, a file a service, after a
call that may have changed them. Each file is replaced whole, so a kill leaves the old or the new.
"""

from __future__ import annotations

import json
import pickle
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from moto.backends import get_backend

KINDS = ("models", "configs", "endpoints", "transform_jobs", "training_jobs", "tags")
# Services whose backends can be pickled; `images` does the same for ECR. Queues are not kept.
_KEPT = ("s3", "iam", "sns", "cloudwatch", "logs", "applicationautoscaling", "sagemaker")
_PAUSE = 0.5  # seconds between a change and its place on disk


class Store:
    """Tables by kind and name, and a thread that keeps their copy on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.tables: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self.images: dict[str, Any] = {}
        self._changed: set[str] = set()
        self._wake = threading.Event()
        self._ended = False
        self._writer = threading.Thread(target=self._write, name="store", daemon=True)

    def load(self) -> bool:
        """Read what an earlier process left, and say whether there was anything."""
        found = self.folder / "tables.json"
        if not found.exists():
            return False
        kept = json.loads(found.read_text())
        self.images = kept.pop("images", {})
        self.tables |= kept
        for service in _KEPT:
            path = self.folder / f"{service}.pickle"
            if path.exists():
                backend = get_backend(service)  # type: ignore[call-overload]
                for account, regions in pickle.loads(path.read_bytes()).items():
                    for region, one in regions.items():
                        backend[account][region] = one
        return True

    def start(self) -> None:
        """Begin to keep the copy on disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer.start()
        self.changed()

    def changed(self, service: str = "") -> None:
        """Note that the tables, or a service of moto, are to be written."""
        self._changed.add(service)
        self._wake.set()

    def forget(self) -> None:
        """Remove the copy: everything in it has been removed, too."""
        self._ended = True
        self._wake.set()
        if self._writer.is_alive():
            self._writer.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self) -> None:
        while not self._ended:
            self._wake.wait()
            self._wake.clear()
            threading.Event().wait(_PAUSE)
            due, self._changed = self._changed, set()
            for service in due:
                # A backend that is changed while it is read is due again.
                with suppress(RuntimeError, FileNotFoundError):
                    self._save(service)
                    continue
                self.changed(service)

    def _save(self, service: str) -> None:
        if service in _KEPT:
            backend = get_backend(service)  # type: ignore[call-overload]
            plain = {
                account: {region: backend[account][region] for region in list(backend[account])}
                for account in list(backend)
            }
            self._replace(f"{service}.pickle", pickle.dumps(plain))
        with self.lock:
            content = json.dumps({**self.tables, "images": self.images})
        self._replace("tables.json", content.encode())

    def _replace(self, name: str, content: bytes) -> None:
        partial = self.folder / f"{name}.part"
        partial.write_bytes(content)
        partial.replace(self.folder / name)
