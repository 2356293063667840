"""A bucket on a table of moments: no clock, no database."""

from __future__ import annotations

import pytest

from esi.rate_limit import (
    CHAR_KILLMAIL,
    KILLMAIL,
    STATUS,
    UNBUCKETED,
    Bucket,
    back_off,
    cost_of,
    reserve_of,
)

NOW = 1_760_000_000.0
WINDOW = 900
SLICE = WINDOW / 128


def bucket(allowance: int = 30) -> Bucket:
    return Bucket(allowance, WINDOW)


@pytest.mark.parametrize(
    ("status", "cost"),
    [(200, 2), (204, 2), (304, 1), (400, 5), (404, 5), (420, 5), (422, 5), (429, 0), (500, 0), (502, 0), (504, 0)],
)
def test_costs_are_those_of_the_documentation(status, cost):
    assert cost_of(status) == cost


def test_the_groups_are_those_of_the_openapi_document():
    assert (KILLMAIL.allowance, KILLMAIL.window_seconds) == (3600, 900)
    assert (CHAR_KILLMAIL.allowance, CHAR_KILLMAIL.window_seconds) == (30, 900)
    assert (STATUS.allowance, STATUS.window_seconds) == (600, 900)
    assert not UNBUCKETED.bucketed


@pytest.mark.parametrize(
    ("allowance", "background", "reserve"), [(3600, True, 900), (3600, False, 0), (30, True, 7), (3, True, 0)]
)
def test_background_work_leaves_a_quarter(allowance, background, reserve):
    assert reserve_of(allowance, background=background) == reserve


@pytest.mark.parametrize(("times", "seconds"), [(-1, 5), (0, 5), (1, 10), (3, 40), (4, 60), (10**9, 60)])
def test_back_off_doubles_up_to_a_bound(times, seconds):
    assert back_off(5, 60, times) == seconds


def test_a_cost_returns_one_window_after_it_was_charged_and_hardly_later():
    # Given something spent at any moment of a slice
    for offset in (0.0, 0.3 * SLICE, 0.999 * SLICE):
        spent = bucket().spend(NOW + offset, 2)
        # Then it is still gone a window later, and back one slice after that
        assert spent.remaining(NOW + offset + WINDOW - 0.001) == 28
        assert spent.remaining(NOW + offset + WINDOW + SLICE) == 30


def test_reopens_at_is_exact():
    # Given an empty bucket, spent in two steps
    spent = bucket().spend(NOW, 20).spend(NOW + 100, 10)
    for cost, moment in ((2, NOW), (20, NOW), (21, NOW + 100), (30, NOW + 100)):
        # When asked when so much is there again
        at = spent.reopens_at(NOW + 101, cost)
        # Then just then it is, just before it is not, and that is a window after it was spent, one slice at most later
        assert spent.allows(at, cost)
        assert not spent.allows(at - 0.01, cost)
        assert moment + WINDOW <= at <= moment + WINDOW + SLICE + 0.01


def test_a_reserve_is_left_to_others():
    # Given a quarter of 40 kept back
    spent = bucket(40).spend(NOW, 28)
    # Then background work gets the last two above it, and no more
    assert spent.allows(NOW, 2, reserve=10)
    spent = spent.spend(NOW, 2)
    assert not spent.allows(NOW, 2, reserve=10)
    assert spent.allows(NOW, 2)
    assert spent.reopens_at(NOW, 2, reserve=10) > NOW + WINDOW


def test_an_allowance_below_the_cost_is_used_one_at_a_time():
    # Given a rule under which no request could ever be paid
    tiny = bucket(1)
    # Then one goes when everything is free, and the next when everything is back
    assert tiny.allows(NOW, 2)
    spent = tiny.spend(NOW, 2)
    assert not spent.allows(NOW, 2)
    assert spent.allows(spent.reopens_at(NOW, 2), 2)


def test_a_refund_gives_back_what_was_spent_and_no_more():
    spent = bucket().spend(NOW, 2).spend(NOW, 2)
    assert spent.refund(NOW, 2).remaining(NOW) == 28
    assert spent.refund(NOW, 100).remaining(NOW) == 30


def test_a_refund_of_what_has_returned_returns_nothing():
    # Given a spend that has returned and is forgotten, and one that has not
    spent = bucket().spend(NOW, 2).spend(NOW + 2 * WINDOW, 2)
    # Then refunding the first leaves the second alone
    assert spent.refund(NOW, 2).remaining(NOW + 2 * WINDOW) == 28


