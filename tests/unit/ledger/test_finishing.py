"""The end of a sync: found when nothing is left to wait for, counted, written once; and the live counts before it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import ledger
from database import execute, utcnow
from ledger import Finished, Progress
from models import SyncState, Trigger, User
from tests.unit.ledger.world import (
    COOLDOWN,
    HOUR,
    add_page,
    counts,
    end_listing,
    failed,
    finished,
    joined,
    listed,
    lose_leases,
    opened,
    reading,
    rejected,
    row,
    stored,
    sync_row,
    user_row,
)


def test_a_sync_is_done_when_nothing_it_wanted_is_still_to_come(user):
    sync_id = listed(user, [1, 2, 3, 4])
    stored(1)
    rejected(2)
    failed(3, times=4)
    assert ledger.ready_to_finish([sync_id]) == ledger.ready_to_finish() == []
    assert ledger.finalize(sync_id, COOLDOWN) is None
    stored(4)
    assert ledger.ready_to_finish([sync_id]) == ledger.ready_to_finish() == [sync_id]


@pytest.mark.parametrize("state", ["pending", "sent", "fetching", "deferred"])
def test_a_row_in_any_state_but_settled_is_waited_for(user, state):
    sync_id = listed(user, [1])
    execute("UPDATE ledger SET state = ?, attempts = 3", (state,))
    assert ledger.ready_to_finish() == []
    assert ledger.finalize(sync_id, COOLDOWN) is None
    execute("UPDATE ledger SET attempts = 4")
    assert ledger.ready_to_finish() == [sync_id]


def test_a_sync_that_is_still_listing_is_not_done(user, other):
    queued = opened(other)
    sync = add_page(reading(user), [1], pages=2).sync
    stored(1)
    assert ledger.ready_to_finish() == ledger.ready_to_finish([sync.sync_id, queued]) == []
    assert ledger.finalize(sync.sync_id, COOLDOWN) is None
    end_listing(sync)
    assert ledger.ready_to_finish() == [sync.sync_id]


def test_only_those_asked_about_are_told(user, other):
    first, second = listed(user, []), listed(other, [])
    assert ledger.ready_to_finish([first]) == [first]
    assert ledger.ready_to_finish([]) == []
    assert sorted(ledger.ready_to_finish()) == [first, second]


def test_a_sync_of_nothing_finishes(user):
    sync_id = listed(user, [])
    assert finished(sync_id) == Finished(sync_id, user.id, 0, 0, 0, 0, None)


def test_a_sync_ends_once_and_says_how(user, other):
    listed(other, [1, 2])
    stored(1, 2)
    sync_id = listed(user, [1, 2, 3, 4, 5, 6])
    stored(3, 4)
    rejected(5)
    failed(6, times=4)
    result = finished(sync_id)
    assert result == Finished(sync_id, user.id, found=6, saved=2, skipped=2, failed=2, last_killmail_id=4)
    assert counts(sync_id) == (6, 2, 2, 2)
    sync = sync_row(sync_id)
    assert (sync.state, sync.waiting_until) == (SyncState.FINISHED, None)
    assert sync.finished_at >= sync.started_at
    # When it is told to end once more
    assert ledger.finalize(sync_id, COOLDOWN) is None
    assert ledger.ready_to_finish([sync_id]) == []
    assert sync_id not in ledger.ready_to_finish()
    assert sync_row(sync_id).finished_at == sync.finished_at


def test_the_user_sees_when_how_far_and_when_next(user):
    User.update(consecutive_failures=3).execute()
    sync_id = listed(user, [10, 30, 20])
    stored(10, 20, 30)
    finished(sync_id)
    after, sync = user_row(user), sync_row(sync_id)
    assert after.last_killmail_sync_at == sync.finished_at
    assert after.next_sync_at == sync.finished_at + COOLDOWN
    assert (after.last_killmail_id, after.consecutive_failures) == (30, 0)


def test_the_last_killmail_is_the_highest_that_is_stored_of_this_users_own(user, other):
    listed(other, [90])
    stored(90)
    sync_id = listed(user, [10, 80])
    stored(10)
    failed(80, times=4)
    assert finished(sync_id).last_killmail_id == 10
    # A sync that finds nothing new does not lose it
    assert finished(listed(user, [10], force=True)).last_killmail_id == 10


def test_a_full_sync_asked_for_meanwhile_is_due_at_once_and_made_by_the_next(user):
    sync_id = listed(user, [])
    joined(user, full=True)
    finished(sync_id)
    assert user_row(user).next_sync_at <= utcnow()
    (following,) = ledger.open_due_syncs(10)
    assert sync_row(following).full
    assert not user_row(user).full_requested


def test_who_may_not_be_synced_any_more_is_not_made_due_by_the_end(user):
    sync_id = listed(user, [])
    User.update(next_sync_at=None, full_requested=True).execute()
    finished(sync_id)
    assert user_row(user).next_sync_at is None
    assert user_row(user).last_killmail_sync_at is not None


def test_nobody_elses_user_is_touched(user, other):
    finished(listed(user, []))
    assert user_row(other).last_killmail_sync_at is None
    assert user_row(other).next_sync_at == other.next_sync_at


def test_progress_is_live(user, other):
    listed(other, [1])
    stored(1)
    sync = add_page(reading(user), [1, 2, 3, 4, 5], pages=2).sync
    assert _progress(sync.sync_id) == Progress(saved=0, failed=0, pending=4)
    stored(2)
    failed(3, times=3)
    retrying = _progress(sync.sync_id)
    assert replace(retrying, retry_at=None) == Progress(saved=1, failed=0, pending=3, retrying=1)
    assert retrying.retry_at == row(3).not_before
    failed(3)
    rejected(4)
    assert _progress(sync.sync_id) == Progress(saved=1, failed=2, pending=1)
    end_listing(sync)
    stored(5)
    assert _progress(sync.sync_id) == Progress(saved=2, failed=2, pending=0)


def test_progress_of_several_and_of_none(user, other):
    first, second = listed(user, []), listed(other, [1])
    assert ledger.sync_progress([first, second]) == {first: Progress(0, 0, 0), second: Progress(0, 0, 1)}
    assert ledger.sync_progress([]) == {}
    assert ledger.sync_progress([4711]) == {}


def test_progress_and_result_agree(user):
    sync_id = listed(user, range(1, 8), Trigger.LOGIN)
    stored(1, 2, 3)
    rejected(4)
    for killmail_id in (5, 6, 7):
        failed(killmail_id, times=4)
    progress = _progress(sync_id)
    result = finished(sync_id)
    assert (progress.saved, progress.failed, progress.pending) == (result.saved, result.failed, 0)


def test_a_queued_sync_of_an_earlier_hour_is_not_taken_for_a_done_one(user):
    sync_id = opened(user)
    User.update(next_sync_at=utcnow() - HOUR).execute()
    assert ledger.ready_to_finish() == []
    assert ledger.finalize(sync_id, COOLDOWN) is None


def _progress(sync_id: int) -> Progress:
    return ledger.sync_progress([sync_id])[sync_id]


def test_a_sync_with_nothing_new_ends_in_one_go(user):
    first = listed(user, [1, 2])
    stored(1)
    stored(2)
    finished(first)
    User.update(consecutive_failures=2, full_requested=False, last_sync_complete=False).execute()
    sync = reading(user, force=True)
    before = utcnow()

    assert ledger.finish_unchanged(sync, fresh_for=300.0, cooldown=COOLDOWN)

    row, after = sync_row(sync.sync_id), user_row(user)
    assert (row.state, row.claimed_until, row.saved, row.failed, row.error) == (SyncState.FINISHED, None, 0, 0, None)
    assert row.finished_at >= before
    assert (after.last_killmail_id, after.consecutive_failures, after.last_sync_complete) == (2, 0, True)
    assert after.last_killmail_sync_at == row.finished_at
    assert after.next_sync_at == row.finished_at + COOLDOWN
    assert (after.list_fresh_until - row.finished_at).total_seconds() == 300
    assert ledger.finalize(sync.sync_id, COOLDOWN) is None, "it has ended once"


@pytest.mark.parametrize("wish", [{"full": True}, {"trigger": Trigger.LOGIN}])
def test_what_was_asked_for_meanwhile_ends_it_the_long_way(user, wish):
    sync = reading(user)
    joined(user, **wish)
    assert not ledger.finish_unchanged(sync, fresh_for=0.0, cooldown=COOLDOWN)
    assert sync_row(sync.sync_id).state == SyncState.LISTING


def test_who_lost_the_lease_ends_nothing_in_one_go(user):
    sync = reading(user)
    lose_leases()
    ledger.claim_sync(sync.sync_id)
    before = user_row(user).last_killmail_sync_at
    assert not ledger.finish_unchanged(sync, fresh_for=0.0, cooldown=COOLDOWN)
    assert (sync_row(sync.sync_id).state, user_row(user).last_killmail_sync_at) == (SyncState.LISTING, before)


def test_a_list_half_read_is_not_unchanged(user):
    sync = add_page(reading(user), [1], pages=2).sync
    stored(1)
    assert not ledger.finish_unchanged(sync, fresh_for=0.0, cooldown=COOLDOWN)


def test_a_user_who_may_not_be_synced_any_more_stays_so_in_one_go(user):
    sync = reading(user)
    User.update(next_sync_at=None).execute()
    assert ledger.finish_unchanged(sync, fresh_for=0.0, cooldown=COOLDOWN)
    assert user_row(user).next_sync_at is None


def test_whether_a_sync_is_complete_is_found_among_its_own_killmails(user, other, plans):
    """Given statistics that know of one sync only, Then its killmails are not read through for another one's."""
    listed(other, range(1, 3001))
    execute("ANALYZE")
    sync_id = listed(user, [5001, 5002])
    seen = plans(ledger.finishing)
    assert ledger.ready_to_finish([sync_id]) == []
    (plan,) = seen
    assert not re.search(r"Seq Scan on (ledger|sync_items)|SCAN [il]\b", plan), plan
    # By the primary key, which begins with the sync, and not in the order of another index
    assert re.search(r"\(sync_id >= s\.id\) AND \(sync_id <= s\.id\)|\(sync_id>\? AND sync_id<\?\)", plan), plan
