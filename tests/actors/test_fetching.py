"""What ESI may answer for one killmail, and what becomes of its ledger row, its sync and the next attempt."""

from __future__ import annotations

import json
import logging
from datetime import timedelta

import pytest

import events
from api import syncs
from database import utcnow
from models import Fetch, Killmail, Sync, SyncState, Trigger
from tests.actors.asking import ask, only_row, only_sync, rows, stored, wake


def test_an_answer_is_stored_and_its_row_struck_off(simulated, sync, crew):
    pilot = simulated.pilot(1)
    done = sync(pilot)
    assert (done.state, done.found, done.saved, done.failed) == (SyncState.FINISHED, 1, 1, 0)
    assert stored() == simulated.list_of(pilot)
    assert rows() == {}
    assert crew.dead == []


def test_a_body_that_does_not_match_its_hash_is_stored_with_a_warning(simulated, sync, caplog):
    """The hash is a secret of those whose lists the killmail stood in: the warning names the killmail only."""
    pilot = simulated.pilot(1)
    [killmail_id] = simulated.list_of(pilot)
    listed = "ab" * 20
    simulated.change_killmail(killmail_id, killmail_hash=listed)

    with caplog.at_level(logging.INFO):
        assert sync(pilot).state == SyncState.FINISHED

    assert Killmail.get().killmail_hash == listed
    [warning] = [record for record in caplog.records if "does not match" in record.getMessage()]
    assert str(killmail_id) in warning.getMessage()
    assert listed not in caplog.text


def _without_victim(body):
    del body["victim"]


def _another_id(body):
    body["killmail_id"] += 1


def _no_attackers_list(body):
    body["attackers"] = "none"


@pytest.mark.parametrize("spoil", [_without_victim, _another_id, _no_attackers_list])
def test_a_body_that_cannot_be_believed_is_tried_again(simulated, sync, later, tick, spoil):
    pilot = simulated.pilot(1)
    [killmail_id] = simulated.list_of(pilot)
    good = simulated.killmail(killmail_id).payload
    body = json.loads(good.raw)
    spoil(body)
    simulated.change_killmail(killmail_id, body=body)

    assert sync(pilot).state == SyncState.FETCHING
    row = only_row()
    assert (row.killmail_id, row.state, row.attempts) == (killmail_id, "deferred", 1)
    assert stored() == []

    simulated.change_killmail(killmail_id, payload=good)
    later(10)
    tick()
    assert stored() == [killmail_id]
    assert only_sync().state == SyncState.FINISHED


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("not_found", "404"),
        ("status:400", "400"),
        ("status:500", "500"),
        ("status:502", "502"),
        ("status:422", "422"),
        ("html", "503"),
        ("reset", "broke"),
        ("truncated", "broke"),
        ("invalid_json", "JSON"),
    ],
)
def test_a_failure_spends_one_attempt_and_is_tried_again_soon(simulated, sync, later, tick, post, kind, reason):
    pilot = simulated.pilot(1)
    simulated.fault("killmail", kind, count=1)

    assert sync(pilot).state == SyncState.FETCHING
    row = only_row()
    assert (row.state, row.attempts, row.claimed_until) == ("deferred", 1, None)
    assert reason in row.last_error
    assert row.not_before is not None
    assert [message.delay for message in post.to("dispatch") if message.delay] != [], "nobody is woken for it"

    later(10)
    tick()
    assert stored() == simulated.list_of(pilot)
    assert only_sync().state == SyncState.FINISHED


def test_after_four_failures_the_sync_ends_without_it_and_the_ledger_goes_on(simulated, sync, later, tick):
    pilot = simulated.pilot(2)
    newest, oldest = simulated.list_of(pilot)
    simulated.fault("killmail", "status:500", killmail_id=oldest, count=5)

    sync(pilot)
    for _ in range(3):
        assert only_sync().state == SyncState.FETCHING
        later(100)
        tick()

    done = only_sync()
    assert (done.state, done.found, done.saved, done.failed) == (SyncState.FINISHED, 2, 1, 1)
    assert (only_row().state, only_row().attempts) == ("deferred", 4)
    for _ in range(2):
        later(2 * 3600)
        tick()
    assert stored() == [newest, oldest]
    assert rows() == {}


