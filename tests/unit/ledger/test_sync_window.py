"""Which syncs get a message next: a window is out at a time, interactive ones first, background with its share."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import chain

import pytest

import ledger
from database import db, execute, is_sqlite, utcnow
from ledger import Allowed, OutgoingSync, SyncRoom, pending_syncs, sync_window
from models import Lock, Sync, SyncState, Trigger, User
from tests.unit.ledger.world import (
    HOUR,
    PLENTY,
    claimed,
    dispatch_all,
    listed,
    lose_leases,
    lose_messages,
    make_user,
    opened,
    reading,
    send_syncs,
    sync_row,
)

BUSY = SyncRoom(100, fetching=0, share_interval=timedelta(milliseconds=200))


def queued(count: int, trigger: Trigger = Trigger.SCHEDULE) -> list[int]:
    return [opened(make_user(), trigger) for _ in range(count)]


def out() -> int:
    return Sync.select().where(Sync.sent_at.is_null(False)).count()


def test_no_more_than_a_window_is_out():
    syncs = queued(7)
    assert [sync.sync_id for sync in ledger.choose_syncs(SyncRoom(3))] == syncs[:3]
    assert ledger.choose_syncs(SyncRoom(3)) == []
    claimed(syncs[0])
    assert [sync.sync_id for sync in ledger.choose_syncs(SyncRoom(3))] == syncs[3:4]
    assert out() == 3


def test_an_interactive_sync_is_sent_whatever_background_is_out():
    queued(5)
    ledger.choose_syncs(SyncRoom(3))
    [login] = queued(1, Trigger.LOGIN)
    assert ledger.choose_syncs(SyncRoom(3)) == [OutgoingSync(login, 8)]


def test_who_asks_for_one_priority_sends_nothing_below_it():
    queued(2)
    [script] = queued(1, Trigger.MANUAL)
    [login] = queued(1, Trigger.LOGIN)
    assert ledger.choose_syncs(SyncRoom(PLENTY, lowest=8)) == [OutgoingSync(login, 8)]
    assert ledger.choose_syncs(SyncRoom(PLENTY, lowest=5)) == [OutgoingSync(script, 5)]


def test_background_keeps_a_share_of_a_window_full_of_interactive_syncs_and_goes_with_them():
    background = queued(30)
    logins = queued(60, Trigger.LOGIN)
    chosen = ledger.choose_syncs(SyncRoom(50))
    assert [sync.sync_id for sync in chosen] == logins[:50] + background[:5]
    assert {sync.priority for sync in chosen} == {8}
    assert ledger.choose_syncs(SyncRoom(50)) == []


def test_a_window_smaller_than_ten_keeps_a_share_as_well():
    queued(3)
    queued(10, Trigger.LOGIN)
    assert len(ledger.choose_syncs(SyncRoom(4))) == 5


def test_beside_a_logins_killmails_background_gets_one_at_a_time():
    first, second, *_ = queued(20)
    assert ledger.choose_syncs(BUSY) == [OutgoingSync(first, 8)]
    assert ledger.choose_syncs(BUSY) == [], "its message is out"
    sync = claimed(first)
    assert ledger.choose_syncs(BUSY) == [], "its list is being read"
    ledger.end_listing(sync, etag=None, complete=True)
    assert ledger.choose_syncs(BUSY) == [OutgoingSync(second, 8)]


def test_beside_a_logins_killmails_background_gets_a_tenth_of_the_requests():
    queued(20)
    many = SyncRoom(100, fetching=1000, share_interval=timedelta(milliseconds=200))
    assert len(ledger.choose_syncs(many)) == 5, "what was saved up in a second"
    assert ledger.choose_syncs(many) == []
    assert ledger.next_share() <= utcnow() + timedelta(milliseconds=200)
    Lock.update(next_share_at=utcnow() - timedelta(milliseconds=300)).where(Lock.name == "syncs").execute()
    assert len(ledger.choose_syncs(many)) == 2


def test_a_share_that_a_wrong_clock_put_off_is_not_believed():
    queued(1)
    Lock.update(next_share_at=utcnow() + HOUR).where(Lock.name == "syncs").execute()
    assert len(ledger.choose_syncs(BUSY)) == 1


def test_interactive_syncs_are_not_held_back_by_killmails():
    logins = queued(3, Trigger.LOGIN)
    assert [sync.sync_id for sync in ledger.choose_syncs(BUSY)] == logins


def test_a_probe_is_one_message_of_those_that_failed_least():
    syncs = queued(5)
    Sync.update(attempts=1).where(Sync.id != syncs[3]).execute()
    probe = SyncRoom(100, probe=True)
    assert [sync.sync_id for sync in ledger.choose_syncs(probe)] == [syncs[3]]
    assert ledger.choose_syncs(probe) == []


def test_without_the_login_service_only_users_with_a_valid_access_token_are_read():
    fresh, old, none = make_user(), make_user(), make_user()
    User.update(access_token="x", expires_at=utcnow() + HOUR).where(User.id == fresh.id).execute()
    User.update(access_token="x", expires_at=utcnow()).where(User.id == old.id).execute()
    syncs = [opened(user) for user in (none, old, fresh)]
    assert [sync.sync_id for sync in ledger.choose_syncs(SyncRoom(PLENTY, refreshes=0))] == syncs[2:]
    # And when its pause is over, one finds out whether it answers again: one that has not failed, if there is any.
    Sync.update(attempts=1).where(Sync.id == syncs[0]).execute()
    assert [sync.sync_id for sync in ledger.choose_syncs(SyncRoom(PLENTY, refreshes=1))] == [syncs[1]]


def test_the_login_service_is_probed_by_a_sync_that_needs_it_beside_those_that_do_not():
    with_token, without = make_user(access_token="x", expires_at=utcnow() + HOUR), make_user()
    syncs = [opened(user) for user in (with_token, without)]
    Sync.update(attempts=1).where(Sync.id == syncs[1]).execute()
    assert [sync.sync_id for sync in ledger.choose_syncs(SyncRoom(PLENTY, refreshes=1))] == syncs[1:] + syncs[:1]


@pytest.mark.parametrize("refreshes", [0, 1])
def test_where_esi_is_down_as_well_one_sync_finds_out_about_both_as_soon_as_the_login_service_may_be_asked(refreshes):
    """Or nobody would ever ask either of them."""
    queued(3)
    assert len(ledger.choose_syncs(SyncRoom(PLENTY, probe=True, refreshes=refreshes))) == refreshes
    fresh = opened(make_user(access_token="x", expires_at=utcnow() + HOUR))
    Sync.update(sent_at=None, attempts=1).execute()
    assert [each.sync_id for each in ledger.choose_syncs(SyncRoom(9, probe=True, refreshes=refreshes))] == [fresh]


def test_a_sync_behind_many_that_wait_for_the_login_service_is_found_in_the_end(monkeypatch):
    monkeypatch.setattr(pending_syncs, "LOOK", 3)
    closed = SyncRoom(PLENTY, refreshes=0)
    syncs = queued(10)
    assert ledger.choose_syncs(closed) == []
    assert ledger.more_to_look_at()
    login = opened(make_user(access_token="x", expires_at=utcnow() + HOUR), Trigger.LOGIN)
    assert [sync.sync_id for sync in ledger.choose_syncs(SyncRoom(PLENTY, lowest=8, refreshes=0))] == [login]
    User.update(access_token="x", expires_at=utcnow() + HOUR).where(
        User.id == Sync.get_by_id(syncs[7]).user_id
    ).execute()
    assert [sync.sync_id for sync in ledger.choose_syncs(closed)] == [syncs[7]]
    for _ in range(2):
        assert ledger.choose_syncs(closed) == []
    assert not ledger.more_to_look_at(), "to the end"
    # And the next round begins at the front
    User.update(access_token="x", expires_at=utcnow() + HOUR).execute()
    assert [sync.sync_id for sync in ledger.choose_syncs(closed)] == syncs[:6]


@pytest.mark.parametrize(
    "room",
    [SyncRoom(9, refreshes=0), SyncRoom(9, refreshes=1), SyncRoom(9, probe=True), SyncRoom(9, probe=True, refreshes=0)],
    ids=["login service closed", "login service probed", "ESI probed", "both"],
)
def test_a_closed_gate_costs_the_same_however_many_syncs_wait_for_it(monkeypatch, room):
    monkeypatch.setattr(pending_syncs, "LOOK", 20)
    queued(60)
    few = steps_of(room)
    queued(400)
    assert steps_of(room) < 2 * few


def steps_of(room: SyncRoom) -> int:
    """What SQLite does to choose, in hundreds of its machine's steps. PostgreSQL does not tell."""
    steps: list[int] = []
    if is_sqlite():
        db.connection().set_progress_handler(lambda: steps.append(1), 100)
    ledger.choose_syncs(room)
    if is_sqlite():
        db.connection().set_progress_handler(None, 0)
    Sync.update(sent_at=None).execute()
    return len(steps) + 1


