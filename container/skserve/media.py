"""The header grammar of RFC 9110 that matters here: media types, their charset, and Accept.

Types are compared in lower case, parameters are split off, quality values are honoured.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass

from skserve.errors import BadRequest, UnsupportedMediaType

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
JSON_LINES, NDJSON = "application/jsonlines", "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"  # what curl says unless told otherwise

_TOKEN = r"[!#$%&'*+\-.^_`|~\w]+"
_TYPE = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*", re.ASCII)
_PARAMETER = re.compile(
    rf";\s*(?:({_TOKEN})\s*=\s*(?:({_TOKEN})|\"((?:[^\"\\]|\\.)*)\"))?\s*", re.ASCII
)


@dataclass(frozen=True)
class MediaType:
    """A media type in lower case, such as `text/csv`, and its parameters."""

    name: str
    parameters: dict[str, str]

    @classmethod
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
    ranges = []
    for part in re.findall(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+', accept):
        if not part.strip():
            continue
        try:
            media = MediaType.parse(part)
            quality = float(media.parameters.get("q", "1"))
        except ValueError:
            raise BadRequest(
                f"Accept {accept!r} cannot be read.", "Send media types separated by commas."
            ) from None
        if quality > 0:
            ranges.append((-quality, media.name))
    return [name for _, name in sorted(ranges, key=lambda one: one[0])]


def negotiate(accept: str, offered: Iterable[str], default: str) -> str | None:
    """Choose the best of `offered` for an Accept header, or None where none fits.

    `default` answers an absent header and `*/*`. Among types that `type/*` allows, the default
    comes first, then the order of `offered`.
    """
    names = [default, *offered]
    wanted = preferences(accept)
    if not wanted:
        return None if accept.strip(", ") else default
    for one in wanted:
        if one in ("*/*", "*"):
            return default
        for name in names:
            if name == one or (one.endswith("/*") and name.startswith(one[:-1])):
                return name
    return None


def text_of(body: bytes, kind: MediaType) -> str:
    """Decode a body by its charset, UTF-8 where it names none; a byte order mark is dropped."""
    charset = kind.parameters.get("charset", "utf-8")
    try:
        codec = codecs.lookup(charset)
    except (LookupError, ValueError):
        codec = None
    if codec is None or not codec._is_text_encoding:
        raise UnsupportedMediaType(f"charset {charset!r} is not known.", "Send UTF-8.")
    try:
        text = codec.decode(body)[0]
    except UnicodeError as error:
        where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise BadRequest(
            f"The body is not {codec.name} text{where}.", "Send UTF-8, or name the charset."
        ) from None
    return text.removeprefix("\ufeff")
