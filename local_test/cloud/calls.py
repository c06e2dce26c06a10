"""A call and its answer, and how large they may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .errors import ApiError

LIMIT = 6_291_456  # bytes of a request and of an answer
SERVERLESS_LIMIT = 4 << 20
_PREFIX = "X-Amzn-SageMaker-"


@dataclass(frozen=True)
class Call:
    """A call as it came: the body, and the headers by name without SageMaker's prefix."""

    body: bytes
    content_type: str = ""
    accept: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_container(self) -> dict[str, str]:
        """Return the headers that the container sees."""
        named = {"Content-Type": self.content_type, "Accept": self.accept}
        for name in ("Custom-Attributes", "Target-Model", "Inference-Id"):
            named[_PREFIX + name] = self.headers.get(name, "")
        return {name: value for name, value in named.items() if value}


@dataclass
class Reply:
    """What the container answered; `parts` yields the body."""

    status: int
    headers: Mapping[str, str]
    parts: Iterator[bytes]
    variant: str
    body: bytes = b""


def too_large(size: int, limit: int = LIMIT) -> None:
    """Refuse a body above the limit in SageMaker's words."""
    if size > limit:
        raise ApiError(
            "ValidationError",
            "1 validation error detected: Value at 'body' failed to satisfy constraint: Member "
            f"must have length less than or equal to {limit}",
        )