def test_esi_may_lower_the_estimate_and_never_raises_it():
    spent = bucket().spend(NOW, 10)
    assert spent.lower_to(NOW, 5, as_of=NOW).remaining(NOW) == 5
    assert spent.lower_to(NOW, 20, as_of=NOW).remaining(NOW) == 20
    assert spent.lower_to(NOW, 29, as_of=NOW).remaining(NOW) == 20


def test_an_answer_is_compared_with_what_was_true_when_its_request_left():
    # Given ten tokens that return while a request is on its way
    spent = bucket(30).spend(NOW, 10)
    returns = spent.reopens_at(NOW, 30)
    left_at, answered_at = returns - 1, returns + 1
    # And another request that was let go after they had returned
    spent = spent.spend(left_at, 2).spend(returns + 0.5, 2)
    # When ESI, which counted before they returned, says 18
    lowered = spent.lower_to(answered_at, 18, as_of=left_at)
    # Then nobody else has spent anything
    assert lowered.remaining(answered_at) == 26


def test_a_changed_allowance_holds_at_once():
    spent = bucket(30).spend(NOW, 10)
    assert spent.learn(20, WINDOW).remaining(NOW) == 10
    assert spent.learn(5, WINDOW).remaining(NOW) == -5
    assert not spent.learn(5, WINDOW).allows(NOW, 2)


@pytest.mark.parametrize("window", [20, 60, 3600])
def test_a_changed_window_keeps_what_was_spent(window):
    # Given spends of several moments, and a new rule
    learned = bucket(100).spend(NOW, 10).spend(NOW + 15, 10).learn(100, window)
    # Then they return after the new window, not before
    assert learned.remaining(NOW + 15) == 80
    assert learned.remaining(NOW + window - 0.01) == 80
    assert learned.remaining(NOW + 15 + window + 2 * window / 128 + SLICE) == 100


def test_a_closed_bucket_stays_closed_until_then_whatever_it_holds():
    closed = bucket().close(NOW + 30)
    assert not closed.allows(NOW + 29.9, 2)
    assert closed.reopens_at(NOW, 2) == NOW + 30
    assert closed.allows(NOW + 30, 2)
    assert closed.close(NOW + 10).closed_until == NOW + 30


def test_a_bucket_that_was_closed_is_on_trial_until_a_request_succeeds():
    closed = bucket().close(NOW + 30)
    assert closed.on_trial
    assert not closed.open(NOW + 30).on_trial
    # Closed again for longer meanwhile: the success came too late
    assert closed.close(NOW + 60).open(NOW + 30).closed_until == NOW + 60


@pytest.mark.parametrize("window", [1, 20, 60, 900, 3600, 86_400])
def test_the_text_holds_everything_and_stays_small(window):
    # Given a bucket spent from at every moment of three windows
    spent = Bucket(10**6, window)
    for step in range(600):
        spent = spent.spend(NOW + step * window / 200, 20)
    # Then what comes back from the row is the same, in a text that fits a page many times over
    assert Bucket.unpack(spent.allowance, window, spent.pack()) == spent
    assert len(spent.pack()) < 2_500


@pytest.mark.parametrize("text", ["x", "1 2 x", "5 -3", "1.5 2", "{}", "7"])
def test_a_spoilt_text_counts_as_nothing_spent(text):
    assert Bucket.unpack(30, WINDOW, text).remaining(NOW) == 30


def test_a_clock_that_was_set_back_closes_nothing_for_long():
    # Given a bucket emptied, and told to wait, by a clock an hour ahead
    spoilt = bucket().spend(NOW + 7200, 12).spend(NOW + 7200 + 5 * SLICE, 18).close(NOW + 7230)
    # When it is read by the clock as it is now
    settled = spoilt.settled(NOW, longest_closure=3600)
    # Then what was spent is still spent, and returns a window from now
    assert settled.remaining(NOW) == 0
    assert not settled.is_closed(NOW)
    assert settled.remaining(NOW + WINDOW + 2 * SLICE) == 30


def test_settling_changes_nothing_in_the_normal_course():
    spent = bucket().spend(NOW, 5).spend(NOW + 3, 5).close(NOW + 900)
    assert spent.settled(NOW, longest_closure=3600) == spent


def test_a_steady_client_gets_nearly_the_whole_allowance():
    # Given a client that spends whatever it may, at once, for ten windows
    spent, total, now = bucket(3600), 0, NOW
    while now < NOW + 10 * WINDOW:
        while spent.allows(now, 2):
            spent, total = spent.spend(now, 2), total + 2
        now = spent.reopens_at(now, 2)
    # Then it is at the limit: less than one percent is lost to the slices
    assert total >= 0.99 * 10 * 3600
