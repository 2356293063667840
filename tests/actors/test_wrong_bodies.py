"""A body that does not match its hash and names none of the pilots who list it: asked for again before it is believed.

Stored at once, it would hide the killmail from its pilot for ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from database import utcnow
from ledger.wrong_bodies import BELIEVED_AFTER
from models import Fetch, FetchState, Killmail, Sync, SyncState, UserKillmail
from tests.actors.asking import only_row, only_sync, rows, stored
from tests.actors.simulated import Pilot, Simulated

Answer = Callable[[int, int], None]


@pytest.fixture
def answer(simulated: Simulated) -> Answer:
    """Let ESI answer this killmail with a body that names strangers: each number is another one."""

    def change(killmail_id: int, number: int) -> None:
        body: dict[str, Any] = json.loads(simulated.killmail(killmail_id).payload.raw)
        body["victim"]["character_id"] = 424_242 + number
        for attacker in body["attackers"]:
            attacker["character_id"] = 434_343
        simulated.change_killmail(killmail_id, body=body)

    return change


def seen_by(pilot: Pilot) -> set[int]:
    links = UserKillmail.select().where(UserKillmail.user == pilot.user_id)
    return {link.killmail_id for link in links} & set(stored())


def test_a_wrong_body_once_hides_nothing(simulated, sync, later, tick, answer):
    # Given one answer with another body
    pilot = simulated.pilot(3)
    odd = simulated.list_of(pilot)[0]
    right = simulated.killmail(odd).payload
    answer(odd, 0)
    sync(pilot)
    # Then it is not stored, and says what is wrong with it
    assert odd not in stored()
    assert only_row().state == FetchState.DEFERRED
    assert "names none of the pilots" in only_row().last_error
    assert only_sync().state == SyncState.FETCHING
    # And the next answer is
    simulated.change_killmail(odd, payload=right)
    later(30)
    tick()
    assert seen_by(pilot) == set(simulated.list_of(pilot))
    assert (only_sync().state, only_sync().failed, only_sync().error) == (SyncState.FINISHED, 0, None)
    assert pilot.user.last_sync_complete


def test_a_wrong_body_that_comes_again_and_again_is_believed_and_hidden(simulated, sync, later, tick, answer):
    pilot = simulated.pilot(2)
    odd = simulated.list_of(pilot)[0]
    answer(odd, 0)
    done = sync(pilot)
    asked = 1
    while odd in rows() and asked < 20:
        assert rows()[odd].wrong_bodies == asked
        later(2 * 3600)
        tick()
        asked += 1
    assert asked == BELIEVED_AFTER
    assert odd in stored()
    assert seen_by(pilot) == {simulated.list_of(pilot)[1]}
    ended = Sync.get_by_id(done.id)
    assert (ended.state, ended.failed) == (SyncState.FINISHED, 1), "it did not wait for the last one"


def test_wrong_bodies_that_differ_are_never_believed(simulated, sync, later, tick, answer):
    pilot = simulated.pilot(1)
    [odd] = simulated.list_of(pilot)
    answer(odd, 0)
    sync(pilot)
    for number in range(1, BELIEVED_AFTER + 2):
        answer(odd, number)
        later(86_400)
        tick()
        assert only_row().wrong_bodies == 1
    assert stored() == []


def test_a_body_that_names_its_pilot_is_stored_whatever_its_hash(simulated, sync):
    """CCP promises no rule for hashes."""
    pilot = simulated.pilot(1)
    [odd] = simulated.list_of(pilot)
    simulated.change_killmail(odd, killmail_hash="0" * 40)
    sync(pilot)
    assert seen_by(pilot) == {odd}
    assert Fetch.select().count() == 0


def test_what_was_believed_by_mistake_is_asked_for_again_after_a_week(simulated, sync, later, tick, answer):
    # Given a killmail whose wrong body was believed
    pilot = simulated.pilot(2)
    odd = simulated.list_of(pilot)[0]
    right = simulated.killmail(odd).payload
    answer(odd, 0)
    sync(pilot)
    while odd in rows():
        later(2 * 3600)
        tick()
    simulated.change_killmail(odd, payload=right)
    sync(pilot, full=True)
    assert odd not in seen_by(pilot)
    # When a week has passed
    Killmail.update(created_at=utcnow() - timedelta(days=8)).execute()
    later(3600)
    tick()
    assert odd not in stored()
    # Then the next full sync brings it
    sync(pilot, full=True)
    assert seen_by(pilot) == set(simulated.list_of(pilot))
