"""A 429 that is not a bucket's own: it concerns its owner first, and the group only when several owners get one in a
row. On SQLite and PostgreSQL."""

from __future__ import annotations

import time
from typing import Any

import pytest

import database
from esi import failing_owners
from esi.charges import CONFIRMATIONS
from esi.limiter import Closed, Limiter
from esi.permit import OWNERS_REFUSED
from esi.rate_limit import CHAR_KILLMAIL, KILLMAIL, RateGroup
from esi.roads import TOLD_TO_WAIT, USED_UP
from tests.unit.esi.limiting import RATE, answer, counted_statements, refused, time_passes

pytestmark = pytest.mark.usefixtures("any_db")

ONE, TWO, THREE, FOUR = "90000001", "90000002", "90000003", "90000004"
HOUR = {"Retry-After": "3600"}


@pytest.fixture
def limiter() -> Limiter:
    return Limiter(RATE)


@pytest.fixture
def other() -> Limiter:
    """Another process, as far as memory goes."""
    return Limiter(RATE)


def killmail(limiter: Limiter, character_id: int, status: int, headers: dict[str, str] | None = None) -> None:
    """The answer to the request for a killmail of that pilot."""
    limiter.acquire(KILLMAIL, "ip", background=False, subject=character_id).answered(status, headers or {})


def list_refused(limiter: Limiter, owner: str, headers: dict[str, str] | None = None) -> None:
    answer(limiter, 429, headers, CHAR_KILLMAIL, owner)


def test_one_pilots_refusal_closes_that_pilots_list_and_no_other(limiter: Limiter, other: Limiter) -> None:
    # When ESI asks to wait an hour for one pilot's list
    list_refused(limiter, ONE, HOUR)
    # Then that list is not asked for before, by any process
    closed = refused(other, CHAR_KILLMAIL, ONE)
    assert time.time() + 3599 <= closed.until <= time.time() + 3602
    assert closed.reason == TOLD_TO_WAIT
    told = other.allowance(CHAR_KILLMAIL, ONE, background=False)
    assert (told.requests, told.reason) == (0, TOLD_TO_WAIT)
    # And every other list is
    for owner in (TWO, THREE, FOUR):
        answer(other, 200, group=CHAR_KILLMAIL, owner=owner)


def test_one_pilot_refused_again_and_again_never_closes_the_lists_of_all(limiter: Limiter) -> None:
    for _ in range(5):
        list_refused(limiter, ONE, HOUR)
        answer_of_others = [limiter.allowance(CHAR_KILLMAIL, owner, background=True) for owner in (TWO, THREE)]
        assert all(each.requests > 0 for each in answer_of_others)
        time_passes(3602)


def test_waits_of_one_owner_grow_where_esi_names_none_and_a_success_ends_that(limiter: Limiter) -> None:
    waits = []
    for _ in range(6):
        list_refused(limiter, ONE)
        waits.append(round(refused(limiter, CHAR_KILLMAIL, ONE).until - time.time()))
        time_passes(waits[-1] + 1)
    # A trial keeps the others out for ten seconds, so that the second wait is no shorter than that.
    assert waits == [6, 11, 21, 41, 61, 61]
    answer(limiter, 200, group=CHAR_KILLMAIL, owner=ONE)
    list_refused(limiter, ONE)
    assert round(refused(limiter, CHAR_KILLMAIL, ONE).until - time.time()) == 6


def test_refusals_of_one_owner_that_were_on_their_way_count_once(limiter: Limiter) -> None:
    permits = [limiter.acquire(CHAR_KILLMAIL, ONE, background=False) for _ in range(4)]
    for permit in permits:
        permit.answered(429, {})
    assert refused(limiter, CHAR_KILLMAIL, ONE).until <= time.time() + 7


def test_an_empty_bucket_is_still_told_from_a_wait_that_esi_asked_for(limiter: Limiter) -> None:
    answer(limiter, 429, {"X-Ratelimit-Remaining": "0", "Retry-After": "30"}, CHAR_KILLMAIL, ONE)
    assert refused(limiter, CHAR_KILLMAIL, ONE).reason == USED_UP
    assert limiter.allowance(CHAR_KILLMAIL, ONE, background=False).reason == USED_UP


def test_three_owners_in_a_row_close_the_group(limiter: Limiter, other: Limiter) -> None:
    # Given two owners refused, by two processes
    list_refused(limiter, ONE, {"Retry-After": "33"})
    list_refused(other, TWO, {"Retry-After": "33"})
    assert limiter.allowance(CHAR_KILLMAIL, FOUR, background=False).requests > 0
    # When a third one is
    list_refused(limiter, THREE, {"Retry-After": "33"})
    # Then all lists wait as long as ESI said, and what is no list does not
    closed = refused(other, CHAR_KILLMAIL, FOUR)
    assert time.time() + 32 <= closed.until <= time.time() + 35
    assert closed.reason == TOLD_TO_WAIT
    answer(other, 200, group=KILLMAIL)
    # And when that is over they go on
    time_passes(36)
    answer(other, 200, group=CHAR_KILLMAIL, owner=FOUR)


def test_a_success_of_any_owner_in_between_says_that_the_group_is_not_meant(limiter: Limiter, other: Limiter) -> None:
    list_refused(limiter, ONE, HOUR)
    list_refused(limiter, TWO, HOUR)
    answer(other, 200, group=CHAR_KILLMAIL, owner=FOUR)
    list_refused(limiter, THREE, HOUR)
    answer(other, 304, group=CHAR_KILLMAIL, owner=FOUR)
    assert failing_owners.count(CHAR_KILLMAIL.name) == 0


