"""The one helper that scripts use."""


def parse_accept(accept: str) -> list[str]:
    """Split an Accept header: "text/csv, application/json;q=0.9" gives the two media types."""
    return [part.partition(";")[0].strip() for part in accept.split(",")]
