"""Whose request is at fault when an answer asks everyone to wait. On SQLite and PostgreSQL."""

from __future__ import annotations

import time

import pytest

from esi import told_to_wait
from esi.limiter import Limiter
from esi.rate_limit import KILLMAIL
from esi.roads import ERROR_LIMIT
from esi.told_to_wait import Refused
from tests.unit.esi.limiting import RATE, answer, refused, time_passes

pytestmark = pytest.mark.usefixtures("any_db")

EVERYONES, OWN, OWN_ALONE = Refused(False, False), Refused(True, False), Refused(True, True)


def test_the_first_refusal_of_a_pilot_is_everyones_and_the_next_one_after_a_success_its_own():
    assert told_to_wait.count("limit", 7, 100.0, 100.1) == EVERYONES
    told_to_wait.succeeded("limit")
    assert told_to_wait.count("limit", 7, 200.0, 200.1) == OWN_ALONE
    # Without a success in between it is told from a limit that holds for all by nothing
    assert told_to_wait.count("limit", 7, 300.0, 300.1) == OWN


def test_requests_that_were_on_their_way_at_the_first_refusal_are_not_at_fault():
    assert [told_to_wait.count("limit", 7, 100.0, 100.1 + n / 100) for n in range(5)] == [EVERYONES] * 5


def test_where_several_pilots_are_refused_in_a_row_the_limit_is_everyones():
    for pilot in (7, 8, 9):
        told_to_wait.count("limit", pilot, 100.0, 100.1)
    told_to_wait.succeeded("limit")
    assert [told_to_wait.count("limit", pilot, 200.0, 200.1) for pilot in (7, 8, 9)] == [
        OWN_ALONE, EVERYONES, EVERYONES
    ]  # fmt: skip


def test_a_pilot_is_remembered_for_a_day():
    told_to_wait.count("limit", 7, 100.0, 100.1)
    told_to_wait.succeeded("limit")
    assert told_to_wait.count("limit", 7, 90_000.0, 90_000.1) == EVERYONES


@pytest.mark.parametrize(("status", "headers"), [(420, {}), (429, {"X-Ratelimit-Remaining": "0", "Retry-After": "60"})])
def test_what_one_pilot_gets_while_others_succeed_closes_nothing_and_two_pilots_close_it(status, headers):
    limiter = Limiter(RATE)

    def get(pilot: int):
        permit = limiter.acquire(KILLMAIL, "ip", background=False, subject=pilot)
        permit.answered(status, headers)
        return permit

    assert not get(7).own_refusal
    assert refused(limiter).until > time.time() + 50
    time_passes(70)
    answer(limiter, 200)
    # When that pilot gets one again
    assert get(7).own_refusal
    # Then the others go on
    answer(limiter, 200)
    assert limiter.allowance(KILLMAIL, "ip", background=False).requests > 1
    # And the next pilot's closes it for all
    assert not get(8).own_refusal
    assert refused(limiter).until > time.time() + 50


@pytest.mark.parametrize("header", ["X-ESI-Error-Limit-Reset", "Retry-After"])
def test_an_error_limit_is_believed_for_two_minutes(header):
    limiter = Limiter(RATE)
    answer(limiter, 420, {header: "3600"})
    assert time.time() + 110 < refused(limiter).until <= time.time() + 122
    assert refused(limiter).road == ERROR_LIMIT