def test_after_a_success_a_success_costs_no_statement_more(limiter: Limiter, any_db: Any) -> None:
    list_refused(limiter, ONE)
    answer(limiter, 200, group=CHAR_KILLMAIL, owner=TWO)
    with counted_statements(any_db) as statements:
        answer(limiter, 200, group=CHAR_KILLMAIL, owner=TWO)
    assert len(statements) == 3


def test_waits_of_the_group_grow_where_esi_names_none(limiter: Limiter) -> None:
    waits = []
    for start in range(0, 3 * OWNERS_REFUSED, OWNERS_REFUSED):
        for number in range(start, start + OWNERS_REFUSED):
            try:
                killmail(limiter, 1000 + number, 429)
            except Closed:
                break
        waits.append(round(refused(limiter).until - time.time()))
        time_passes(waits[-1] + 1)
    assert waits == [6, 11, 21]


@pytest.mark.parametrize("headers", [{}, HOUR])
def test_one_pilots_killmails_close_no_gate_however_often(limiter: Limiter, headers: dict[str, str]) -> None:
    for _ in range(2 * OWNERS_REFUSED):
        killmail(limiter, 7, 429, headers)
    killmail(limiter, 8, 200)


def test_killmails_of_different_pilots_in_a_row_close_the_gate(limiter: Limiter, other: Limiter) -> None:
    for character_id in (7, 8):
        killmail(limiter, character_id, 429, {"Retry-After": "40"})
    killmail(other, 9, 429, {"Retry-After": "40"})
    assert time.time() + 39 <= refused(other).until <= time.time() + 42
    # And a success among them does not
    time_passes(42)
    killmail(limiter, 10, 200)
    for character_id in (11, 12):
        killmail(limiter, character_id, 429)
    killmail(limiter, 13, 200)
    killmail(limiter, 14, 429)
    killmail(limiter, 15, 200)


def test_several_owners_close_the_group_for_minutes_and_one_request_finds_out_for_all(
    limiter: Limiter, other: Limiter
) -> None:
    # Given three owners whom ESI asks to wait for an hour
    for owner in (7, 8, 9):
        killmail(limiter, owner, 429, HOUR)
    # Then the group waits for two minutes
    assert time.time() + 110 <= refused(other).until <= time.time() + 121
    # And after that one request goes first
    time_passes(121)
    assert other.allowance(KILLMAIL, "ip", background=False).requests == 1
    first = other.acquire(KILLMAIL, "ip", background=False, subject=10)
    refused(limiter)
    first.answered(200, {})
    assert limiter.allowance(KILLMAIL, "ip", background=False).requests > 1
    # And where that one is refused as well, the gate closes again
    for owner in (7, 8, 9):
        killmail(limiter, owner, 429, HOUR)
    time_passes(121)
    killmail(limiter, 10, 429, HOUR)
    assert time.time() + 110 <= refused(other).until <= time.time() + 121


def test_an_owner_that_is_no_number_has_its_bucket_closed_all_the_same(limiter: Limiter) -> None:
    answer(limiter, 429, HOUR, CHAR_KILLMAIL, "no number")
    refused(limiter, CHAR_KILLMAIL, "no number")
    answer(limiter, 200, group=CHAR_KILLMAIL, owner=ONE)


def test_a_request_that_is_nobodys_closes_its_group_at_once(limiter: Limiter) -> None:
    """Prices and batches of names: there is no owner who could be at fault."""
    group = RateGroup("unbucketed", 0, 0, 0)
    answer(limiter, 429, {"Retry-After": "20"}, group)
    assert refused(limiter, group).until > time.time() + 18


def _delete_bucket(key: str) -> None:
    database.execute("DELETE FROM rate_buckets WHERE bucket = ?", (key,))


def test_an_answer_is_kept_whose_bucket_was_swept_while_it_was_on_its_way(limiter: Limiter) -> None:
    # Given a rule with a window of seconds, and a request that took longer than that
    for _ in range(CONFIRMATIONS):
        answer(limiter, 200, {"X-Ratelimit-Limit": "20/2s"}, CHAR_KILLMAIL, ONE)
    permit = limiter.acquire(CHAR_KILLMAIL, ONE, background=False)
    _delete_bucket(f"char-killmail:{ONE}")
    # When it is answered with what has to be written down
    permit.answered(404, {})
    # Then that is spent from a new bucket of the same rule
    rows = database.execute(
        "SELECT allowance, window_seconds FROM rate_buckets WHERE bucket = ?", (f"char-killmail:{ONE}",)
    ).fetchall()
    assert rows == [(20, 2)]
    assert limiter.allowance(CHAR_KILLMAIL, ONE, background=False).requests == (20 - 5) // 2


@pytest.mark.parametrize("end", ["unsent", "unanswered"])
def test_a_request_may_end_in_any_way_after_its_bucket_was_swept(limiter: Limiter, end: str) -> None:
    permit = limiter.acquire(CHAR_KILLMAIL, ONE, background=False, conditional=True)
    _delete_bucket(f"char-killmail:{ONE}")
    getattr(permit, end)()
    assert limiter.allowance(CHAR_KILLMAIL, ONE, background=False).requests >= 14
