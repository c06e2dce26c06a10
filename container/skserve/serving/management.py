"""What the calls of model management ask, read and checked: names, urls, pages of the list."""

from __future__ import annotations

import base64
import binascii
import json
from urllib.parse import quote, unquote_to_bytes

from skserve.errors import BadRequest

# Models on a page of the list: the most, and where the caller does not say.
PAGE = 100

# Bytes of the body of a load, and characters of a name or url.
BODY_LIMIT = 64 << 10
TEXT_LIMIT = 2048

# Bytes of a name as a path carries it: the line of a call has 4,094 at most.
SEGMENT_LIMIT = 4000

_EXAMPLE = 'Send {"model_name": "NAME", "url": "/opt/ml/models/NAME/model"}.'


def name_of(segment: str | bytes) -> str:
    """Return the name that a segment of a path carries."""
    return unquote_to_bytes(segment).decode(errors="surrogateescape")


def load_of(body: bytes) -> tuple[str, str]:
    """Return the name and url that a load asks for. Raises BadRequest."""
    if len(body) > BODY_LIMIT:
        raise BadRequest(f"The body has {len(body):,} bytes; the limit is {BODY_LIMIT:,}.")
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.", _EXAMPLE) from None
    name, url = _text(asked, "model_name"), _text(asked, "url")
    size = len(quote(name.encode(errors="surrogateescape"), safe=""))
    if size > SEGMENT_LIMIT:
        raise BadRequest(
            f"model_name has {size:,} bytes as a path carries it; the limit is {SEGMENT_LIMIT:,}.",
            "Choose a shorter name.",
        )
    return name, url


def _text(asked: object, key: str) -> str:
    value = asked.get(key) if isinstance(asked, dict) else None
    if not isinstance(value, str) or not value:
        raise BadRequest(f"The body has no {key}.", _EXAMPLE)
    if len(value) > TEXT_LIMIT:
        raise BadRequest(f"{key} has {len(value):,} characters; the limit is {TEXT_LIMIT:,}.")
    try:  # as a path would carry it
        return value.encode(errors="surrogateescape").decode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise BadRequest(f"{key} holds half a character, which no path can carry.") from None


def limit_of(text: str | None) -> int:
    """Return how many models a page may hold: as in Multi Model Server 100, or fewer if asked."""
    try:
        limit = int(text) if text else PAGE
    except ValueError:
        raise BadRequest(f"limit is {text!r:.50}; expected a whole number.") from None
    return limit if 0 < limit < PAGE else PAGE


def token_after(name: str) -> str:
    """Return the token of the page after `name`: it holds whatever is loaded in between."""
    text = name.encode(errors="surrogatepass")
    return base64.urlsafe_b64encode(text).decode()


def token_of(text: str | None) -> str | None:
    """Return the name behind which a page begins; None for the first page. Raises BadRequest."""
    if not text:
        return None
    try:
        return base64.b64decode(text, b"-_", validate=True).decode(errors="surrogatepass")
    except (binascii.Error, ValueError):
        raise BadRequest("next_page_token is not one that this server gave.") from None
