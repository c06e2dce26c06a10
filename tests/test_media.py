"""Media types and Accept, as RFC 9110 writes them."""

from __future__ import annotations

import pytest

from skserve.errors import BadRequest
from skserve.media import MediaType, negotiate, preferences

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
    ],
)
def test_the_best_format_is_chosen(accept, chosen):
    assert negotiate(accept, OFFERED, "text/csv") == chosen


@pytest.mark.parametrize("accept", ["json", "text/csv;q=x", "text/csv;;q=1 2"])
def test_an_accept_that_does_not_parse_is_the_callers_fault(accept):
    with pytest.raises(BadRequest, match="cannot be read"):
        preferences(accept)
