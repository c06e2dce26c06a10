"""The header grammar of RFC 9110 that matters here: media types, their charset, and Accept.

Types are compared in lower case, parameters are split off, quality values are honoured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from skserve.errors import BadRequest

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
NPZ, RECORDIO = "application/x-npz", "application/x-recordio-protobuf"
LIBSVM, X_LIBSVM = "text/libsvm", "text/x-libsvm"
PARQUET, X_PARQUET = "application/vnd.apache.parquet", "application/x-parquet"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"
JSON_LINES, NDJSON = "application/jsonlines", "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"  # what curl says unless told otherwise

_TOKEN = r"[!#$%&'*+\-.^_`|~\w]+"
_TYPE = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*", re.ASCII)
_PARAMETER = re.compile(
    rf";\s*(?:({_TOKEN})\s*=\s*(?:({_TOKEN})|\"((?:[^\"\\]|\\.)*)\"))?\s*", re.ASCII
)


@dataclass(frozen=True)
class MediaType:
    """A media type in lower case, such as `text/csv`, and its parameters; never changed."""

    name: str
    parameters: dict[str, str]

    @classmethod
    @lru_cache(256)
    def parse(cls, text: str) -> MediaType:
        """Read one media type. Raises ValueError where it is not one."""
        match = _TYPE.match(text)
        if not match:
            raise ValueError(f"{text!r} is not a media type")
        parameters, at = {}, match.end()
        while at < len(text):
            found = _PARAMETER.match(text, at)
            if not found:
                raise ValueError(f"{text!r} is not a media type")
            name, token, quoted = found.groups()
            if name:
                value = token if token is not None else re.sub(r"\\(.)", r"\1", quoted)
                parameters[name.lower()] = value
            at = found.end()
        return cls(f"{match[1]}/{match[2]}".lower(), parameters)


def preferences(accept: str) -> list[str]:
    """Return the media ranges of an Accept header, best first; those with q=0 are left out.

    Raises BadRequest for a header that does not parse.
    """
    return [name for name, quality in _ranges(accept) if quality > 0]


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Return the media ranges of an Accept header and their quality, best first."""
    ranges = []
    for part in _parts(accept):
        if not part.strip():
            continue
        try:
            media = MediaType.parse(part)
            quality = float(media.parameters.get("q", "1"))
        except ValueError:
            raise _unreadable(accept) from None
        if not 0 <= quality <= 1:  # nan is not either
            raise _unreadable(accept)
        ranges.append((media.name, quality))
    return sorted(ranges, key=lambda one: -one[1])


# The text between two separators. The last way takes a quote that is never closed with all the
# rest, so that no search starts again after it: that took time quadratic in the header.
_PIECE = re.compile(r'[^,"]+|"(?:[^"\\]|\\.)*"|,|".*', re.DOTALL)


def _parts(accept: str) -> list[str]:
    """Split a header at the commas that stand outside of quotes."""
    parts: list[list[str]] = [[]]
    for piece in _PIECE.findall(accept):
        if piece == ",":
            parts.append([])
        else:
            parts[-1].append(piece)
    return ["".join(part) for part in parts]


def _unreadable(accept: str) -> BadRequest:
    return BadRequest(
        f"Accept {accept[:200]!r} cannot be read.",
        "Send media types separated by commas, with a q from 0 to 1.",
    )


def negotiate(accept: str, offered: Iterable[str], default: str) -> str | None:
    """Choose the best of `offered` for an Accept header, or None where none fits.

    `default` answers an absent header and `*/*`. Among types that a wildcard allows, the default
    comes first, then the order of `offered`. A type refused by name (q=0) is never chosen; one
    refused by `type/*` is chosen only where it is asked for by name.
    """
    ranges = _ranges(accept)
    if not ranges:
        return default
    names = (default, *offered)
    refused = {one for one, quality in ranges if quality == 0}
    # A range that is repeated is looked at once, and only those that may refuse a name are kept.
    refused = {one for one in refused if any(_covers(one, name) for name in names)}
    for one in dict.fromkeys(one for one, quality in ranges if quality > 0):
        for name in names:
            if _covers(one, name) and not _refused(name, one, refused):
                return name
    return None


def _covers(one: str, name: str) -> bool:
    return one in (name, "*/*") or (one.endswith("/*") and name.startswith(one[:-1]))


def _refused(name: str, wanted: str, refused: set[str]) -> bool:
    """Whether a range as narrow as the `wanted` one, or narrower, refuses `name`."""
    return any(_covers(one, name) and _width(one) <= _width(wanted) for one in refused)


def _width(one: str) -> int:
    return one.count("*")
