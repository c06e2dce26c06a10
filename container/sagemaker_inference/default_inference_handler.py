"""Imported by scripts beside `encoder` and never used: skserve calls functions, not a handler."""


class DefaultInferenceHandler:
    """A base class for handlers that a script may define but skserve does not call."""