def test_a_minute_of_422_loses_nothing(simulated, sync, later, tick):
    """ESI answers 422 to right pairs under load (zKillboard issue 210); load passes."""
    pilot = simulated.pilot(1)
    simulated.fault("killmail", "status:422")
    sync(pilot)
    assert only_sync().state == SyncState.FETCHING
    later(10)
    tick()
    done = only_sync()
    assert (done.state, done.saved, done.failed) == (SyncState.FINISHED, 0, 1)
    assert (only_row().state, only_row().attempts) == ("deferred", 4)

    simulated.mend()
    later(20 * 60)
    tick()
    assert stored() == simulated.list_of(pilot)


@pytest.mark.parametrize("kind", ["status:422", "not_found"])
def test_a_sync_is_held_up_for_seconds_by_what_esi_refuses_and_the_ledger_tries_again_rarely(
    simulated, sync, later, tick, kind
):
    """Each try costs five tokens and one of ESI's errors."""
    pilot = simulated.pilot(2)
    newest, refused = simulated.list_of(pilot)
    simulated.fault("killmail", kind, killmail_id=refused)
    sync(pilot)
    later(7)
    tick()
    done = only_sync()
    assert (done.state, done.saved, done.failed) == (SyncState.FINISHED, 1, 1)
    assert len(simulated.asked("killmail")) == 3
    for _ in range(10):
        later(60)
        tick()
    assert len(simulated.asked("killmail")) == 3, "a quarter of an hour"
    for _ in range(24):
        later(3600)
        tick()
    assert len(simulated.asked("killmail")) <= 8
    simulated.mend()
    later(30 * 3600)  # the longest wait is a day, spread by a fifth
    tick()
    assert stored() == [newest, refused]


def test_422_for_days_rejects_it(simulated, sync, later, tick):
    pilot = simulated.pilot(1)
    simulated.fault("killmail", "status:422")
    sync(pilot)
    minutes = 0
    while only_row().state != "rejected":
        assert minutes < 4 * 24 * 60, only_row().last_error
        minutes += 60
        later(3600)
        tick()
    assert minutes >= 12 * 60
    asked = len(simulated.asked("killmail"))
    later(48 * 3600)
    tick()
    assert len(simulated.asked("killmail")) == asked, "what ESI rejected is not asked for again"


def test_tries_that_a_pilot_hurried_are_not_counted_together(simulated, sync, later, tick):
    pilot = simulated.pilot(1)
    simulated.fault("killmail", "status:422")
    for _ in range(3):
        sync(pilot)
        for _ in range(4):
            later(100)
            tick()
    assert (only_row().state, only_row().refusals) == ("deferred", 2)
    assert len(simulated.asked("killmail")) == 4, "two tries, and one each time the pilot asked again"


def test_another_failure_starts_the_count_of_422_anew(simulated, sync, later, tick):
    pilot = simulated.pilot(1)
    simulated.fault("killmail", "status:422", count=7)
    simulated.fault("killmail", "status:500", count=1)
    simulated.fault("killmail", "status:422", count=7)

    sync(pilot)
    for _ in range(14):
        later(29 * 3600)
        tick()
    assert only_row().state != "rejected"
    later(29 * 3600)
    tick()

    assert stored() == simulated.list_of(pilot), f"given up for good: {[row.last_error for row in Fetch.select()]}"


