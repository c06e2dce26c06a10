"""Errors that a hook may let through: `status_code` tells skserve whose fault it was.

AWS's container answered 500 to all of them.
"""

from collections.abc import Collection


class ClientError(ValueError):
    """The request's body could not be read."""

    status_code = 400


class UnsupportedFormatError(Exception):
    """The request's content type cannot be read (415), or the accepted one not written (406)."""

    def __init__(
        self, content_type: str, status_code: int = 415, supported: Collection[str] = ()
    ) -> None:
        super().__init__(content_type, status_code, tuple(supported))
        self.content_type = content_type
        self.status_code = status_code
        verb = "written" if status_code == 406 else "read"
        hint = f"; {', '.join(supported)} can" if supported else ""
        self.message = f"Content type {content_type} cannot be {verb}{hint}"

    def __str__(self) -> str:
        return self.message
