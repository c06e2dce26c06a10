"""Media types and Accept, as RFC 9110 writes them."""

from __future__ import annotations

import pytest

from skserve.errors import BadRequest, UnsupportedMediaType
from skserve.formats.charsets import text_of
from skserve.formats.media_types import MediaType, negotiate, preferences

BAD = ["nan", "-1", "1.001", "inf", "-inf"]
OFFERED = ["application/json", "text/csv", "application/x-npy"]


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("text/csv", "text/csv", {}),
        (
            "Text/CSV ; Charset=UTF-8;header=present",
            "text/csv",
            {"charset": "UTF-8", "header": "present"},
        ),
        ('text/csv; charset="utf-8"', "text/csv", {"charset": "utf-8"}),
        (r'a/b; c="x\"y;z"', "a/b", {"c": 'x"y;z'}),
        ("application/json;", "application/json", {}),
        ("application/vnd.api+json", "application/vnd.api+json", {}),
    ],
)
def test_a_media_type_is_read(text, name, parameters):
    assert MediaType.parse(text) == MediaType(name, parameters)


@pytest.mark.parametrize(
    "text", ["", "csv", "text/", "/csv", "text/csv; charset", "text/csv x", "a/b;=c"]
)
def test_what_is_no_media_type_is_refused(text):
    with pytest.raises(ValueError, match="not a media type"):
        MediaType.parse(text)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "text/csv"),
        ("*/*", "text/csv"),
        ("application/json", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("application/json, text/csv", "application/json"),
        ("application/json;q=0.2, text/csv;q=0.8", "text/csv"),
        ("application/*", "application/json"),
        ("text/*, application/json", "text/csv"),
        ("image/png, */*;q=0.1", "text/csv"),
        ("application/json;q=0, */*", "text/csv"),
        ("image/png", None),
        ("text/html, application/xhtml+xml", None),
        ("application/json;q=0", None),
        (", ,", "text/csv"),
        ("text/csv;q=0, */*", "application/json"),
        ("*/*, text/csv;q=0, application/json;q=0", "application/x-npy"),
        ("application/json;q=0, application/*", "application/x-npy"),
        ("application/*;q=0, */*", "text/csv"),
        ("text/*;q=0, */*", "application/json"),
        ("text/*;q=0, text/csv", "text/csv"),
        ("*/*;q=0, text/csv;q=0.1", "text/csv"),
        ("*/*;q=0", None),
    ],
)
def test_the_best_format_is_chosen(accept, chosen):
    assert negotiate(accept, OFFERED, "text/csv") == chosen


@pytest.mark.parametrize(
    "accept",
    ["json", "text/csv;q=x", "text/csv;;q=1 2", *(f"text/csv;q={q}" for q in BAD)],
)
def test_an_accept_that_does_not_parse_is_the_callers_fault(accept):
    with pytest.raises(BadRequest, match="cannot be read"):
        preferences(accept)


@pytest.mark.parametrize(
    ("charset", "body"),
    [
        ("UTF8", "gr\u00fcn".encode()),
        ("utf-8-sig", "\ufeffgr\u00fcn".encode()),
        ("UTF-16", "gr\u00fcn".encode("utf-16")),
        ("utf-16le", "gr\u00fcn".encode("utf-16-le")),
        ("utf-32", "gr\u00fcn".encode("utf-32")),
        ("ISO-8859-1", b"gr\xfcn"),
        ("latin1", b"gr\xfcn"),
        ("iso-8859-15", b"gr\xfcn"),
        ("windows-1252", b"gr\xfcn"),
        ("cp437", b"gr\x81n"),
        ("IBM850", b"gr\x81n"),
        ("macintosh", b"gr\x9fn"),
        ("gb18030", "gr\u00fcn".encode("gb18030")),
    ],
)
def test_what_people_write_in_is_read(charset, body):
    assert text_of(body, MediaType("text/csv", {"charset": charset})) == "gr\u00fcn"


@pytest.mark.parametrize(
    "charset",
    ["punycode", "idna", "unicode_escape", "raw-unicode-escape", "utf-7", "zlib", "rot13", "a\0b"]
    + ["undefined", "aliases", "", "k" * 5000],
)
def test_other_codecs_are_not_for_strangers(charset):
    with pytest.raises(UnsupportedMediaType, match="charset") as raised:
        text_of(b"a", MediaType("text/csv", {"charset": charset}))
    assert len(raised.value.message) < 100
