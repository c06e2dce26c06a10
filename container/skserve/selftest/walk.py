"""What the checks share: the server, what it says of its model, the rows it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skserve.config import Config
from skserve.formats.media_types import JSON
from skserve.selftest.alone import Alone
from skserve.selftest.answers import Cells, read
from skserve.selftest.bodies import write_json
from skserve.selftest.client import Answer, Client
from skserve.selftest.process import Server
from skserve.selftest.tables import Table

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

# The methods whose answers tell most of X. A class label is the same for many rows.
_TELLING = ("predict_proba", "decision_function", "score_samples")


@dataclass(frozen=True)
class Given:
    """What the command line said; `seconds` is the length of each of the loads."""

    model_dir: Path
    rows: Path | None = None
    expect: Path | None = None
    multi_model: bool = False
    seconds: float = 2.0


@dataclass
class Walk:
    """One run. What a check learns and others need is kept here.

    `about` is the answer of `GET /`; `sample` is a body with its media type that the server
    answers; `table` and `answers` are rows that it answers, and how, `method` by which.
    """

    given: Given
    config: Config
    environ: Mapping[str, str]
    server: Server
    ready_after: float
    folder: Path  # for logs
    about: dict[str, Any] = field(default_factory=dict)
    start_log: list[str] = field(default_factory=list)
    sample: tuple[bytes, str] | None = None
    table: Table | None = None
    answers: Cells = field(default_factory=list)
    errors_of_faults: int = 0  # in the log, made by checks that send what is wrong
    row_seconds: float = 0.0
    pings: list[float] = field(default_factory=list)  # seconds of each, under load
    alone: Alone | None = None

    @property
    def client(self) -> Client:
        return self.server.client

    @property
    def script(self) -> set[str]:
        """The functions of the user's script."""
        return set(self.about["script"])

    @property
    def reads_itself(self) -> bool:
        """Whether the user's script decodes the bodies."""
        return not self.script.isdisjoint({"input_fn", "transform_fn"})

    @property
    def writes_itself(self) -> bool:
        """Whether the user's script encodes the answers."""
        return not self.script.isdisjoint({"output_fn", "transform_fn"})

    @property
    def predicts_itself(self) -> bool:
        return not self.script.isdisjoint({"predict_fn", "transform_fn"})

    @property
    def method(self) -> str:
        """The method that the checks ask for: a telling one, where the server may choose."""
        own = str(self.about["method"])
        if self.script or own != "predict":
            return own
        return next((one for one in _TELLING if one in self.about["methods"]), own)

    def post(self, body: bytes, content_type: str = JSON, accept: str = JSON) -> Answer:
        """Invoke the model by `method`."""
        headers = {"Content-Type": content_type, "Accept": accept}
        if not self.script:
            headers[ATTRIBUTES] = f"method={self.method}"
        return self.client.ask("POST", "/invocations", body, headers)

    def answer(self, table: Table) -> Cells:
        """Invoke the model with a table in JSON. Raises ValueError for anything but its rows."""
        answer = self.post(write_json(table))
        if answer.status != 200:
            raise ValueError(answer.said)
        return read(answer.media_type, answer.body)
