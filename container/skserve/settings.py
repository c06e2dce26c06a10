"""The kinds of values that a setting can have, and the field of a dataclass that is one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Kind(NamedTuple):
    """How the text of a setting is read, and in words what is expected of it.

    `parse` raises ValueError or KeyError for a text that is not of this kind.
    """

    parse: Callable[[str], Any]
    expected: str


def setting(name: str, kind: Kind, default: object = None, shown: str | None = None) -> Any:
    """Declare a field that the environment variable `name` sets.

    `shown` is what the README says of its default, where that is more than the value.
    """
    if shown is None:
        shown = _shown(default)
    return field(default=default, metadata={"name": name, "kind": kind, "shown": shown})


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default in (None, ()) else str(default)


def whole(low: int, high: int) -> Kind:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return Kind(parse, f"a whole number from {low:,} to {high:,}")


def choice(*words: str, **meanings: Any) -> Kind:
    known = {word.lower(): word for word in words} | meanings
    return Kind(lambda text: known[text.lower()], "one of " + ", ".join(known))


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise ValueError
    return Path(text)


def _media_type(text: str) -> str:
    return text.split(";")[0].strip().lower()


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise ValueError
    return words


def _digests(text: str) -> tuple[str, ...]:
    digests = tuple(word.lower() for word in _words(text))
    if not all(re.fullmatch("[0-9a-f]{64}", one) for one in digests):
        raise ValueError
    return digests


def _address(text: str) -> str:
    address = urlsplit(text)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError
    return text


_SERVED = ("ping", "invocations", "execution-parameters", "models", "openapi.json")


def _other_path(text: str) -> str:
    # The characters are those that SageMaker takes for the path of a container's metrics.
    if not re.fullmatch(r"/(?!.*\.\.)[a-zA-Z0-9_.\-][a-zA-Z0-9/_.\-]{0,254}", text):
        raise ValueError
    if text.split("/")[1] in _SERVED:
        raise ValueError
    return text


TEXT = Kind(str, "a text")
OTHER_PATH = Kind(_other_path, "a path such as /metrics that is not one of this server's own")
WORDS = Kind(_words, "names separated by commas")
DIGESTS = Kind(_digests, "SHA-256 digests of 64 hexadecimal digits, separated by commas")
TRUTH = choice(**{"true": True, "1": True, "false": False, "0": False})
SWITCH = choice(on=True, off=False)
ADDRESS = Kind(_address, "an address that begins with http:// or https://")
SECONDS = Kind(_seconds, "a number of seconds above 0")
FOLDER = Kind(_folder, "a folder that is there")
BASE_FOLDER = Kind(lambda text: Path(text) / "model", "a folder")
MEDIA_TYPE = Kind(_media_type, "a media type")
