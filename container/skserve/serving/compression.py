"""gzip, around whatever the body is: taken apart within a limit, put on where it pays.

SageMaker hands on neither Content-Encoding nor Accept-Encoding; this is for callers without it in
between.
"""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache

from skserve.errors import BadRequest, TooLarge, quote
from skserve.formats.media_types import JSON, JSON_LINES, NDJSON, NPY, RECORDIO

GZIP = ("gzip", "x-gzip")

# Below this an answer travels no faster for being smaller.
_WORTHWHILE = 8 << 10

_SHRINKS = {JSON, JSON_LINES, NDJSON, NPY, RECORDIO}  # and text; other formats are packed already

_PIECE = 16 << 10

# How every member of a gzip file begins, its bytes at the least, and how much gzip shrinks at the
# most: 1,032 bytes to one.
_BEGIN, _MEMBER, _MOST = b"\x1f\x8b\x08", 18, 1032


def claimed(body: bytes, limit: int) -> int:
    """Return how many bytes a gzip file says it unpacks to, at most `limit`; it may hold more.

    Its last four bytes say it of its last member alone, so they count where no other member can
    begin, and never beyond what gzip can make of so few bytes.
    """
    most = min(limit, _MOST * len(body))
    if len(body) < _MEMBER or body.find(_BEGIN, 1) >= 0:
        return most
    return min(most, int.from_bytes(body[-4:], "little"))


def unpacked(body: bytes, limit: int) -> bytes:
    """Return what a gzip file holds, all its members. Raises BadRequest, or TooLarge past `limit`.

    No more than `limit` bytes and one are ever made.
    """
    parts: list[bytes] = []
    at = held = members = 0
    while at < len(body):
        if not body[at] and members and not body[at:].strip(b"\0"):
            break  # padding
        members += 1
        if members > 1000 + len(body) // 1000:
            raise BadRequest("The gzip body is made of too many parts.", "Compress it in one go.")
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not member.eof:
            piece = member.unconsumed_tail or body[at : at + _PIECE]
            fresh = not member.unconsumed_tail
            if not piece:
                raise BadRequest("The gzip body ends before it is whole.", "Send it again.")
            try:
                part = member.decompress(piece, limit - held + 1)
            except zlib.error as error:
                raise BadRequest(f"The body is not gzip: {quote(str(error)[:100])}.") from None
            at += len(piece) * fresh
            held += len(part)
            parts.append(part)
            if held > limit:
                raise TooLarge(
                    f"Unpacked, the body has more than {limit:,} bytes, the limit.",
                    "Send fewer rows at a time, or raise SAGEMAKER_MAX_PAYLOAD_IN_MB.",
                )
        at -= len(member.unused_data)
    if not members:
        raise BadRequest("The gzip body is empty.", "Send it again.")
    return b"".join(parts)


def pays(media_type: str, body: bytes) -> bool:
    """Whether an answer is worth packing for a caller who takes gzip."""
    if len(body) < _WORTHWHILE:
        return False
    name = media_type.split(";")[0].strip().lower()
    return name in _SHRINKS or name.startswith("text/")


def packed(body: bytes) -> bytes:
    """Return `body` as a gzip file, at the level that costs least."""
    return gzip.compress(body, compresslevel=1, mtime=0)


@lru_cache(64)
def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header asks for gzip at least as much as for the plain body."""
    qualities: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameters = part.partition(";")
        key, _, value = parameters.partition("=")
        try:
            quality = float(value) if key.strip() == "q" else 1.0
        except ValueError:
            return False
        qualities[name.strip()] = quality if 0 <= quality <= 1 else 0.0
    named = max((qualities[name] for name in GZIP if name in qualities), default=None)
    wanted = qualities.get("*", 0.0) if named is None else named
    return wanted > 0 and wanted >= qualities.get("identity", 0.0)
