"""What always gets a 420 or a bucket's 429: it goes behind the others, and pays for it once it alone is refused."""

from __future__ import annotations

import time

import pytest

import runtime
from actors.middleware import THIS_ADDRESS
from esi.rate_limit import KILLMAIL, LONGEST_ERROR_LIMIT_SECONDS
from esi.roads import ERROR_LIMIT
from models import Gate, Sync, SyncState
from tests.actors.asking import ask, only_row, rows, stored


def is_closed() -> bool:
    """Whether killmails wait, for the error limit or for their bucket."""
    return runtime.limiter().allowance(KILLMAIL, THIS_ADDRESS, background=False).requests == 0


def sync_of(pilot) -> Sync:
    return Sync.get(Sync.user == pilot.user_id)


@pytest.mark.parametrize("kind", ["420", "429"])
def test_a_killmail_that_always_asks_everyone_to_wait_keeps_the_others_for_minutes(
    simulated, crew, sync, later, tick, kind
):
    # Given a pilot with such a killmail, and one with good ones
    bad, good = simulated.pilot(1), simulated.pilot()
    simulated.fault("killmail", kind, seconds=60, character_id=bad.character_id)
    sync(bad)
    assert (only_row().state, only_row().attempts) == ("pending", 0)
    simulated.fight(good, 12)
    ask(good)
    # When an hour passes
    closed = 0
    for _ in range(60):
        crew.drain()
        later(60)
        tick()
        closed += is_closed()
    # Then the good ones are stored, the other one has paid, and nobody else waits for it
    assert stored() == simulated.list_of(good)
    assert sync_of(good).state == SyncState.FINISHED
    assert (sync_of(bad).state, sync_of(bad).failed) == (SyncState.FINISHED, 1)
    assert only_row().attempts >= 4
    assert closed <= 12


@pytest.mark.parametrize("kind", ["420", "429"])
def test_the_next_one_to_try_is_another_killmail(simulated, sync, later, tick, kind):
    # Given a killmail that is always refused, the newest of its pilot's
    pilot = simulated.pilot(6)
    refused = simulated.list_of(pilot)[0]
    simulated.fault("killmail", kind, seconds=30, killmail_id=refused)
    sync(pilot)
    # When the wait is over, once
    later(40)
    tick()
    # Then all others are stored
    assert stored() == simulated.list_of(pilot)[1:]
    assert set(rows()) == {refused}


def test_a_list_that_always_gets_a_420_fails_like_any_other(simulated, crew, sync, later, tick):
    # Given two pilots who are read in turns, one of whom always gets a 420
    bad, good = simulated.pilot(1), simulated.pilot()
    simulated.fault("recent", "420", seconds=60, character_id=bad.character_id)
    sync(bad)
    closed = []
    for _ in range(20):
        later(65)
        simulated.fight(good, 1)
        ask(good)
        tick()
        closed.append(is_closed())
    # Then that list fails alone, and the gate does not close again for it
    assert sync_of(bad).state == SyncState.FAILED
    assert sum(closed) <= 3
    assert len(stored()) == 20


def test_an_error_limit_of_an_hour_is_believed_for_two_minutes(simulated, sync, later, tick):
    bad, good = simulated.pilot(1), simulated.pilot(3)
    simulated.fault("recent", "420", seconds=3600, count=1, character_id=bad.character_id)
    sync(bad)
    assert Gate.get(Gate.name == ERROR_LIMIT).closed_until <= time.time() + LONGEST_ERROR_LIMIT_SECONDS + 1
    ask(good)
    later(LONGEST_ERROR_LIMIT_SECONDS + 5)
    tick()
    assert set(stored()) == {*simulated.list_of(good), *simulated.list_of(bad)}
