"""Whose failures close the downtime gate, and who finds out whether ESI is up. On SQLite and PostgreSQL."""

from __future__ import annotations

import time

import pytest

from esi import downtime, failing_owners, rate_store
from esi.downtime import SLOW_READ_SECONDS, SlowPilots
from esi.limiter import Limiter
from esi.rate_limit import CHAR_KILLMAIL, KILLMAIL, STATUS
from esi.roads import DOWN, DOWNTIME, DOWNTIME_FAILURES, UNSURE
from tests.unit.esi.limiting import RATE, answer, refused, time_passes

pytestmark = pytest.mark.usefixtures("any_db")


@pytest.fixture
def limiter() -> Limiter:
    return Limiter(RATE)


def fail(limiter: Limiter, *pilots: int) -> None:
    """A killmail of each of these pilots is answered 504."""
    for pilot in pilots:
        limiter.acquire(KILLMAIL, "ip", background=False, subject=pilot).answered(504, {})


def gate() -> rate_store.Gate:
    return rate_store.read_gate(DOWNTIME)[1]


@pytest.mark.parametrize("pilots", [(1, 1, 1, 1, 1), (1, 2, 1, 2, 1)])
def test_where_status_answers_the_failures_of_one_or_two_pilots_are_their_own(limiter, pilots):
    fail(limiter, *pilots)
    # All but /status wait, for its answer
    assert refused(limiter).reason == refused(limiter, CHAR_KILLMAIL, "7").reason == UNSURE
    assert limiter.is_status_due()
    answer(limiter, 200, group=STATUS)
    assert (gate().failures, failing_owners.count(DOWNTIME)) == (0, 0)
    assert not limiter.is_down()
    answer(limiter, 200)
    answer(limiter, 200)


def test_where_status_fails_esi_is_down_whoever_failed(limiter):
    fail(limiter, *[1] * 5)
    answer(limiter, 503, group=STATUS)
    assert refused(limiter).reason == DOWN
    assert refused(limiter).until > time.time() + 10


def test_one_asks_status_at_a_time(limiter):
    fail(limiter, *[1] * 5)
    limiter.acquire(STATUS, "ip", background=False)
    assert not limiter.is_status_due()
    refused(limiter, STATUS)


def test_a_question_that_is_never_asked_holds_the_others_for_seconds(limiter):
    fail(limiter, *[1] * 5)
    time_passes(downtime.ASKING_SECONDS + 1)
    answer(limiter, 200)
    answer(limiter, 200)


def test_after_failures_of_several_pilots_each_probe_is_another_pilots(limiter):
    # Given five pilots whose requests failed in a row, and /status that answers
    fail(limiter, *range(1, 6))
    answer(limiter, 200, group=STATUS)
    assert limiter.allowance(KILLMAIL, "ip", background=False).probe
    # When the probes of two pilots fail
    for pilot in (1, 2):
        probe = limiter.acquire(KILLMAIL, "ip", background=False, subject=pilot)
        assert probe.is_vouched
        refused(limiter)  # one at a time
        probe.answered(504, {})
    # Then a third goes at once, and opens the gate with a success
    answer(limiter, 200, group=CHAR_KILLMAIL, owner="9")
    assert (gate().failures, failing_owners.count(DOWNTIME)) == (0, 0)


@pytest.mark.parametrize("probes", [(1, 2, 3), (1, 1)])
def test_the_gate_closes_again_when_nobody_else_could_be_tried(limiter, probes):
    fail(limiter, *range(1, 6))
    answer(limiter, 200, group=STATUS)
    fail(limiter, *probes)
    # For a pause that does not grow, after which /status is asked again
    for _ in range(6):
        assert time.time() + 5 < refused(limiter).until <= time.time() + 16
        time_passes(16)
        assert limiter.is_status_due()
        answer(limiter, 200, group=STATUS)
        fail(limiter, *probes)


def test_a_success_in_between_forgets_all(limiter):
    for _ in range(4):
        fail(limiter, 1, 2, 3, 4)
        answer(limiter, 200)
    assert (gate().failures, failing_owners.count(DOWNTIME)) == (0, 0)


def test_pilots_whose_killmails_take_long_to_fail_are_remembered_for_minutes(limiter):
    # Given one that fails at once, and one after many seconds
    fail(limiter, 1)
    slow = limiter.acquire(KILLMAIL, "ip", background=False, subject=2)
    slow.slot_at -= 20
    slow.answered(504, {})
    now = time.time()
    assert [SlowPilots().includes(pilot, now) for pilot in (1, 2)] == [False, True]
    # Then a success of anyone changes nothing, and time does
    answer(limiter, 200)
    known = SlowPilots()
    assert known.includes(2, now)
    assert not known.includes(2, now + 601)


def test_a_pilot_who_turns_slow_is_known_a_second_later(limiter):
    known, now = SlowPilots(), time.time()
    assert not known.includes(2, now)
    downtime.took_long(2, now)
    assert known.includes(2, now + SLOW_READ_SECONDS)


def test_in_a_downtime_no_pilot_is_slow(limiter):
    permits = [limiter.acquire(KILLMAIL, "ip", background=False, subject=pilot) for pilot in range(DOWNTIME_FAILURES)]
    for permit in permits:
        permit.slot_at -= 20
        permit.unanswered()
    answer(limiter, 503, group=STATUS)
    assert not SlowPilots().includes(0, time.time())
