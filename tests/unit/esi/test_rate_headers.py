"""What ESI's headers are read as, and that no header can do harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esi.rate_headers import MAX_TOKENS, MAX_WAIT_SECONDS, MAX_WINDOW_SECONDS, RateHeaders, parse_rate_headers


@pytest.mark.parametrize(
    ("text", "allowance", "window_seconds"),
    [
        ("3600/15m", 3600, 900),
        ("30/20s", 30, 20),
        ("1/2h", 1, 7200),
        (" 240/1m ", 240, 60),
        ("10/1.5s", 10, 2),
    ],
)
def test_a_limit_is_read_in_all_its_units(text, allowance, window_seconds):
    # When a limit is advertised
    rates = parse_rate_headers({"X-Ratelimit-Limit": text})
    # Then it is tokens and seconds, a fraction of a second rounded to the safe side
    assert (rates.allowance, rates.window_seconds) == (allowance, window_seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3600",
        "0/15m",
        "-5/15m",
        "3600/0m",
        "3600/15d",
        "3600/15m, 5/1s",
        "1e3/15m",
        "99999999999/15m",
        "٣/15m",
        "5/99h",
    ],
)
def test_a_malformed_limit_is_no_limit(text):
    rates = parse_rate_headers({"X-Ratelimit-Limit": text})
    assert rates.allowance is None
    assert rates.window_seconds is None


def test_all_headers_are_read_whatever_their_case():
    rates = parse_rate_headers(
        {
            "x-rateLIMIT-remaining": "17",
            "RETRY-AFTER": "12.5",
            "X-Esi-Error-Limit-Remain": "3",
            "x-esi-error-limit-reset": "41",
        }
    )
    assert rates == RateHeaders(remaining=17, retry_after=12.5, error_remain=3, error_reset=41.0)


@pytest.mark.parametrize(
    "text", ["-1", "nan", "inf", "1e9", "", " ", "Wed, 21 Oct 2026 07:28:00 GMT", "1_000", "²", "9" * 40]
)
def test_garbage_is_as_if_nothing_had_been_sent(text):
    names = ("X-Ratelimit-Remaining", "Retry-After", "X-ESI-Error-Limit-Remain", "X-ESI-Error-Limit-Reset")
    assert parse_rate_headers(dict.fromkeys(names, text)) == RateHeaders()


def test_a_wait_is_bounded():
    assert parse_rate_headers({"Retry-After": "99999999"}).retry_after == MAX_WAIT_SECONDS


NOON, FIVE_PAST = "Tue, 18 Aug 2026 12:00:00 GMT", "Tue, 18 Aug 2026 12:05:00 GMT"


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("17", NOON, 17),
        (" 0 ", NOON, 0),
        (FIVE_PAST, NOON, 300),
        ("Wed, 19 Aug 2026 12:00:00 GMT", NOON, MAX_WAIT_SECONDS),
        (NOON, FIVE_PAST, None),
        (FIVE_PAST, "noon", None),
        ("soon", NOON, None),
    ],
)
def test_a_wait_is_seconds_or_a_date_beside_another(retry_after, date, seconds):
    assert parse_rate_headers({"Retry-After": retry_after, "Date": date}).retry_after == seconds


@pytest.mark.parametrize(
    ("headers", "of_bucket"),
    [({"X-Ratelimit-Remaining": "0"}, True), ({"X-Ratelimit-Limit": "30/15m"}, True), ({"Retry-After": "5"}, False)],
)
def test_who_refused_is_known_by_the_headers(headers, of_bucket):
    assert parse_rate_headers(headers).of_bucket is of_bucket


NAMES = st.sampled_from(
    ["X-Ratelimit-Limit", "X-Ratelimit-Remaining", "Retry-After", "X-ESI-Error-Limit-Remain", "X-ESI-Error-Limit-Reset"]
)


@given(st.dictionaries(NAMES | st.text(max_size=5), st.text(max_size=20) | st.from_regex(r"\d{1,12}/\d{1,12}[smh]")))
def test_no_header_does_harm(headers):
    # When anything at all is sent
    rates = parse_rate_headers(headers)
    # Then what is believed is within bounds
    assert rates.allowance is None or 1 <= rates.allowance <= MAX_TOKENS
    assert rates.window_seconds is None or 1 <= rates.window_seconds <= MAX_WINDOW_SECONDS
    assert rates.remaining is None or rates.remaining >= 0
    assert rates.retry_after is None or 0 <= rates.retry_after <= MAX_WAIT_SECONDS
    assert rates.error_reset is None or 0 <= rates.error_reset <= MAX_WAIT_SECONDS
