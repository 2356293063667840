"""open_due_syncs: every user who is due, once."""

from __future__ import annotations

from datetime import timedelta

import ledger
from database import utcnow
from models import Sync, SyncState, Trigger, User
from tests.unit.ledger.world import HOUR, finished, listed, make_user, opened, sync_row, user_row


def test_only_who_is_due_and_has_none_active():
    due = make_user()
    make_user(next_sync_at=utcnow() + timedelta(seconds=60))
    make_user(next_sync_at=None)
    opened(make_user())
    (sync_id,) = ledger.open_due_syncs(100)
    sync = sync_row(sync_id)
    assert sync.user_id == due.id
    assert (sync.trigger, sync.priority, sync.state) == (Trigger.SCHEDULE, 3, SyncState.QUEUED)
    assert sync.sent_at is None, "rows only: the dispatcher sends"
    assert (sync.next_page, sync.found, sync.attempts) == (1, 0, 0)


def test_none_twice():
    make_user()
    assert len(ledger.open_due_syncs(100)) == 1
    assert ledger.open_due_syncs(100) == []


def test_the_longest_overdue_first_and_no_more_than_asked_for():
    users = [make_user(next_sync_at=utcnow() - timedelta(minutes=minutes)) for minutes in (1, 3, 2)]
    syncs = ledger.open_due_syncs(2)
    assert {sync_row(sync_id).user_id for sync_id in syncs} == {users[1].id, users[2].id}
    assert [sync_row(sync_id).user_id for sync_id in ledger.open_due_syncs(2)] == [users[0].id]


def test_whoever_is_synced_is_due_again_after_the_cooldown(user):
    (sync_id,) = ledger.open_due_syncs(100)
    sync = ledger.claim_sync(sync_id)
    assert sync is not None
    assert ledger.end_listing(sync, etag=None, fresh_for=0, complete=True)
    finished(sync_id)
    assert ledger.open_due_syncs(100) == []
    User.update(next_sync_at=utcnow() - HOUR).execute()
    assert len(ledger.open_due_syncs(100)) == 1


def test_when_it_is_a_full_one():
    usual = make_user()
    never = make_user(last_full_sync_at=None)
    yesterday = make_user(last_full_sync_at=utcnow() - 25 * HOUR)
    asked = make_user(full_requested=True)
    ledger.open_due_syncs(100)
    full = {sync.user_id: sync.full for sync in Sync.select()}
    assert full == {usual.id: False, never.id: True, yesterday.id: True, asked.id: True}


def test_a_full_one_that_was_asked_for_is_used_up_by_who_gets_it():
    first = make_user(full_requested=True, next_sync_at=utcnow() - HOUR)
    second = make_user(full_requested=True)
    ledger.open_due_syncs(1)
    assert not user_row(first).full_requested
    assert user_row(second).full_requested


def test_a_failed_sync_does_not_stand_in_the_way():
    user = make_user()
    sync_id = opened(user)
    assert ledger.fail_sync(sync_id, "no")
    User.update(next_sync_at=utcnow() - HOUR).execute()
    assert len(ledger.open_due_syncs(100)) == 1


def test_many_are_opened_in_one_go():
    for _ in range(60):
        make_user()
    assert len(set(ledger.open_due_syncs(1000))) == 60
    assert Sync.select(Sync.user).distinct().count() == 60


def test_a_killmail_still_to_be_fetched_holds_up_the_next_sync(user):
    listed(user, [1])
    assert ledger.open_due_syncs(100) == []
