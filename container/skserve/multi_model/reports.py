"""What the process of a model tells the zygote, checked: the user's code runs there."""

from __future__ import annotations

from skserve.multi_model import events
from skserve.multi_model.protocol import Message

# Characters that the process of a model may use to say why it could not load.
WORDS_LIMIT = 4096


def event_of(message: Message, seconds: float) -> events.Event | None:
    """Return the event that a model's process tells of, `seconds` after it began."""
    if "loaded" in message:
        return events.Loaded(_words(message["loaded"]), bool(message.get("scripted")), seconds)
    if "failed" in message:
        status = 507 if message.get("status") == 507 else 400
        return events.Failed(status, _words(message["failed"]))
    if "replace" in message:
        return events.ReplacementDue(_words(message["replace"]))
    return events.Hung() if "hung" in message else None


def memory_of(said: object) -> tuple[int, int]:
    """Return what a model's process says of its memory; nothing where it makes no sense."""
    match said:
        case [int(shared), int(private)] if all(0 <= size < 2**50 for size in (shared, private)):
            return shared, private
    return 0, 0


def _words(said: object) -> str:
    """Return what a model's process says as one line that fits into a message of ours."""
    return " ".join(said[:WORDS_LIMIT].split()) if isinstance(said, str) else "no words"