@pytest.mark.parametrize("kind", ["429", "420"])
def test_being_told_to_wait_spends_no_attempt(simulated, sync, later, tick, kind):
    pilot = simulated.pilot(1)
    simulated.fault("killmail", kind, seconds=3, count=1)

    assert sync(pilot).state == SyncState.FETCHING
    row = only_row()
    assert (row.state, row.attempts, row.last_error) == ("pending", 0, None)
    assert wake() is not None
    assert syncs.load([only_sync().id])[only_sync().id].waiting_until is not None, "the pilot is not told"

    later(1000)
    tick()
    assert stored() == simulated.list_of(pilot)


def test_a_killmail_waits_as_long_as_its_bare_429_says_and_no_other_does(simulated, sync):
    # When ESI asks to wait ten minutes for the killmail that is fetched first
    pilot = simulated.pilot(6)
    refused = simulated.list_of(pilot)[0]
    simulated.fault("killmail", "429_bare_wait", killmail_id=refused, seconds=600)
    sync(pilot)
    # Then all others are stored, and that one is not tried again before
    assert stored() == simulated.list_of(pilot)[1:]
    assert only_row().not_before > utcnow() + timedelta(seconds=550)


def test_a_killmail_that_alone_gets_a_bare_429_keeps_nobody_out(simulated, sync, later, tick):
    """Without the bucket's headers it may be this killmail's own: it pays, and the others go first."""
    pilot = simulated.pilot(6)
    poisoned = simulated.list_of(pilot)[0]
    simulated.fault("killmail", "429_bare", killmail_id=poisoned, seconds=3)

    sync(pilot)
    for _ in range(6):
        later(61)
        tick()

    assert stored() == simulated.list_of(pilot)[1:]
    assert only_row().attempts >= 4
    assert (only_sync().state, only_sync().failed) == (SyncState.FINISHED, 1)
    simulated.mend()
    later(24 * 3600)
    tick()
    assert poisoned in stored()


@pytest.mark.parametrize("kind", ["429", "420"])
def test_whoever_is_told_to_wait_last_sees_to_it_that_somebody_wakes(simulated, sync, kind):
    """The last message of a batch carries no refill marker, and the tick is up to a minute away."""
    pilot = simulated.pilot(3)
    simulated.fault("killmail", kind, seconds=3, count=1, killmail_id=simulated.list_of(pilot)[-1])

    sync(pilot)

    assert (only_row().state, only_row().attempts) == ("pending", 0)
    assert wake() is not None


def test_downtime_closes_the_road_and_costs_the_rest_no_attempt(simulated, sync, later, tick, post):
    pilot = simulated.pilot(9)
    simulated.fault("killmail", "status:503")
    simulated.fault("status", "status:503")

    sync(pilot)

    attempts = sorted(row.attempts for row in rows().values())
    assert attempts == [0, 0, 0, 0, 0, 1, 1, 1, 1], "the fifth failure closes the road"
    assert {row.state for row in rows().values() if row.attempts == 0} == {"pending"}
    assert len(simulated.asked("killmail")) == 5
    assert wake() is not None

    simulated.mend()
    for _ in range(3):
        later(120)
        tick()
    assert stored() == simulated.list_of(pilot)
    assert only_sync().state == SyncState.FINISHED


@pytest.mark.parametrize(("first", "last"), [(0, 3), (27, 30), (0, 6)])
def test_killmails_that_always_answer_504_fail_alone(simulated, sync, later, tick, first, last):
    """Of thirty, the newest or the oldest. After five failures in a row `/status` tells that ESI is up."""
    pilot, other = simulated.pilot(30), simulated.pilot()
    poisoned = set(simulated.list_of(pilot)[first:last])
    for killmail_id in poisoned:
        simulated.fault("killmail", "status:504", killmail_id=killmail_id)

    sync(pilot)
    for _ in range(14):
        later(61)
        tick()

    done = only_sync()
    assert (done.state, done.saved, done.failed) == (SyncState.FINISHED, 30 - len(poisoned), len(poisoned))
    assert set(rows()) == poisoned
    # And they do not keep another pilot's waiting, who comes while they are tried again
    simulated.fight(other, 5)
    asked = sync(other)
    later(61)
    tick()
    assert Sync.get_by_id(asked.id).state == SyncState.FINISHED
    assert set(stored()) >= set(simulated.list_of(other))


