"""What can happen to a model, and what is then to be done: the values that `lifecycle` maps."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

# ----------------------------------------------------------------------------- what happens to it


@dataclass(frozen=True)
class Connect:
    """A worker asks for a connection."""

    peer: Hashable


@dataclass(frozen=True)
class Unload:
    peer: Hashable


@dataclass(frozen=True)
class Start:
    """It was loaded before the zygote died, and is to be loaded again."""


@dataclass(frozen=True)
class Unstartable:
    """No process could be started for it."""

    why: str


@dataclass(frozen=True)
class Loaded:
    title: str
    scripted: bool
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Its process says why it cannot load; its end follows."""

    status: int
    words: str


@dataclass(frozen=True)
class Hung:
    """Its process says that every prediction hangs."""


@dataclass(frozen=True)
class ReplacementDue:
    """Its process says that it should be replaced, although it is well."""

    why: str


@dataclass(frozen=True)
class Unanswered:
    """A worker has waited for an answer in vain."""


@dataclass(frozen=True)
class Closed:
    """Its process has let go of a socket, as one that dies does."""


@dataclass(frozen=True)
class Malformed:
    """Its process has sent what is no message."""


@dataclass(frozen=True)
class Late:
    """Its process has passed the deadline; `why` was given with that."""

    why: str


@dataclass(frozen=True)
class Ended:
    """Its process has ended, with the exit code or minus the signal.

    `out_of_memory` says that the kernel killed it for want of memory.
    """

    code: int
    out_of_memory: bool


Event = (
    Connect
    | Unload
    | Start
    | Unstartable
    | Loaded
    | Failed
    | Hung
    | ReplacementDue
    | Unanswered
    | Closed
    | Malformed
    | Late
    | Ended
)


# ------------------------------------------------------------------------------ what is to be done


@dataclass(frozen=True)
class Spawn:
    """Start a process, which loads the model. Where that cannot be done: `Unstartable`."""


@dataclass(frozen=True)
class Kill:
    pass


@dataclass(frozen=True)
class Drain:
    """Tell the process to answer what it has, and to end."""


@dataclass(frozen=True)
class Deadline:
    """Say `Late(why)` in so many seconds, or never."""

    seconds: float | None
    why: str = ""


@dataclass(frozen=True)
class Join:
    """Give a worker a connection to the process."""

    peer: Hashable


@dataclass(frozen=True)
class Answer:
    peer: Hashable
    status: int
    message: str = ""


@dataclass(frozen=True)
class Persist:
    """Write down which models are loaded."""


@dataclass(frozen=True)
class Forget:
    pass


@dataclass(frozen=True)
class StartNext:
    """One that was starting is not any more: start the next that waits for its turn."""


@dataclass(frozen=True)
class Count:
    """Count that a process has ended, by `end`: crash, hang, out_of_memory or recycled."""

    end: str


@dataclass(frozen=True)
class Say:
    """Say it in the log, after the model's name."""

    level: str
    words: str


Effect = (
    Spawn | Kill | Drain | Deadline | Join | Answer | Persist | Forget | StartNext | Count | Say
)
