"""What the end of a request changes in its bucket, on a table of moments."""

from __future__ import annotations

import pytest

from esi.charges import Spent, after_answer, after_silence, never_sent
from esi.rate_headers import RateHeaders
from esi.rate_limit import Bucket, RateGroup

NOW = 1_760_000_000.0
WINDOW = 900
GROUP = RateGroup("killmail", 100, WINDOW)
#: Long enough that any slice has ended, and short of the window.
LATE = 20.0


def let_go(allowance: int = 100, *, trial: bool = False) -> Spent:
    """One request for two tokens, to be charged within half a second."""
    bucket = Bucket(allowance, WINDOW).spend(NOW + 0.5, 2)
    return Spent(bucket.close(NOW + 10) if trial else bucket, 2, NOW, NOW + 0.5, trial)


def told(remaining: int, retry_after: float | None = None) -> RateHeaders:
    return RateHeaders(allowance=100, window_seconds=WINDOW, remaining=remaining, retry_after=retry_after)


@pytest.mark.parametrize("rates", [RateHeaders(), told(98), told(99), told(100), told(93)])
def test_a_success_in_the_normal_course_changes_nothing(rates):
    assert after_answer(let_go(), 200, rates, NOW + 0.2, GROUP) is None


@pytest.mark.parametrize(("remaining", "left"), [(91, 91), (24, 24), (0, 0)])
def test_less_left_than_we_thought_is_believed(remaining, left):
    spent = let_go()
    change = after_answer(spent, 200, told(remaining), NOW + 0.2, GROUP)
    assert change is not None
    assert change(spent.bucket, NOW + 0.2).remaining(NOW + 0.2) == left


def test_under_a_quarter_every_token_counts():
    # Given a bucket of 100 with 24 left
    bucket = Bucket(100, WINDOW).spend(NOW, 74).spend(NOW + 0.5, 2)
    spent = Spent(bucket, 2, NOW, NOW + 0.5)
    # Then a difference of one is news, and none is not
    assert after_answer(spent, 200, told(24), NOW + 0.2, GROUP) is None
    change = after_answer(spent, 200, told(23), NOW + 0.2, GROUP)
    assert change is not None
    assert change(bucket, NOW + 0.2).remaining(NOW + 0.2) == 23


@pytest.mark.parametrize("end", ["answered", "not answered"])
def test_what_may_have_been_charged_late_returns_late(end):
    # Given a request that ended long after it was to be charged
    spent, ended = let_go(), NOW + LATE
    change = (
        after_answer(spent, 200, RateHeaders(), ended, GROUP)
        if end == "answered"
        else after_silence(spent, ended, spent.cost)
    )
    assert change is not None
    # Then its tokens return one window after its end
    changed = change(spent.bucket, ended)
    assert changed.remaining(ended) == 98
    assert changed.remaining(ended + WINDOW - 0.01) == 98


def test_silence_in_time_changes_nothing():
    assert after_silence(let_go(), NOW + 0.4, 2) is None


def test_what_returned_meanwhile_is_nobody_elses():
    # Given eighty tokens that return while a request is on its way
    bucket = Bucket(100, WINDOW).spend(NOW - WINDOW, 80)
    decided = bucket.reopens_at(NOW - WINDOW, 100) - 0.1
    bucket = bucket.spend(decided + 0.5, 2)
    spent = Spent(bucket, 2, decided, decided + 0.5)
    # When ESI, which counted before they returned, says 19
    change = after_answer(spent, 304, told(19), decided + 0.4, GROUP)
    # Then the estimate stands
    assert change is not None
    assert change(bucket, decided + 0.4).remaining(decided + 0.4) == 99


def test_an_answer_too_old_to_be_compared_is_not():
    spent = let_go()
    change = after_answer(spent, 200, told(10), NOW + spent.bucket.grace_seconds + 1, GROUP)
    assert change is not None
    assert change(spent.bucket, NOW + spent.bucket.grace_seconds + 1).remaining(NOW + 40) == 98


def test_what_never_left_is_given_back():
    spent = let_go()
    assert never_sent(spent)(spent.bucket, NOW).remaining(NOW) == 100


def test_a_refusal_closes_and_believes_no_remaining():
    spent = let_go()
    change = after_answer(spent, 429, told(0, retry_after=30), NOW + 0.2, GROUP)
    assert change is not None
    changed = change(spent.bucket, NOW + 0.2)
    assert NOW + 30 < changed.closed_until < NOW + 32
    assert changed.remaining(NOW + 0.2) == 100


@pytest.mark.parametrize(("status", "opens"), [(200, True), (304, True), (404, True), (429, False), (503, False)])
def test_a_trial_opens_the_bucket_with_an_answer_of_esis_own(status, opens):
    spent = let_go(trial=True)
    change = after_answer(spent, status, told(50), NOW + 0.2, GROUP)
    assert change is not None
    assert change(spent.bucket, NOW + 0.2).on_trial is not opens
