"""What batch transform and training have in common: jobs that run by themselves, and end."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .artifacts import Artifacts
from .catalogue import Catalogue, Given
from .engine import Container, Engine
from .errors import ApiError, StartError, not_modelled
from .images import Images
from .launcher import Launcher
from .services import Services
from .store import Store

_log = logging.getLogger(__name__)
_INTERRUPTED = "InternalServerError: the local cloud's process ended while the job ran."
_REASON_LIMIT = 1024


class Stopped(Exception):
    """The job was stopped by its owner."""


class Jobs:
    """Jobs of one kind, as the two kinds build on it. `noun` is TransformJob or TrainingJob."""

    noun, table, group = "", "", ""

    def __init__(
        self, store: Store, services: Services, catalogue: Catalogue, images: Images,
        artifacts: Artifacts, launcher: Launcher, engine: Engine | None, folder: Path,
    ) -> None:  # fmt: skip
        self._store, self._services, self._catalogue = store, services, catalogue
        self._images, self._artifacts, self._launcher = images, artifacts, launcher
        self._engine, self._folder = engine, folder
        self._stopping: dict[str, threading.Event] = {}

    def operations(self) -> dict[str, Callable[[Given], dict[str, Any]]]:
        return {
            f"Create{self.noun}": self._create,
            f"Describe{self.noun}": lambda given: self._get(given[f"{self.noun}Name"]),
            f"Stop{self.noun}": self._stop,
        }

    def check(self, given: Given) -> None:
        """Refuse what cannot be. Raises `ApiError`."""
        raise NotImplementedError

    def run(self, record: dict[str, Any], containers: list[Container]) -> None:
        """Do the job. Raises `StartError` with its FailureReason, or `Stopped`."""
        raise NotImplementedError

    def arn(self, name: str) -> str:
        kind = re.sub(r"(?<=.)([A-Z])", r"-\1", self.noun).lower()
        return self._catalogue.arn(kind, name)

    def _get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] | None = self._store.tables[self.table].get(name)
        if found is None:
            raise ApiError("ValidationException", f"Requested resource not found: {name}.")
        return found

    def _create(self, given: Given) -> dict[str, Any]:
        name = given[f"{self.noun}Name"]
        if name in self._store.tables[self.table]:
            raise ApiError("ResourceInUse", f"{self.noun} name must be unique within an AWS "
                           "account and region, and one with this name exists")  # fmt: skip
        if self._engine is None:
            raise not_modelled("a job without containers")
        self.check(given)
        now = time.time()
        record = {key: value for key, value in given.items() if key != "Tags"} | {
            f"{self.noun}Arn": self.arn(name), "CreationTime": now, "LastModifiedTime": now,
        }  # fmt: skip
        self.status(record, "InProgress")
        self._catalogue.keep(self.table, self.arn(name), name, record, given)
        self._stopping[name] = threading.Event()
        threading.Thread(target=self._work, args=(record,), name=f"job {name}", daemon=True).start()
        return {f"{self.noun}Arn": self.arn(name)}

    def status(self, record: dict[str, Any], status: str, reason: str = "") -> None:
        """Note a status."""
        record |= {f"{self.noun}Status": status, "LastModifiedTime": time.time()}
        if reason:
            record["FailureReason"] = reason[:_REASON_LIMIT]
        self._store.changed()

    def stopping(self, record: Mapping[str, Any]) -> threading.Event:
        """Return the event that is set once the job is to stop."""
        return self._stopping[record[f"{self.noun}Name"]]

    def _work(self, record: dict[str, Any]) -> None:
        containers: list[Container] = []
        try:
            self.run(record, containers)
            ended, reason = "Completed", ""
        except Stopped:
            ended, reason = "Stopped", ""
        except StartError as error:
            ended, reason = "Failed", str(error)
        except (
            Exception
        ) as error:  # a defect of this cloud must not leave it in progress without end
            _log.exception("a job failed")
            ended, reason = "Failed", f"InternalServerError: the local cloud failed: {error!r}"
        finally:
            for container in containers:
                container.remove()
        self.finished(record, ended)
        self.status(record, ended, reason)

    def finished(self, record: dict[str, Any], status: str) -> None:
        """Note what describes the end of a job."""

    def _stop(self, given: Given) -> dict[str, Any]:
        record = self._get(given[f"{self.noun}Name"])
        if record[f"{self.noun}Status"] != "InProgress":
            status = record[f"{self.noun}Status"]
            raise ApiError("ValidationException", f"The request was rejected because the job is in "
                           f"status {status}.")  # fmt: skip
        self.status(record, "Stopping")
        self.stopping(record).set()
        return {}

    def resume(self) -> None:
        """End the jobs that an earlier process did not."""
        for record in self._store.tables[self.table].values():
            if record[f"{self.noun}Status"] in ("InProgress", "Stopping"):
                self.finished(record, "Failed")
                self.status(record, "Failed", _INTERRUPTED)

    def logger(
        self, stream: str, also: Callable[[str], None] | None = None
    ) -> Callable[[str], None]:
        """Return what puts a line into the log of this kind of job."""

        def line(text: str) -> None:
            self._services.log(self.group, stream, [text])
            if also is not None:
                also(text)

        return line

    def followed(self, container: Container, line: Callable[[str], None]) -> threading.Thread:
        """Hand on a container's log from another thread, which ends with it."""
        thread = threading.Thread(target=container.follow, args=(line,), daemon=True)
        thread.start()
        return thread
