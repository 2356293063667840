"""Closed roads: the error limit, downtime, and refusals without a bucket. On SQLite and PostgreSQL."""

from __future__ import annotations

import logging
import time

import pytest

from esi import rate_store
from esi.limiter import Allowance, Limiter
from esi.rate_limit import CHAR_KILLMAIL, ERRORS, KILLMAIL, STATUS, UNBUCKETED
from esi.roads import DOWN, DOWNTIME, DOWNTIME_FAILURES, OUR_ERRORS, SILENCE_SECONDS
from tests.unit.esi.limiting import RATE, a_window_later, answer, counted_statements, refused, time_passes

pytestmark = pytest.mark.usefixtures("any_db")

ALL = (KILLMAIL, CHAR_KILLMAIL, STATUS, UNBUCKETED)


@pytest.fixture
def limiter():
    return Limiter(RATE)


@pytest.fixture
def other():
    """Another process, as far as memory goes."""
    return Limiter(RATE)


def go_down(limiter: Limiter) -> None:
    for status in (502, 503, 504, 503, 502):
        answer(limiter, status)


@pytest.mark.parametrize(
    ("headers", "seconds"), [({"X-ESI-Error-Limit-Reset": "23"}, 23), ({}, 60), ({"X-ESI-Error-Limit-Reset": "x"}, 60)]
)
def test_420_closes_every_road_until_the_reset(limiter, other, headers, seconds):
    answer(limiter, 420, headers, UNBUCKETED)
    for group in ALL:
        assert time.time() + seconds - 1 <= refused(other, group).until <= time.time() + seconds + 2
        assert other.allowance(group, "ip", background=False).requests == 0
    time_passes(seconds + 2)
    for group in ALL:
        answer(other, 200, group=group)


@pytest.mark.parametrize(
    ("remain", "closed"), [("100", False), ("21", False), ("20", True), ("0", True), ("-1", False)]
)
def test_few_errors_left_close_what_has_no_bucket(limiter, other, remain, closed):
    answer(limiter, 404, {"X-ESI-Error-Limit-Remain": remain, "X-ESI-Error-Limit-Reset": "40"}, UNBUCKETED)
    if closed:
        assert time.time() + 39 <= refused(other, UNBUCKETED).until <= time.time() + 42
    else:
        answer(other, 200, group=UNBUCKETED)
    answer(other, 200, group=KILLMAIL)


@pytest.mark.parametrize(
    ("group", "status", "counted"),
    [
        (KILLMAIL, 404, True),
        (KILLMAIL, 422, True),
        (CHAR_KILLMAIL, 403, True),
        (KILLMAIL, 500, False),
        (UNBUCKETED, 500, True),
        (UNBUCKETED, 404, True),
        (KILLMAIL, 200, False),
        (KILLMAIL, 304, False),
    ],
)
def test_errors_are_counted_whether_esi_tells_or_not(limiter, group, status, counted):
    answer(limiter, status, group=group)
    errors = [state.remaining for state in limiter.snapshot() if state.name == "errors"]
    assert errors == ([ERRORS.allowance - 1] if counted else [])


def test_many_errors_close_every_road_before_esi_does(limiter, other):
    """Given an owner for each, so that no bucket of tokens is empty before."""
    for number in range(ERRORS.allowance):
        answer(limiter, 403, group=CHAR_KILLMAIL, owner=str(number))
    for group in ALL:
        closed = refused(other, group)
        assert closed.reason == OUR_ERRORS
        assert time.time() + 45 <= closed.until <= time.time() + 62
        assert other.allowance(group, "ip", background=False).requests == 0
    a_window_later(62)
    for group in ALL:
        answer(other, 200, group=group)


