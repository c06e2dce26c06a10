"""The table of raw requests: what RFC 9112 asks of a server, through one that really runs.

Each row is sent on a connection of its own, and the row's statuses are all that comes back: one
answer to one request, none to what follows a refusal.
"""

from __future__ import annotations

import re
import selectors
import socket
import time

import pytest

from tests.conftest import Server

HOST = b"Host: x\r\n"
ROW = b"5.1,3.5,1.4,0.2"


def get(fields: bytes = HOST, target: bytes = b"/ping", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + fields + b"\r\n"


def host(text: bytes) -> bytes:
    return get(b"Host: " + text + b"\r\n")


def field(line: bytes) -> bytes:
    return get(HOST + line + b"\r\n")


def post(fields: bytes, body: bytes = b"", line: bytes = b"POST /invocations HTTP/1.1") -> bytes:
    return line + b"\r\n" + HOST + b"Content-Type: text/csv\r\n" + fields + b"\r\n\r\n" + body


def length(text: bytes, body: bytes = ROW) -> bytes:
    return post(b"Content-Length: " + text, body)


def coding(text: bytes, body: bytes = b"f\r\n" + ROW + b"\r\n0\r\n\r\n") -> bytes:
    return post(b"Transfer-Encoding: " + text, body)


def chunks(body: bytes) -> bytes:
    return coding(b"chunked", body)


SIZE, END = b"f\r\n" + ROW + b"\r\n", b"0\r\n\r\n"
CALL = length(b"15")
BARE = b"Content-Length: 15\r\nTransfer-Encoding: chunked"
TUNNEL = b"CONNECT x:80 HTTP/1.1\r\n" + HOST + b"\r\n"
ORDINARY = {
    "ping": (get(), 200),
    "ping, twice": (get() * 2, 200, 200),
    "ping by HEAD": (b"HEAD /ping HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "ping by POST": (b"POST /ping HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "ping by POST with a body": (
        b"POST /ping HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
        200,
    ),
    "ping as SageMaker asks": (
        get(b"host: localhost:8080\r\nuser-agent: sagemaker\r\naccept: */*\r\n"),
        200,
    ),
    "ping as a load balancer asks": (
        get(b"Host: 10.0.0.1:8080\r\nConnection: close\r\nUser-Agent: ELB-HealthChecker/2.0\r\n"),
        200,
    ),
    "ping as an old health check asks": (get(b"", version=b"HTTP/1.0"), 200),
    "ping as haproxy asks": (b"OPTIONS /ping HTTP/1.0\r\n\r\n", 200),
    "ping as wget asks": (
        get(b"Host: localhost:8080\r\nAccept-Encoding: identity\r\nConnection: Keep-Alive\r\n"),
        200,
    ),
    "ping with a query": (get(target=b"/ping?a=b&c"), 200),
    "a call": (CALL, 200),
    "three calls at once": (CALL * 3, 200, 200, 200),
    "a call, then a ping": (CALL + get(), 200, 200),
    "a call in chunks, then a ping": (chunks(SIZE + END) + get(), 200, 200),
    "a call that asks to go on": (post(b"Content-Length: 15\r\nExpect: 100-continue", ROW), 200),
    "a ping behind empty lines": (b"\r\n\r\n" + get(), 200),
    "the last one": (get(HOST + b"Connection: close\r\n") + get(), 200),
    "the last one by a list": (get(HOST + b"Connection: x, close\r\n") + get(), 200),
    "an old one": (get(version=b"HTTP/1.0") + get(), 200),
    "an old one that is kept": (
        get(b"Connection: keep-alive\r\n", version=b"HTTP/1.0") + get(),
        200,
        200,
    ),
    "an old call": (post(b"Content-Length: 15", ROW, b"POST /invocations HTTP/1.0"), 200),
    "a later minor version": (get(version=b"HTTP/1.2"), 200),
    "no such path": (get(target=b"/nowhere") + get(), 404, 200),
    "no such method of a path": (get(target=b"/invocations") + get(), 405, 200),
    "no such media type": (
        post(b"Content-Length: 2\r\nContent-Encoding: br", b"{}") + get(),
        415,
        200,
    ),
}
LINES = {
    "a lower-case method": (b"get /ping HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "an unknown method": (b"FROB /ping HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "a method of RTSP": (b"PLAY /ping HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "a known method, not here": (b"PATCH /ping HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "TRACE": (b"TRACE /ping HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "a method that is no token": (b"G(T /ping HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a method too long": (b"G" * 100_000 + b" /ping HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a space before the method": (b" " + get(), 400),
    "no method": (b"/ping HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two spaces behind the method": (b"GET  /ping HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two spaces behind the target": (b"GET /ping  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a space behind the version": (b"GET /ping HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    "a tab behind the method": (b"GET\t/ping HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no target, but its spaces": (b"GET  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a space in the target": (get(target=b"/pi ng"), 400),
    "no version": (b"GET /ping\r\n" + HOST + b"\r\n", 400),
    "HTTP/0.9": (b"GET /ping\r\n\r\n", 400),
    "HTTP/0.9 by name": (get(version=b"HTTP/0.9"), 505),
    "HTTP/2.0": (get(version=b"HTTP/2.0"), 505),
    "HTTP/3.0": (get(version=b"HTTP/3.0"), 505),
    "HTTP/9.9": (get(version=b"HTTP/9.9"), 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "a version in lower case": (get(version=b"http/1.1"), 400),
    "a version of two digits": (get(version=b"HTTP/1.10"), 400),
    "a version without a dot": (get(version=b"HTTP/11"), 400),
    "a version without a minor": (get(version=b"HTTP/1"), 400),
    "a version with a sign": (get(version=b"HTTP/-1.1"), 400),
    "another protocol": (get(version=b"RTSP/1.0"), 400),
    "ICE": (get(version=b"ICE/1.0"), 400),
    "a bare LF behind the first line": (b"GET /ping HTTP/1.1\n" + HOST + b"\r\n", 400),
    "bare LFs": (b"GET /ping HTTP/1.1\nHost: x\n\n", 400),
    "a bare CR behind the first line": (b"GET /ping HTTP/1.1\r" + HOST + b"\r\n", 400),
    "a bare LF before it": (b"\n" + get(), 400),
    "a bare CR before it": (b"\r" + get(), 400),
    "a blank before it": (b"   \r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "no HTTP": (b"{}\r\n\r\n", 400),
    "an answer": (b"HTTP/1.1 200 OK\r\n\r\n", 400),
    "NULs": (b"\0" * 64, 400),
}
TARGETS = {
    "a URL": (get(target=b"http://x/ping"), 200),
    "a URL with a port": (get(target=b"http://x:8080/ping?a"), 200),
    "a URL in upper case": (get(target=b"HTTP://X/ping"), 200),
    "a URL of another host than Host": (get(target=b"http://other/ping"), 200),
    "a URL without a path": (get(target=b"http://x"), 200),
    "a URL without a host": (get(target=b"http:///ping"), 400),
    "a URL with userinfo": (get(target=b"http://a@x/ping"), 400),
    "a URL of another scheme": (get(target=b"ftp://x/ping"), 400),
    "a path without its slash": (get(target=b"ping"), 400),
    "a query alone": (get(target=b"?a"), 400),
    "a fragment": (get(target=b"/ping#a"), 400),
    "a star": (get(target=b"*"), 400),
    "a star with OPTIONS": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "a tunnel": (TUNNEL, 501),
    "a tunnel and what goes through it": (TUNNEL + get(), 501),
    "an authority": (get(target=b"x:80"), 400),
    "bytes beyond ASCII": (get(target="/é".encode()), 400),
    "a NUL": (get(target=b"/\0ping"), 400),
    "a DEL": (get(target=b"/\x7fping"), 400),
    "a control character": (get(target=b"/\x01ping"), 400),
    "two slashes": (get(target=b"//ping"), 200),
    "a slash in too many bytes": (get(target=b"/%c0%afping"), 400),
    "a slash in far too many": (get(target=b"/%E0%80%AFping"), 400),
    "a slash in four bytes": (get(target=b"/%f0%80%80%afping"), 400),
    "an n in too many bytes": (get(target=b"/pi%C1%aeg"), 400),
    "UTF-8": (get(target=b"/%c3%a9"), 404),
    "an escape of what needs none": (get(target=b"/%70ing"), 200),
    "dots": (get(target=b"/a/../ping"), 404),
    "8,000 bytes": (get(target=b"/ping?" + b"a" * 8000), 200),
    "10,000 bytes": (get(target=b"/ping?" + b"a" * 10_000), 414),
    "100,000 bytes": (get(target=b"/ping?" + b"a" * 100_000), 414),
}
HOSTS = {
    "no Host": (get(b""), 400),
    "no Host in HTTP/1.0": (get(b"", version=b"HTTP/1.0"), 200),
    "no Host, with a URL": (get(b"", b"http://x/ping"), 400),
    "an empty Host": (host(b""), 200),
    "two": (get(HOST + b"Host: y\r\n"), 400),
    "the same twice": (get(HOST * 2), 400),
    "two in HTTP/1.0": (get(HOST * 2, version=b"HTTP/1.0"), 400),
    "two in one": (host(b"x, y"), 400),
    "a comma": (host(b"x,y"), 400),
    "a path": (host(b"x/ping"), 400),
    "userinfo": (host(b"a@x"), 400),
    "a query": (host(b"x?a"), 400),
    "a fragment": (host(b"x#a"), 400),
    "a space": (host(b"x y"), 400),
    "a URL": (host(b"http://x"), 400),
    "a port that is none": (host(b"x:http"), 400),
    "two ports": (host(b"x:80:80"), 400),
    "an empty port": (host(b"x:"), 200),
    "bytes beyond ASCII": (host("é".encode()), 400),
    "a backslash": (host(b"x\\y"), 400),
    "an angle": (host(b"<x>"), 400),
    "quotes": (host(b'"x"'), 400),
    "an address": (host(b"127.0.0.1:8080"), 200),
    "an address of IPv6": (host(b"[::1]:8080"), 200),
    "half an address of IPv6": (host(b"[::1"), 400),
    "no address of IPv6": (host(b"[x]"), 400),
    "a name with an underscore": (host(b"my_model.local"), 200),
    "a name with an escape": (host(b"a%20b"), 200),
    "of a call, missing": (CALL.replace(HOST, b""), 400),
}
FIELDS = {
    "an empty value": (field(b"A:"), 200),
    "no space behind the colon": (field(b"A:b"), 200),
    "many blanks around a value": (field(b"A: \t b \t "), 200),
    "text beyond ASCII": (field("A: é".encode()), 200),
    "a tab in a value": (field(b"A: b\tc"), 200),
    "a name of every character": (field(b"!#$%&'*+-.^_`|~09azAZ: b"), 200),
    "a space before the colon": (field(b"A : b"), 400),
    "a tab before the colon": (field(b"A\t: b"), 400),
    "a space in a name": (field(b"A B: c"), 400),
    "a folded line": (field(b"A: b\r\n c"), 400),
    "a folded line by a tab": (field(b"A: b\r\n\tc"), 400),
    "a folded line of an empty value": (field(b"A:\r\n b"), 400),
    "a folded first line": (get(b" A: b\r\n" + HOST), 400),
    "a blank line that is none": (get(b" \r\n" + HOST), 400),
    "no colon": (field(b"A"), 400),
    "no name": (field(b": b"), 400),
    "brackets in a name": (field(b"A[b]: c"), 400),
    "a name beyond ASCII": (field("É: b".encode()), 400),
    "a NUL in a name": (field(b"A\0: b"), 400),
    "a NUL in a value": (field(b"A: b\0c"), 400),
    "a bell in a value": (field(b"A: b\x07c"), 400),
    "a DEL in a value": (field(b"A: b\x7fc"), 400),
    "a vertical tab in a value": (field(b"A: b\x0bc"), 400),
    "a bare CR in a value": (field(b"A: b\rC: d"), 400),
    "a bare LF in a value": (field(b"A: b\nC: d"), 400),
    "a bare LF at the end": (get(HOST)[:-2] + b"\n", 400),
    "two media types": (post(b"Content-Length: 15\r\nContent-Type: text/csv", ROW), 400),
    "100 fields": (get(HOST + b"A: b\r\n" * 99), 200),
    "101 fields": (get(HOST + b"A: b\r\n" * 100), 431),
    "10,000 fields": (get(HOST + b"A: b\r\n" * 10_000), 431),
    "20 KB in a value": (field(b"A: " + b"b" * 20_000), 200),
    "100 KB in a value": (field(b"A: " + b"b" * 100_000), 431),
    "100 KB in a name": (field(b"A" * 100_000 + b": b"), 431),
    "another expectation": (post(b"Content-Length: 15\r\nExpect: more", ROW), 417),
    "an expectation in HTTP/1.0": (get(b"Expect: more\r\n", version=b"HTTP/1.0"), 200),
    "an upgrade to HTTP/2": (
        get(HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n")
        + get(),
        200,
        200,
    ),
    "an upgrade with a body": (
        post(b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 15", ROW) + get(),
        200,
        200,
    ),
    "an upgrade with chunks": (
        post(b"Upgrade: h2c\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked", SIZE + END)
        + get(),
        200,
        200,
    ),
    "an upgrade to WebSocket": (
        get(HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        200,
    ),
}
LENGTHS = {
    "a length": (length(b"15"), 200),
    "a space behind it": (length(b"15 "), 200),
    "leading zeros": (length(b"0015"), 200),
    "a sign": (length(b"+15"), 400),
    "a negative one": (length(b"-15"), 400),
    "none": (length(b""), 400),
    "a word": (length(b"many"), 400),
    "a hexadecimal one": (length(b"0xf"), 400),
    "a fraction": (length(b"15.0"), 400),
    "an exponent": (length(b"1e1"), 400),
    "an underscore": (length(b"1_5"), 400),
    "two words": (length(b"1 5"), 400),
    "a list": (length(b"15, 15"), 400),
    "two": (post(b"Content-Length: 15\r\nContent-Length: 14", ROW), 400),
    "the same twice": (post(b"Content-Length: 15\r\nContent-Length: 15", ROW), 400),
    "more than a number": (length(b"9" * 20), 400),
    "digits of another script": (length("１５".encode()), 400),
    "of a GET": (get(HOST + b"Content-Length: 2\r\n") + b"{}" + get(), 200, 200),
    "over the limit": (length(b"%d" % (1 << 40)), 413),
    "with chunks": (post(BARE, SIZE + END), 400),
    "with chunks, the other way round": (
        post(b"Transfer-Encoding: chunked\r\nContent-Length: 15", SIZE + END),
        400,
    ),
    "with a coding that is none": (post(b"Content-Length: 15\r\nTransfer-Encoding: x", ROW), 400),
}
CODINGS = {
    "chunked": (coding(b"chunked"), 200),
    "in upper case": (coding(b"CHUNKED"), 200),
    "a space behind it": (coding(b"chunked "), 200),
    "x": (coding(b"x"), 400),
    "xchunked": (coding(b"xchunked"), 400),
    "identity": (coding(b"identity"), 400),
    "gzip alone": (coding(b"gzip"), 400),
    "gzip, chunked": (coding(b"gzip, chunked"), 501),
    "x, chunked": (coding(b"x, chunked"), 501),
    "chunked, gzip": (coding(b"chunked, gzip"), 400),
    "chunked, chunked": (coding(b"chunked, chunked"), 400),
    "chunked twice": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", END), 400),
    "in quotes": (coding(b'"chunked"'), 400),
    "with a parameter": (coding(b"chunked;a=b"), 400),
    "with a vertical tab": (coding(b"\x0bchunked"), 400),
    "empty": (coding(b""), 400),
    "a space before the colon": (post(b"Transfer-Encoding : chunked", SIZE + END), 400),
    "in HTTP/1.0": (
        post(b"Transfer-Encoding: chunked", SIZE + END, b"POST /invocations HTTP/1.0"),
        400,
    ),
    "by a folded line": (post(b"Transfer-Encoding:\r\n chunked", SIZE + END), 400),
    "of a GET": (get(HOST + b"Transfer-Encoding: chunked\r\n") + END + get(), 200, 200),
}
CHUNKS = {
    "an extension": (chunks(b"f;a=b\r\n" + ROW + b"\r\n" + END), 200),
    "an extension in quotes": (chunks(b'f;a="b;c"\r\n' + ROW + b"\r\n" + END), 200),
    "a size in upper case": (chunks(b"F\r\n" + ROW + b"\r\n" + END), 200),
    "a size with leading zeros": (chunks(b"000f\r\n" + ROW + b"\r\n000\r\n\r\n"), 200),
    "a trailer": (chunks(SIZE + b"0\r\nA: b\r\n\r\n") + get(), 200, 200),
    "many": (chunks(b"".join(b"1\r\n%c\r\n" % byte for byte in ROW) + END) + get(), 200, 200),
    "a size that is none": (chunks(b"zz\r\n" + ROW), 400),
    "a size by 0x": (chunks(b"0xf\r\n" + ROW + b"\r\n" + END), 400),
    "a negative size": (chunks(b"-f\r\n" + ROW + b"\r\n" + END), 400),
    "a sign": (chunks(b"+f\r\n" + ROW + b"\r\n" + END), 400),
    "an underscore": (chunks(b"1_0\r\n" + ROW + b"\r\n" + END), 400),
    "no size": (chunks(b"\r\n" + ROW + b"\r\n" + END), 400),
    "a space before a size": (chunks(b" f\r\n" + ROW + b"\r\n" + END), 400),
    "a space behind a size": (chunks(b"f \r\n" + ROW + b"\r\n" + END), 400),
    "a bare LF behind a size": (chunks(b"f\n" + ROW + b"\r\n" + END), 400),
    "a bare CR behind a size": (chunks(b"f\r" + ROW + b"\r\n" + END), 400),
    "a bare LF behind a chunk": (chunks(b"f\r\n" + ROW + b"\n" + END), 400),
    "no line break behind a chunk": (chunks(b"f\r\n" + ROW + END), 400),
    "more than the size": (chunks(b"e\r\n" + ROW + b"\r\n" + END), 400),
    "less than the size": (chunks(b"10\r\n" + ROW + b"\r\n" + END), 400),
    "an empty extension": (chunks(b"f;\r\n" + ROW + b"\r\n" + END), 400),
    "a NUL in an extension": (chunks(b"f;a\0\r\n" + ROW + b"\r\n" + END), 400),
    "a bare LF in an extension": (chunks(b"f;a\n" + ROW + b"\r\n" + END), 400),
    "a bare CR in an extension": (chunks(b"f;a\rb\r\n" + ROW + b"\r\n" + END), 400),
    "an extension without end": (chunks(b"f;" + b"a" * 5000), 400),
    "a size beyond any body": (chunks(b"FFFFFFFFFF\r\n" + ROW), 413),
    "the largest size of 64 bits": (chunks(b"FFFFFFFFFFFFFFFF\r\n" + ROW), 400),
    "a size beyond any number": (chunks(b"1" + b"0" * 30 + b"\r\n" + ROW), 400),
    "a trailer with a space before its colon": (chunks(SIZE + b"0\r\nA : b\r\n\r\n"), 400),
    "a trailer that says a length": (chunks(SIZE + b"0\r\nContent-Length: 3\r\n\r\n"), 400),
    "a trailer that says a coding": (chunks(SIZE + b"0\r\nTransfer-Encoding: x\r\n\r\n"), 400),
    "a trailer without end": (chunks(SIZE + b"0\r\n" + b"A: b\r\n" * 3000), 400),
    "a bare LF at the end": (chunks(SIZE + b"0\r\n\n"), 400),
}
# What is answered before a body is read gets that answer alone, whatever comes of the body.
EARLY = {
    f"{status} and {name}": (line + b"\r\n" + HOST + rest, status)
    for status, line in (
        (200, b"POST /ping HTTP/1.1"),
        (404, b"POST /nowhere HTTP/1.1"),
        (405, b"DELETE /ping HTTP/1.1"),
        (415, b"POST /invocations HTTP/1.1\r\nContent-Encoding: br"),
    )
    for name, rest in (
        ("chunks that are none", b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n" + get()),
        ("a chunk that never ends", b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc"),
        ("a body that is cut off", b"Content-Length: 100000\r\n\r\nabc"),
        ("a body that is asked for", b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"),
    )
}
TABLE = {
    (part, name): row
    for part, rows in {
        "ordinary": ORDINARY,
        "line": LINES,
        "target": TARGETS,
        "host": HOSTS,
        "field": FIELDS,
        "length": LENGTHS,
        "coding": CODINGS,
        "chunk": CHUNKS,
        "early": EARLY,
    }.items()
    for name, row in rows.items()
}

# Seconds in which all is answered that is ever answered, less than any time limit of the server
# (`STALL`), and those in which nothing more may come.
PATIENCE, SETTLED = 15, 0.5

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


@pytest.fixture(scope="module")
def statuses(servers) -> dict[tuple[str, str], tuple[int, ...]]:
    """Send all rows at once; return the statuses of what came back for each."""
    return answers(servers("iris"))


def answers(server: Server) -> dict[tuple[str, str], tuple[int, ...]]:
    came = dict.fromkeys(TABLE, b"")
    with selectors.DefaultSelector() as clients:
        for name, (raw, *_) in TABLE.items():
            client = connect(server)
            client.settimeout(PATIENCE)
            client.sendall(raw)
            clients.register(client, selectors.EVENT_READ, name)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            events = clients.select(SETTLED)
            if not events and all(
                len(STATUS.findall(came[name])) >= len(row) - 1 for name, row in TABLE.items()
            ):
                break
            for key, _ in events:
                try:
                    said = key.fileobj.recv(1 << 16)
                except OSError:  # reset, with more behind what was refused
                    said = b""
                came[key.data] += said
                if not said:
                    clients.unregister(key.fileobj)
                    key.fileobj.close()
        for key in clients.get_map().values():
            key.fileobj.close()
    return {name: tuple(map(int, STATUS.findall(said))) for name, said in came.items()}


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))


@pytest.mark.parametrize("name", TABLE, ids=": ".join)
def test_a_raw_request_gets_the_statuses_of_the_table(statuses, name):
    _, *expected = TABLE[name]

    assert statuses[name] == tuple(expected)