def test_a_wait_that_is_over_makes_the_sync_pending(user):
    sync = reading(user)
    ledger.wait_with_sync(sync, utcnow() + HOUR, "ESI asks to wait")
    assert (send_syncs(), sync_row(sync.sync_id).sent_at) == ([], None)
    assert ledger.next_sync_wait() == sync_row(sync.sync_id).waiting_until
    execute("UPDATE syncs SET waiting_until = ?", (utcnow(),))
    assert [each.sync_id for each in send_syncs()] == [sync.sync_id]
    assert ledger.next_sync_wait() is None


def test_a_sync_of_dead_workers_is_left_to_the_tick_in_the_end(user):
    sync = reading(user)
    Sync.update(attempts=4).execute()
    lose_leases()
    assert send_syncs() == []
    assert ledger.fail_abandoned() == [sync.sync_id]


def test_of_messages_that_may_be_lost_only_so_many_are_taken_back():
    syncs = queued(5)
    send_syncs()
    assert ledger.overdue_messages(utcnow() - HOUR / 2) == (5, 0)
    lose_messages()
    before = utcnow() - HOUR / 2
    assert ledger.overdue_messages(before) == (5, 5)
    assert ledger.take_back_lost(before, 2) == 2
    assert [sync.sync_id for sync in ledger.choose_syncs(SyncRoom(PLENTY))] == syncs[:2]


