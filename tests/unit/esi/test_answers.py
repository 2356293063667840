"""Decoding, freshness, and which error a status is: tables, no sockets."""

from __future__ import annotations

import json

import pytest
from requests.structures import CaseInsensitiveDict

from esi.answers import MalformedError, decode, error_of, fresh_for, text
from esi.errors import (
    EsiDowntime,
    EsiErrorLimited,
    EsiForbidden,
    EsiInvalidHash,
    EsiNotFound,
    EsiRateLimited,
    EsiStatus,
    EsiUnauthorized,
)
from esi.rate_headers import MAX_WAIT_SECONDS
from esi.transport import Answer

NOON = "Tue, 18 Aug 2026 12:00:00 GMT"
FIVE_PAST = "Tue, 18 Aug 2026 12:05:00 GMT"


def answer(status: int, body: object = b"", headers: dict[str, str] | None = None) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, CaseInsensitiveDict(headers or {}), content)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 9223372036854775807}', {"a": 2**63 - 1}),
        (b"-9223372036854775808", -(2**63)),
        (b"[1.5, -0.0, 1e3]", [1.5, 0.0, 1000.0]),
        ('"\N{SNOWMAN}"'.encode(), "\N{SNOWMAN}"),
    ],
)
def test_what_is_within_bounds_is_decoded(body, value):
    assert decode(body) == value


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1} trailing', "not valid JSON"),
        (b"\xff\xfe\xfa", "not valid JSON"),
        (b"  <html><body>502</body></html>", "HTML"),
        (b"9223372036854775808", "64 bits"),
        (b"-9223372036854775809", "64 bits"),
        (b"1" * 5000, "64 bits"),
        (b"1e999", "not finite"),
        (b"NaN", "not finite"),
        (b"-Infinity", "not finite"),
        (b"[" * 200_000, "nested"),
        (b'{"a":' * 200_000, "nested"),
    ],
)
def test_what_is_not_is_refused_by_reason(body, reason):
    with pytest.raises(MalformedError, match=reason) as caught:
        decode(body)

    assert caught.value.__context__ is None, "the parser's exception holds the whole document"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"cache-control": "public, max-age=300"}, 300),
        ({"Cache-Control": "max-age=0", "Expires": FIVE_PAST, "Date": NOON}, 0),
        ({"Cache-Control": "public", "Expires": FIVE_PAST, "Date": NOON}, 300),
        ({"Cache-Control": "s-maxage=9", "Expires": FIVE_PAST, "Date": NOON}, 300),
        ({"Expires": NOON, "Date": FIVE_PAST}, 0),
        ({"Cache-Control": "max-age=2592000"}, 3600),
        ({"Cache-Control": "max-age=-5"}, 0),
        ({"Expires": "0", "Date": NOON}, 0),
        ({"Expires": "Tue, 99 Foo 2026", "Date": NOON}, 0),
        ({}, 0),
    ],
)
def test_freshness_is_max_age_then_expires_then_none(headers, seconds):
    assert fresh_for(CaseInsensitiveDict(headers)) == seconds


def test_text_is_bounded_and_storable():
    assert text("a\0b\ud800c\N{SNOWMAN}", "name", most=10) == "a\ufffdb\ufffdc\N{SNOWMAN}"
    for value in ("", "x" * 11, 5, None):
        with pytest.raises(MalformedError, match="name"):
            text(value, "name", most=10)


HTML = b"<html><head><title>503 Service Temporarily Unavailable</title></head></html>"
BUCKET = {"X-Ratelimit-Limit": "3600/15m", "Retry-After": "12"}

#: status, body, headers -> class, permanent, retry_after. Bodies: esi/README.md §2.5, §3, §4, §5.
ERRORS = [
    (401, {"error": "Unauthorized - Invalid token"}, {}, EsiUnauthorized, False, None),
    (403, {"error": "token is not valid for scope"}, {}, EsiForbidden, False, None),
    (403, {"error": "Character does not have required role(s)"}, {}, EsiForbidden, False, None),
    (403, b"<html>Forbidden</html>", {}, EsiForbidden, False, None),
    (404, {"error": "Not found"}, {}, EsiNotFound, False, None),
    (422, {"error": "Invalid killmail_id and/or killmail_hash"}, {}, EsiInvalidHash, False, None),
    (420, {"error": "exceeded"}, {"X-ESI-Error-Limit-Reset": "31"}, EsiErrorLimited, False, 31),
    (420, b"", {"Retry-After": "9"}, EsiErrorLimited, False, 9),
    (420, b"", {}, EsiErrorLimited, False, 60),
    (420, b"", {"X-ESI-Error-Limit-Reset": "0", "Retry-After": "9"}, EsiErrorLimited, False, 0),
    (429, b"", BUCKET, EsiRateLimited, False, 12),
    (429, b"", {}, EsiRateLimited, False, None),
    (500, {"error": "Internal"}, {}, EsiStatus, False, None),
    (500, HTML, {}, EsiDowntime, False, None),
    (520, HTML, {}, EsiDowntime, False, None),
    (500, {"error": "Timeout waiting on backend"}, {}, EsiDowntime, False, None),
    (502, b"", {}, EsiDowntime, False, None),
    (503, HTML, {"Retry-After": "40"}, EsiDowntime, False, 40),
    (503, HTML, {"Retry-After": "86400"}, EsiDowntime, False, MAX_WAIT_SECONDS),
    (503, HTML, {"Retry-After": FIVE_PAST, "Date": NOON}, EsiDowntime, False, 300),
    (503, {"error": "The datasource tranquility is temporarily unavailable"}, {}, EsiDowntime, False, None),
    (504, {"error": "Timeout contacting tranquility", "timeout": 10}, {}, EsiDowntime, False, None),
    (403, {"error": "ESI is currently in maintenance mode. Please try again later."}, {}, EsiDowntime, False, None),
    (400, {"error": "Invalid compatibility date"}, {}, EsiStatus, False, None),
    (302, b"", {"Location": "/"}, EsiStatus, False, None),
    (204, b"", {}, EsiStatus, False, None),
    (418, [1, 2], {}, EsiStatus, False, None),
]


@pytest.mark.parametrize(("status", "body", "headers", "kind", "permanent", "wait"), ERRORS)
def test_each_status_is_one_error(status, body, headers, kind, permanent, wait):
    error = error_of(answer(status, body, headers), "killmail 5")

    assert type(error) is kind
    assert (error.permanent, error.retry_after, error.status) == (permanent, wait, status)
    assert str(error).startswith("killmail 5: ")


@pytest.mark.parametrize(("headers", "bare"), [(BUCKET, False), ({"Retry-After": "3"}, True)])
def test_a_429_without_the_buckets_headers_is_bare(headers, bare):
    error = error_of(answer(429, b"", headers), "killmail 5")

    assert isinstance(error, EsiRateLimited)
    assert error.bare is bare


def test_what_esi_wrote_is_not_repeated():
    for status in (400, 401, 403, 404, 420, 422, 429, 500, 503):
        error = error_of(answer(status, {"error": "for hash 0123abcd"}), "killmail 5")
        assert "0123abcd" not in str(error)