def test_a_long_downtime_of_one_pilot_costs_no_more_than_finding_it_out(simulated, sync, later, tick):
    pilot = simulated.pilot(20)
    simulated.fault("killmail", "status:503")
    simulated.fault("status", "status:503")

    sync(pilot)
    for _ in range(10):
        later(61)
        tick()

    # The four failures before the gate was closed, and a few looks that are a killmail's and not /status's
    assert sum(row.attempts for row in rows().values()) <= 4
    simulated.mend()
    for _ in range(2):
        later(61)
        tick()
    assert stored() == simulated.list_of(pilot)


def test_a_route_that_is_down_for_all_pilots_is_probed_by_one_after_the_other(simulated, crew, later, tick):
    """`/status` answers all the while, so that each probe's killmail pays for it: one that has not been tried."""
    pilots = [simulated.pilot(10) for _ in range(4)]
    simulated.fault("killmail", "status:503")
    for pilot in pilots:
        ask(pilot)
    crew.drain()
    for _ in range(5):
        later(61)
        tick()
    attempts = [row.attempts for row in rows().values()]
    assert (max(attempts), len(attempts)) == (1, 40)
    assert {sync.state for sync in Sync.select()} == {SyncState.FETCHING}
    simulated.mend()
    for _ in range(2):
        later(61)
        tick()
    assert rows() == {}
    assert {sync.state for sync in Sync.select()} == {SyncState.FINISHED}


def test_a_killmail_that_two_pilots_want_is_asked_for_once_and_ends_both_syncs(simulated, sync):
    one, other = simulated.pilot(), simulated.pilot()
    shared = simulated.fight(one, 4, other)
    first, second = sync(one), sync(other)
    assert (first.state, first.saved) == (SyncState.FINISHED, 4)
    assert (second.state, second.saved, second.skipped) == (SyncState.FINISHED, 0, 4)
    assert sorted(entry.killmail_id or 0 for entry in simulated.asked("killmail")) == sorted(shared)


def test_one_event_is_told_for_each_stored_killmail(simulated, sync, crew):
    told: list[object] = []
    events.subscribe(told.append)
    pilot = simulated.pilot(3)
    done = sync(pilot)
    events.close()
    assert sorted(n.killmail_id for n in told if isinstance(n, events.KillmailStored)) == sorted(
        simulated.list_of(pilot)
    )
    assert told.count(events.SyncFinished(done.id)) == 1


def test_one_killmail_alone_finds_a_downtime_out_and_does_not_pay_for_it(simulated, sync, later, tick):
    """It has as many tries as it takes: an outage of minutes must not end its sync without it."""
    pilot = simulated.pilot(1)
    simulated.fault("killmail", "status:503")
    simulated.fault("status", "status:503")
    sync(pilot)
    for _ in range(6):
        later(61)
        tick()
    assert only_sync().state == SyncState.FETCHING
    simulated.mend()
    for _ in range(2):
        later(61)
        tick()
    assert stored() == simulated.list_of(pilot)
    assert only_sync().failed == 0


def test_a_hash_that_is_none_gives_way_to_the_one_that_esi_lists(simulated, sync, later, tick):
    """A hand has written it: nothing can be asked for with it, and the list knows better."""
    pilot = simulated.pilot(3)
    simulated.fault("killmail", "status:500")
    sync(pilot)
    Fetch.update(killmail_hash="zz").execute()
    simulated.mend()
    later(100)
    tick()
    assert {row.state for row in rows().values()} == {"rejected"}
    later(100_000)
    done = sync(pilot, trigger=Trigger.SCHEDULE)
    assert (done.state, done.saved) == (SyncState.FINISHED, 3)
    assert stored() == simulated.list_of(pilot)
