"""Odd headers about a limit: one does no harm, several are obeyed, and a wrong limit does not last."""

from __future__ import annotations

import pytest

import database
from esi.limiter import Limiter
from esi.rate_limit import CHAR_KILLMAIL, KILLMAIL
from tests.unit.esi.limiting import RATE, answer, refused, time_passes

ODD = {"X-Ratelimit-Group": "killmail", "X-Ratelimit-Limit": "1/24h", "X-Ratelimit-Remaining": "0"}
RIGHT = {"X-Ratelimit-Group": "killmail", "X-Ratelimit-Limit": "3600/15m", "X-Ratelimit-Remaining": "3000"}
OTHER_GROUP = {"X-Ratelimit-Group": "char-killmail", "X-Ratelimit-Limit": "30/15m", "X-Ratelimit-Remaining": "28"}


@pytest.fixture
def limiter(any_db: object) -> Limiter:
    return Limiter(RATE)


def stored_limit(bucket: str = "killmail:ip") -> tuple[int, int]:
    row = database.execute("SELECT allowance, window_seconds FROM rate_buckets WHERE bucket = ?", (bucket,)).fetchone()
    return row[0], row[1]


def requests(limiter: Limiter) -> int:
    """Requests that may be made now."""
    return limiter.allowance(KILLMAIL, "ip", background=False).requests


def test_another_groups_headers_change_nothing(limiter: Limiter) -> None:
    # Given a hundred requests of killmails
    for _ in range(100):
        answer(limiter, 200)
    # When answers bring the headers of lists
    for _ in range(5):
        answer(limiter, 200, OTHER_GROUP)
    # Then the killmails' limit is what it was, and so is what is left
    assert stored_limit() == (3600, 900)
    assert requests(limiter) == 1800 - 105


def test_another_groups_refusal_closes_no_bucket(limiter: Limiter) -> None:
    # When one killmail is refused with the headers of lists
    permit = limiter.acquire(KILLMAIL, "ip", background=False, subject=7)
    permit.answered(429, {**OTHER_GROUP, "Retry-After": "900"})
    # Then the others go on
    assert requests(limiter) > 1000


@pytest.mark.parametrize("limit", ["1/24h", "30/15m", "3600/24h", "3600/1s"])
def test_one_odd_limit_costs_one_request_that_goes_alone(limiter: Limiter, limit: str) -> None:
    for _ in range(20):
        answer(limiter, 200)
    # When one answer states a limit far from the known one
    answer(limiter, 200, ODD | {"X-Ratelimit-Limit": limit})
    # Then one request finds out, and the others wait for it
    permit = limiter.acquire(KILLMAIL, "ip", background=True)
    assert refused(limiter).until <= permit.slot_at + 11
    permit.answered(200, RIGHT)
    # And everything goes on as before
    assert stored_limit() == (3600, 900)
    assert requests(limiter) > 1400
    answer(limiter, 200, ODD)
    answer(limiter, 200, RIGHT)
    answer(limiter, 200, ODD)
    answer(limiter, 200, RIGHT)
    answer(limiter, 200, ODD)
    assert stored_limit() == (3600, 900), "not in a row"


def test_a_silent_answer_is_none_of_a_row(limiter: Limiter) -> None:
    for headers in (ODD, ODD, {}, ODD, ODD, {}):
        answer(limiter, 200, headers)
    assert stored_limit() == (3600, 900)


@pytest.mark.parametrize(("limit", "stored"), [("600/15m", (600, 900)), ("3600/1h", (3600, 3600)), ("6/1m", (6, 60))])
def test_a_limit_that_answers_in_a_row_state_is_obeyed(limiter: Limiter, limit: str, stored: tuple[int, int]) -> None:
    lowered = {"X-Ratelimit-Group": "killmail", "X-Ratelimit-Limit": limit}
    for _ in range(2):
        answer(limiter, 200, lowered)
        assert stored_limit() == (3600, 900)
    answer(limiter, 200, lowered)
    # Then it is the limit, and what was spent counts
    assert stored_limit() == stored
    assert requests(limiter) == (stored[0] - 6) // 2


@pytest.mark.parametrize(("limit", "stored"), [("2000/15m", (2000, 900)), ("7200/15m", (7200, 900))])
def test_a_little_less_and_any_more_is_obeyed_at_once(limiter: Limiter, limit: str, stored: tuple[int, int]) -> None:
    answer(limiter, 200, {"X-Ratelimit-Limit": limit})
    assert stored_limit() == stored


def _empty_by_a_wrong_limit(limiter: Limiter) -> None:
    for _ in range(20):
        answer(limiter, 200)
    for _ in range(3):
        answer(limiter, 200, ODD)
    assert stored_limit() == (1, 86_400)


def test_a_wrong_limit_is_corrected_by_the_request_a_minute_later(limiter: Limiter) -> None:
    _empty_by_a_wrong_limit(limiter)
    # Given that nothing may be asked now, and something within the minute
    closed = refused(limiter, background=True)
    told = limiter.allowance(KILLMAIL, "ip", background=True)
    assert (told.requests, told.reopens_at) == (0, closed.until)
    # When that has passed, and ESI states its limit again
    time_passes(61)
    assert limiter.allowance(KILLMAIL, "ip", background=True).requests == 1
    for _ in range(3):
        answer(limiter, 200, RIGHT, background=True)
    # Then all of it may be spent
    assert stored_limit() == (3600, 900)
    assert requests(limiter) > 1400


def test_an_empty_bucket_is_tried_once_a_minute_for_as_long_as_its_limit_is_stated(limiter: Limiter) -> None:
    _empty_by_a_wrong_limit(limiter)
    for _ in range(3):
        refused(limiter)
        time_passes(61)
        answer(limiter, 200, ODD)


def test_a_limit_that_esi_enforces_is_not_tried_every_minute(limiter: Limiter) -> None:
    # Given a bucket that a lower limit has emptied, and ESI refuses the request that tries it
    _empty_by_a_wrong_limit(limiter)
    time_passes(61)
    answer(limiter, 429, ODD | {"Retry-After": "30"})
    # Then an hour passes before the next
    time_passes(3500)
    refused(limiter)
    time_passes(200)
    answer(limiter, 200, ODD)


def test_the_bucket_is_not_held_longer_than_its_tokens_take_to_return(limiter: Limiter) -> None:
    # Given a pilot's limit that is lower now, and used up and enforced
    lowered = {"X-Ratelimit-Group": "char-killmail", "X-Ratelimit-Limit": "20/15m"}
    for _ in range(10):
        answer(limiter, 200, lowered, CHAR_KILLMAIL, "7")
    time_passes(61)
    answer(limiter, 429, lowered | {"Retry-After": "30"}, CHAR_KILLMAIL, "7")
    # Then it opens when the first of its tokens returns
    state = next(each for each in limiter.snapshot() if each.name == "char-killmail")
    assert state.closed_until is not None
    assert state.more_at is not None
    assert state.closed_until <= state.more_at + 1