def test_names_that_nobody_knows_keep_no_killmail_back(limiter, other):
    """Given half of the errors that are borne, all of them names', Then names wait, and killmails and lists do not."""
    for _ in range(ERRORS.allowance // 2):
        answer(limiter, 404, group=UNBUCKETED)
    closed = refused(other, UNBUCKETED)
    assert closed.reason == OUR_ERRORS
    assert time.time() + 45 <= closed.until <= time.time() + 62
    for group in (KILLMAIL, CHAR_KILLMAIL, STATUS):
        answer(other, 200, group=group)
    a_window_later(62)
    answer(other, 200, group=UNBUCKETED)


def test_two_processes_lose_no_error(limiter, other):
    for each in (limiter, other, limiter, other):
        answer(each, 404)
    assert [state.remaining for state in limiter.snapshot() if state.name == "errors"] == [ERRORS.allowance - 4]


def test_a_wait_told_as_a_date_is_waited_for(limiter, other):
    answered = "Thu, 26 Nov 2026 11:00:00 GMT"
    answer(limiter, 429, {"Date": answered, "Retry-After": "Thu, 26 Nov 2026 11:10:00 GMT"})
    assert time.time() + 599 <= refused(other, KILLMAIL).until <= time.time() + 602


def test_a_refusal_of_the_game_server_closes_its_group(limiter, other):
    # When a 429 comes without the bucket's headers
    answer(limiter, 429, {"Retry-After": "33"})
    # Then its group waits, for whomever, and the others go on
    assert time.time() + 32 <= refused(other, KILLMAIL, "somebody else").until <= time.time() + 35
    answer(other, 200, group=CHAR_KILLMAIL)


def test_refusals_without_a_time_back_off_and_a_success_ends_that(limiter):
    # Given refusals that do not say for how long
    waits = []
    for _ in range(6):
        answer(limiter, 429)
        waits.append(round(refused(limiter).until - time.time()))
        time_passes(waits[-1] + 1)
    # Then each wait is longer, up to a minute
    assert waits == [6, 11, 21, 41, 61, 61]
    # And after a success the next one is short again
    answer(limiter, 200)
    answer(limiter, 429)
    assert round(refused(limiter).until - time.time()) == 6


def test_refusals_on_their_way_count_once(limiter):
    # Given eight requests in flight when the first is refused
    permits = [limiter.acquire(KILLMAIL, "ip", background=False) for _ in range(8)]
    for permit in permits:
        permit.answered(429, {})
    assert refused(limiter).until <= time.time() + 7


def test_four_failures_are_no_downtime_and_a_success_forgets_them(limiter):
    for _ in range(3):
        for status in (502, 503, 504, 503):
            answer(limiter, status)
        answer(limiter, 200)


def test_five_failures_in_a_row_close_every_road(limiter, other):
    # When they are spread over processes and groups
    for each, group in (
        (limiter, KILLMAIL),
        (other, STATUS),
        (limiter, UNBUCKETED),
        (other, KILLMAIL),
        (limiter, KILLMAIL),
    ):
        answer(each, 503, group=group)
    # Then everybody waits
    for group in ALL:
        closed = refused(other, group)
        assert closed.reason == "ESI is down"
        assert time.time() + 10 <= closed.until <= time.time() + 16


def test_what_failed_before_tells_nothing_of_esi_when_others_succeeded_since(limiter):
    # Given things that always fail, among others that succeed
    for _ in range(4):
        permits = [limiter.acquire(KILLMAIL, "ip", background=True, failed_before=True) for _ in range(4)]
        for permit in permits:
            permit.answered(504, {})
    # Then the road is open
    assert not limiter.is_down()
    # But where something fails for the first time, they count like it
    answer(limiter, 504)
    for _ in range(2):
        limiter.acquire(KILLMAIL, "ip", background=True, failed_before=True).answered(504, {})
    assert limiter.is_down()


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_other_failures_are_no_downtime(limiter, status):
    for _ in range(6):
        answer(limiter, status, {"X-Ratelimit-Remaining": "3000"} if status != 429 else {})
        time_passes(100)
    answer(limiter, 200)


def test_when_the_time_has_passed_one_request_probes(limiter, other):
    # Given downtime whose time has passed
    go_down(limiter)
    time_passes(16)
    assert other.allowance(KILLMAIL, "ip", background=True) == Allowance(1, None, None, probe=True)
    # When one request is on its way
    probe = other.acquire(KILLMAIL, "ip", background=False)
    # Then all others wait
    refused(limiter)
    refused(other, STATUS)
    # And go on once it was answered, be it with an error of its own
    probe.answered(404, {})
    answer(limiter, 200)
    assert limiter.allowance(STATUS, "ip", background=False).requests > 1


def test_a_probe_needs_tokens_like_any_request(limiter):
    """Told otherwise, the dispatcher would send what is refused, round and round."""
    # Given downtime whose time has passed, and all that background work may spend is spent
    answer(limiter, 200, {"X-Ratelimit-Remaining": str(KILLMAIL.allowance // 4)})
    go_down(limiter)
    time_passes(16)
    # Then who asks what may go is told the same as who wants to go
    told = limiter.allowance(KILLMAIL, "ip", background=True)
    closed = refused(limiter, background=True)
    assert (told.requests, told.reason) == (0, closed.reason)
    assert told.reopens_at is not None
    assert told.reopens_at >= closed.until
    assert limiter.allowance(KILLMAIL, "ip", background=False).requests == 1


def test_a_probe_that_fails_closes_the_road_for_longer_each_time(limiter):
    go_down(limiter)
    time_passes(16)
    waits = []
    for _ in range(4):
        answer(limiter, 503)
        waits.append(round(refused(limiter).until - time.time()))
        time_passes(waits[-1] + 1)
    assert waits == [30, 60, 60, 60]


def test_silence_closes_the_road_as_504_does(limiter):
    for _ in range(DOWNTIME_FAILURES):
        permit = limiter.acquire(KILLMAIL, "ip", background=False)
        permit.slot_at -= SILENCE_SECONDS
        permit.unanswered()
    assert refused(limiter).reason == DOWN


def test_connections_that_break_at_once_are_no_downtime(limiter):
    for _ in range(2 * DOWNTIME_FAILURES):
        limiter.acquire(KILLMAIL, "ip", background=False).unanswered()
    answer(limiter, 200)


def test_a_probe_that_was_not_sent_is_followed_by_another(limiter):
    go_down(limiter)
    time_passes(16)
    limiter.acquire(KILLMAIL, "ip", background=False).unsent()
    refused(limiter)
    time_passes(16)
    answer(limiter, 200)
    answer(limiter, 200)


def test_what_is_on_its_way_when_the_road_closes_changes_nothing(limiter):
    # Given many requests in flight, some of which left when there had been failures already
    permits = [limiter.acquire(KILLMAIL, "ip", background=False) for _ in range(6)]
    for permit in permits[:2]:
        permit.answered(503, {})
    permits = permits[2:] + [limiter.acquire(KILLMAIL, "ip", background=False) for _ in range(6)]
    # When all but two fail, and those succeed
    for permit in permits[:8]:
        permit.answered(503, {})
    for permit in permits[8:]:
        permit.answered(200, {})
    # Then the road is closed as after five failures
    assert refused(limiter).until <= time.time() + 16
    # And so is the next pause
    time_passes(16)
    answer(limiter, 503)
    assert round(refused(limiter).until - time.time()) == 30


def test_of_two_who_would_probe_at_once_one_does(limiter):
    # Given two processes that both saw that the time has passed
    go_down(limiter)
    time_passes(16)
    now = time.time()
    # Then one gets through
    assert [rate_store.take_probe(DOWNTIME, now, now + 15) for _ in range(2)] == [True, False]


def test_an_open_road_costs_no_writes(limiter, any_db):
    go_down(limiter)
    time_passes(16)
    answer(limiter, 200)
    answer(limiter, 200)
    with counted_statements(any_db) as statements:
        answer(limiter, 200)
    assert len(statements) == 3


def test_a_closure_of_a_clock_that_was_set_back_holds_nobody_up(limiter):
    answer(limiter, 420, {}, UNBUCKETED)
    time_passes(-86_400)
    answer(limiter, 200)


def test_closed_gates_stand_in_the_snapshot(limiter):
    answer(limiter, 420, {}, UNBUCKETED)
    (state,) = limiter.snapshot()
    assert (state.name, state.allowance, state.remaining) == ("error-limit", None, None)
    assert state.closed_until is not None
    assert state.reason


def test_the_log_tells_of_a_closing_and_an_opening_once(limiter, caplog):
    # Given ten requests in flight
    caplog.set_level(logging.INFO, logger="esi")
    permits = [limiter.acquire(KILLMAIL, "ip", background=False) for _ in range(10)]
    # When all of them find ESI down, a probe fails, and the next succeeds
    for permit in permits:
        permit.answered(503, {})
    time_passes(16)
    answer(limiter, 503)
    time_passes(61)
    for _ in range(5):
        answer(limiter, 200)
    # Then that is two lines
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "ESI is down" in caplog.records[0].getMessage()


@pytest.mark.parametrize("headers", [{"X-Ratelimit-Remaining": "0", "Retry-After": "0"}, {"Retry-After": "0"}])
def test_the_log_tells_of_refusals_once(limiter, caplog, headers):
    caplog.set_level(logging.INFO, logger="esi")
    permits = [limiter.acquire(KILLMAIL, "ip", background=False) for _ in range(5)]
    for permit in permits:
        permit.answered(429, headers)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_probe_that_ends_late_does_not_close_what_another_found_open(limiter, other):
    go_down(limiter)
    time_passes(16)
    slow = limiter.acquire(KILLMAIL, "ip", background=False)
    time_passes(16)
    answer(other, 200)
    slow.slot_at -= SILENCE_SECONDS
    slow.unanswered()
    answer(limiter, 200)
