"""The head of a request: what llhttp has found in it, judged by what RFC 9112 says beyond that."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

# Bytes in which a head must end, and its fields; RFC 9112 asks for a target of 8,000 at least.
HEAD_LIMIT, FIELDS_LIMIT, TARGET_LIMIT = 64 << 10, 100, 8190

# A method is a token; no known one is half as long.
_METHOD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}"
_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r\n" % _METHOD)
_LINE_SO_FAR = re.compile(rb"%b(?: [\x21-\x7e]*(?: [HTP/.0-9]{0,8}\r?)?)?" % _METHOD)
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?@]+)(/[^?]*)?(?:\?(.*))?")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]*)?")

# UTF-8 in more bytes than it takes: another spelling of what a filter may look for, such as "/".
_OVERLONG = re.compile(
    r"(?i)%c[01]%[89ab][0-9a-f]|%e0%[89][0-9a-f]%[89ab][0-9a-f]|%f0%8[0-9a-f]%[89ab][0-9a-f]"
)

# Fields that say one thing: two of them may be understood in two ways.
_SINGLE = ("Host", "Content-Type")


@dataclass(frozen=True)
class Refusal:
    """What is answered to what is no request, or none that is read here; the connection ends."""

    status: int
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Line:
    """The first line of a request, and its target taken apart."""

    method: str
    target: str
    path: str
    query: str
    minor: int  # of the version HTTP/1.x


@dataclass(slots=True)
class Request:
    """One request. Names of fields are in lower case; repeated ones are joined by commas."""

    line: Line
    headers: dict[str, str]
    length: int | None  # bytes in the body; None where they are in chunks
    keep_alive: bool
    expects: bool  # waits for "100 Continue" before it sends the body
    body: bytes = b""  # where all of it is there


@dataclass(slots=True)
class Fields:
    """What llhttp has found in a head so far."""

    headers: dict[str, str] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    count: int = 0
    ended: bool = False
    keep_alive: bool = False

    def add(self, name: bytes, value: bytes) -> None:
        self.count += 1
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").rstrip(" \t")
        if key in self.headers:
            self.repeated.add(key)
            text = f"{self.headers[key]},{text}"
        self.headers[key] = text


def malformed(reason: str) -> Refusal:
    """Return the answer to a malformed head."""
    return Refusal(400, "bad_request", f"The head of the request is malformed: {reason}.")


LONG_HEAD = Refusal(
    431,
    "head_too_large",
    f"The head of the request has more than {HEAD_LIMIT:,} bytes or {FIELDS_LIMIT} fields.",
    "Send fewer or shorter headers.",
)
LONG_TARGET = Refusal(
    414, "target_too_long", f"The target has more than {TARGET_LIMIT:,} bytes.", "Send less in it."
)
TUNNEL = Refusal(501, "not_implemented", "CONNECT is not implemented here.")


def request_of(head: bytes, fields: Fields) -> Request | Refusal:
    """Make the request of a head that llhttp has taken, if it is one by RFC 9112 as well."""
    line = line_of(head[: head.find(b"\n") + 1])
    if isinstance(line, Refusal):
        return line
    if fields.count > FIELDS_LIMIT:
        return LONG_HEAD
    for name in _SINGLE if fields.repeated else ():
        if name.lower() in fields.repeated:
            return malformed(f"it has more than one {name}")
    headers = fields.headers
    host = headers.get("host")
    if host is None:
        if line.minor:
            return malformed("it has no Host")
    elif not _is_host(host):
        return malformed("what its Host says is no name of a host")
    coding = headers.get("transfer-encoding")
    if coding is not None and not line.minor:
        return malformed("HTTP/1.0 has no Transfer-Encoding")
    if coding is not None and coding.lower() != "chunked":
        return Refusal(
            501,
            "not_implemented",
            f"Transfer-Encoding {coding[:80]} is not read here.",
            "Send chunked.",
        )
    expects = headers.get("expect", "").lower() if line.minor else ""
    if expects not in ("", "100-continue"):
        return Refusal(417, "expectation_failed", f"Expect {expects[:80]} is not met here.")
    length = int(headers.get("content-length", 0)) if coding is None else None
    return Request(line, headers, length, fields.keep_alive, bool(expects))


def refusal_of(start: bytes, reason: str) -> Refusal | None:
    """Say what is wrong with a head that llhttp refuses for a `reason`, by the `start` of it.

    None where more of the first line would tell.
    """
    if b"\n" not in start and _LINE_SO_FAR.fullmatch(start) and len(start) < HEAD_LIMIT:
        return None
    line = line_of(start[: start.find(b"\n") + 1])
    if isinstance(line, Refusal):
        return line
    if "method" in reason.lower():
        return Refusal(501, "not_implemented", f"{line.method} is not implemented here.")
    return malformed(reason)


@lru_cache(256)  # callers send few different ones, and each of them often
def line_of(line: bytes) -> Line | Refusal:
    """Take the first line of a request apart."""
    found = _LINE.fullmatch(line)
    if found is None:
        return malformed("its first line is not METHOD TARGET HTTP/1.1")
    method, target = found[1].decode(), found[2].decode()
    if found[3] != b"1":
        version = f"{found[3].decode()}.{found[4].decode()}"
        return Refusal(505, "version_not_supported", f"HTTP/{version} is not spoken here.")
    if len(target) > TARGET_LIMIT:
        return LONG_TARGET
    if "#" in target or _OVERLONG.search(target):
        return malformed("its target is no URL")
    if target == "*" and method == "OPTIONS":
        path, query = "/", ""
    elif target.startswith("/"):
        path, _, query = target.partition("?")
    elif (absolute := _ABSOLUTE.fullmatch(target)) and _is_host(absolute[1]):
        path, query = absolute[2] or "/", absolute[3] or ""
    else:
        return malformed("its target is neither a path nor a URL")
    return Line(method, target, path, query, min(1, int(found[4])))


@lru_cache(256)
def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None