def test_a_message_from_the_future_is_taken_back(user):
    """Its sender's clock was wrong."""
    sync_id = opened(user)
    send_syncs()
    execute("UPDATE syncs SET sent_at = ?", (utcnow() + HOUR,))
    assert [sync.sync_id for sync in send_syncs()] == [sync_id]


def test_what_could_not_be_sent_is_pending_again():
    syncs = queued(3)
    send_syncs()
    claimed(syncs[0])
    ledger.mark_unsent(syncs)
    assert [sync.sync_id for sync in send_syncs()] == syncs[1:]
    assert sync_row(syncs[0]).state == SyncState.LISTING


def test_a_wake_up_is_planned_once():
    at = utcnow() + timedelta(seconds=30)
    assert ledger.set_sync_wake(at)
    assert not ledger.set_sync_wake(at + timedelta(seconds=5))
    assert ledger.set_sync_wake(at - timedelta(seconds=5))
    ledger.forget_sync_wake(at - timedelta(seconds=5))
    assert ledger.set_sync_wake(at)


@pytest.mark.parametrize(("trigger", "there"), [(Trigger.LOGIN, True), (Trigger.SCHEDULE, False)])
def test_interactive_fetches_are_those_of_pilots_who_wait(user, trigger, there):
    listed(user, [1, 2], trigger)
    found = ledger.interactive_fetches()
    assert (bool(found), found.pending, found.sent, found.fetching) == (there, there, 0, 0)
    dispatch_all()
    ledger.claim(1)
    found = ledger.interactive_fetches()
    assert (found.pending, found.sent, found.fetching) == (False, int(there), int(there))


def test_a_background_killmail_that_goes_as_a_share_holds_no_list_back(user, other):
    """It goes as a login's, but no pilot waits for it."""
    listed(user, [1])
    listed(other, range(101, 111), Trigger.LOGIN)
    assert {(out.killmail_id, out.priority) for out in ledger.dispatch(Allowed(10, 0), PLENTY)} >= {(1, 8)}
    assert ledger.interactive_fetches().sent == 9


def test_what_a_login_gave_up_holds_no_list_back(user):
    listed(user, [1])
    execute("UPDATE ledger SET priority = 8")
    dispatch_all()
    assert not ledger.interactive_fetches()


def test_choosing_looks_at_indexes_and_not_at_every_sync(plans):
    """A hundred thousand syncs may be queued."""
    queued(5)
    seen = [plans(sync_window), plans(pending_syncs)]
    for room in (SyncRoom(3), BUSY, SyncRoom(3, refreshes=0), SyncRoom(3, refreshes=1), SyncRoom(3, probe=True)):
        ledger.choose_syncs(room)
    scans = [plan for plan in chain(*seen) if re.search(r"(SCAN|Seq Scan on) syncs(?! USING)", plan)]
    assert scans == [] or not is_sqlite(), scans
