"""Text of a body by its charset, and text of an answer as UTF-8."""

from __future__ import annotations

import codecs
import encodings
from encodings.aliases import aliases
from functools import lru_cache

from skserve.errors import BadRequest, ModelFault, UnsupportedMediaType
from skserve.formats.media_types import MediaType

# What people write tables in. Other codecs of Python are not for strangers: punycode takes time
# quadratic in the body, unicode_escape and utf-7 make surrogates, zip makes much of little.
_CHARSETS = {
    *("ascii", "utf_8", "utf_8_sig", "latin_1", "mac_roman", "koi8_r", "koi8_u", "kz1048"),
    *("utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"),
    *(f"iso8859_{part}" for part in range(1, 17) if part != 12),
    *(f"cp{page}" for page in (437, 850, 852, 855, 858, 866, 874, *range(1250, 1259))),
    *("shift_jis", "cp932", "euc_jp", "euc_kr", "cp949", "gb2312", "gbk", "gb18030"),
    *("big5", "big5hkscs", "cp950", "tis_620"),
}


@lru_cache(64)
def codec_of(charset: str) -> codecs.CodecInfo:
    """Find a charset. Raises UnsupportedMediaType for one that is not in use."""
    # Not by codecs.lookup alone: it imports a module, and remembers for good each unknown name.
    name = encodings.normalize_encoding(charset).lower()
    if aliases.get(name, name) not in _CHARSETS:
        raise UnsupportedMediaType(f"charset {charset[:40]!r} is not read here.", "Send UTF-8.")
    return codecs.lookup(name)


def text_of(body: bytes, kind: MediaType) -> str:
    """Decode a body by its charset, UTF-8 where it names none; a byte order mark is dropped."""
    codec = codec_of(kind.parameters.get("charset", "utf-8"))
    try:
        text = codec.decode(body)[0]
    except UnicodeError as error:
        where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise BadRequest(
            f"The body is not {codec.name} text{where}.", "Send UTF-8, or name the charset."
        ) from None
    return text.removeprefix("\ufeff")


def utf8_of(body: bytes, kind: MediaType) -> bytes:
    """Return a body as UTF-8, without a byte order mark."""
    plain = body.isascii() and codec_of(kind.parameters.get("charset", "utf-8")).name == "utf-8"
    return body if plain else text_of(body, kind).encode()


def encoded(text: str) -> bytes:
    """Write text as UTF-8. Raises ModelFault for half of a surrogate pair, which no text holds."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ModelFault(f"The answer is a str that is no text: {error.reason}.") from error
