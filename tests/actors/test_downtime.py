"""Requests that fail as in a downtime: one pilot's keep no other pilot out, and `/status` tells whether ESI is up."""

from __future__ import annotations

import time

import pytest

import runtime
from actors.middleware import THIS_ADDRESS
from esi import failing_owners
from esi.downtime import ASKING_SECONDS, SLOW
from esi.rate_limit import KILLMAIL
from esi.roads import DOWNTIME, SILENCE_SECONDS, UNSURE
from ledger.rules import SLOW_AT_ONCE, SLOW_TURN
from models import Gate, Sync, SyncState, Trigger
from tests.actors.asking import ask, rows, stored


def closed_for() -> float:
    """Seconds for which the gate is closed."""
    gate = Gate.get_or_none(Gate.name == DOWNTIME)
    return 0.0 if gate is None else max(0.0, gate.closed_until - time.time())


def hang(pilot) -> None:
    """The request for a killmail of this pilot ends without an answer after many seconds."""
    permit = runtime.limiter().acquire(KILLMAIL, THIS_ADDRESS, background=False, subject=pilot.character_id)
    permit.slot_at -= SILENCE_SECONDS + 1
    permit.unanswered()


def test_one_pilots_killmails_that_always_fail_keep_no_other_pilot_out(simulated, sync, later, tick):
    # Given a pilot of whose thirty killmails none is ever answered but by 504
    bad, good = simulated.pilot(30), simulated.pilot()
    simulated.fault("killmail", "status:504", character_id=bad.character_id)
    sync(bad)
    # Then no look finds the gate closed, and a pilot who comes while they are tried again has everything at once
    for _ in range(6):
        assert closed_for() == 0
        new = simulated.fight(good, 2)
        assert sync(good).state == SyncState.FINISHED
        assert set(new) <= set(stored())
        later(61)
        tick()
    # And they pay like anything that fails
    done = Sync.get(Sync.user == bad.user_id)
    assert (done.state, done.failed) == (SyncState.FINISHED, 30)


def test_five_failures_of_one_pilot_ask_status_at_once(simulated):
    bad = simulated.pilot()
    for _ in range(5):
        hang(bad)
    assert closed_for() <= ASKING_SECONDS
    assert Gate.get(Gate.name == DOWNTIME).reason == UNSURE
    assert runtime.limiter().is_status_due()


@pytest.mark.parametrize(("killmails", "pilots"), [(1, 1), (12, 1), (4, 4)])
def test_a_real_downtime_is_noticed_costs_next_to_nothing_and_ends(simulated, crew, later, tick, killmails, pilots):
    everyone = [simulated.pilot(killmails) for _ in range(pilots)]
    for route in ("killmail", "recent", "status"):
        simulated.fault(route, "status:503", count=None if route != "recent" else 0)
    for pilot in everyone:
        ask(pilot, Trigger.SCHEDULE)
    crew.drain()
    for _ in range(4):
        later(61)
        tick()
    # Noticed, also where there is one killmail
    assert Gate.get(Gate.name == DOWNTIME).failures >= 5
    assert sum(row.attempts for row in rows().values()) <= 4
    assert {each.state for each in Sync.select()} == {SyncState.FETCHING}
    # And over by itself
    simulated.mend()
    for _ in range(2):
        later(61)
        tick()
    assert rows() == {}
    assert {each.state for each in Sync.select()} == {SyncState.FINISHED}


def test_lists_of_several_pilots_that_always_fail_do_not_keep_a_healthy_one_out(simulated, crew, later, tick):
    # Given five pilots whose lists always end in 504, so that ESI might be down for all
    bad, good = [simulated.pilot() for _ in range(5)], simulated.pilot()
    for pilot in bad:
        simulated.fault("recent", "status:504", character_id=pilot.character_id)
        ask(pilot, Trigger.SCHEDULE)
    # When another pilot's list is due at the same time
    new = simulated.fight(good, 2)
    ask(good, Trigger.SCHEDULE)
    crew.drain()
    # Then it is read before any pause
    assert sorted(stored()) == sorted(new)
    assert closed_for() == 0
    # And the others fail alone
    for _ in range(20):
        later(61)
        tick()
    assert {each.state for each in Sync.select().where(Sync.user != good.user_id)} == {SyncState.FAILED}


def test_killmails_that_hang_are_asked_for_a_few_at_a_time_behind_all_others(simulated, crew, tick):
    # Given a pilot one of whose killmails was not answered for many seconds
    bad, good = simulated.pilot(20), simulated.pilot(6)
    hang(bad)
    assert failing_owners.includes(SLOW, bad.character_id)
    # When both pilots' killmails are fetched
    ask(bad)
    ask(good)
    crew.until(lambda: set(simulated.list_of(good)) <= set(stored()))
    # Then the other pilot's are stored, and of the first pilot's a few at most are out
    slow = [row for row in rows().values() if row.turn >= SLOW_TURN]
    assert slow, "some are put behind"
    assert sum(row.state in ("sent", "fetching") for row in slow) <= SLOW_AT_ONCE
    # And they are all stored in the end, without an attempt spent
    for _ in range(3):
        tick()
    assert rows() == {}
    assert {each.state for each in Sync.select()} == {SyncState.FINISHED}
