"""What a model's process answers, as untrusted data: each part of it is checked first."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from itertools import islice
from typing import Any

from skserve import logs, telemetry
from skserve.errors import ServeError
from skserve.inference.calls import Reply
from skserve.multi_model.protocol import Message
from skserve.series import STAGES

# Facts and stages of one call that a model's process may add to its line in the log.
FACTS = 50


class _Relayed(ServeError):
    """What a model's process says went wrong; its own log has the traceback."""

    def __init__(self, status: int, code: str, message: str, hint: str, retry_after: int) -> None:
        super().__init__(message, hint)
        self.status, self.code, self.retry_after = status, code, retry_after


def reply_of(head: Message, body: bytes, record: telemetry.Record | None) -> Reply:
    """Make a reply of a frame. Raises whatever reading one raises for what is none."""
    if record is not None:
        _count(head, record)
    if "error" in head:
        error = head["error"]
        code, message, hint = (str(error[key]) for key in ("code", "message", "hint"))
        later = max(1, int(error["retry_after"]))
        relayed = _Relayed(_status(error["status"], 400), code, message, hint, later)
        relayed.reason = str(error["reason"])
        raise relayed
    headers = {str(name): str(text) for name, text in head["headers"].items()}
    return Reply(body, str(head["media_type"]), _status(head["status"], 200), headers)


def _count(head: Message, record: telemetry.Record) -> None:
    """Take over what a model's process counted. Raises ValueError for what nothing can count to.

    No stage took longer than the whole call, whatever is said, and there are no others than ours.
    No fact takes the name of one that the worker itself says.
    """
    stages, facts = (islice(head[key].items(), FACTS) for key in ("stages", "facts"))
    longest = time.perf_counter() - record.began
    for name, seconds in stages:
        if (took := float(seconds)) != took:
            raise ValueError("a stage of no length")
        if name in STAGES:
            record.stages[STAGES.index(name)] = min(max(took, 0.0), longest)
    for said, fact in facts:
        if (name := _name(said)) not in logs.NAMES:
            record.facts.setdefault(name, _plain(fact))
    record.rows = _whole(head.get("rows", 0))
    record.predictions = _whole(head.get("predictions", 0))
    if (cells := head.get("cells")) is not None:
        missing, unseen, outside = map(_whole, cells)
        record.cells = [[missing], [unseen], [outside]]


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise ValueError(f"a count of {value!r:.50}")
    return value


def _status(value: Any, lowest: int) -> int:
    if not isinstance(value, int) or not lowest <= value <= 599:
        raise ValueError(f"a status of {value!r:.50}")
    return value


def _plain(fact: Any) -> Any:
    return fact if isinstance(fact, int | float) else _word(fact)


@lru_cache(1 << 8)  # they are the same few in each answer
def _name(said: str) -> str:
    """Return a name for a line of the log, in which it can be taken for no other fact."""
    return "_".join(re.findall(r"\w+", said[:50]))


def _word(said: Any) -> str:
    """Return what a model's process says without what would break a line of the log."""
    return " ".join(str(said)[:200].split())
