"""The life of a sync while its list is read: claim, lease, wait, end, failure."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

import ledger
from database import execute, utcnow
from ledger.reading import Reading
from ledger.rules import FAILED_SYNC_BACKOFF, LIST_LEASE
from models import SyncState, Trigger, User
from tests.unit.ledger.world import (
    ETAG,
    HOUR,
    add_page,
    claimed,
    counts,
    end_listing,
    items,
    ledger_ids,
    links,
    listed,
    lose_leases,
    lose_messages,
    make_user,
    opened,
    reading,
    references,
    send_syncs,
    stored,
    sync_row,
    user_row,
)


def test_a_claim_takes_a_queued_sync_and_says_what_it_is(user):
    sync_id = opened(user, Trigger.MANUAL, full=True)
    sync = claimed(sync_id)
    assert (sync.sync_id, sync.user_id, sync.trigger, sync.priority) == (sync_id, user.id, "MANUAL", 5)
    assert (sync.full, sync.page, sync.attempts) == (True, 1, 0)
    taken = sync_row(sync_id)
    assert (taken.state, taken.claimed_until) == (SyncState.LISTING, sync.lease)
    assert taken.started_at is not None
    assert utcnow() < sync.lease <= utcnow() + LIST_LEASE


def test_a_doubled_message_finds_nothing_to_claim(user):
    sync_id = opened(user)
    claimed(sync_id)
    assert ledger.claim_sync(sync_id) is None


def test_what_is_over_or_unknown_is_claimed_by_nobody(user, other):
    assert ledger.claim_sync(4711) is None
    assert ledger.claim_sync(listed(user, [1])) is None
    failed = opened(other)
    ledger.fail_sync(failed, "no")
    assert ledger.claim_sync(failed) is None


def test_a_dead_workers_sync_is_taken_up_where_it_was_left(user):
    first = add_page(reading(user), [1], pages=3).sync
    started = sync_row(first.sync_id).started_at
    assert ledger.claim_sync(first.sync_id) is None
    lose_leases()
    again = claimed(first.sync_id)
    assert again.page == 2
    assert again.lease != first.lease
    assert sync_row(first.sync_id).started_at == started


def test_who_lost_the_lease_writes_nothing_more(user):
    """A worker that was thought dead wakes up after another has taken its sync."""
    slow = reading(user)
    lose_leases()
    quick = claimed(slow.sync_id)
    before = _everything()
    assert ledger.add_page(slow, references([1, 2]), reading=Reading(pages=1), etag=ETAG, seen=set()) is None
    assert not ledger.end_listing(slow, etag=ETAG, fresh_for=300, complete=True)
    assert not ledger.wait_with_sync(slow, utcnow() + HOUR, "no", failed=True)
    assert not ledger.fail_sync(slow.sync_id, "no", lease=slow.lease)
    assert _everything() == before
    # And the one that holds it goes on
    assert add_page(quick, [1, 2]).new == 2


def test_a_lease_that_ran_out_but_was_not_taken_writes_nothing_once_the_tick_saw_it(user):
    slow = reading(user)
    lose_leases()
    send_syncs()
    assert ledger.add_page(slow, references([1]), reading=Reading(pages=1), etag=ETAG, seen=set()) is None
    assert ledger_ids() == set()


def test_a_lost_lease_leaves_seen_alone(user):
    slow = reading(user)
    lose_leases()
    claimed(slow.sync_id)
    seen: set[int] = set()
    ledger.add_page(slow, references([1]), reading=Reading(pages=1), etag=ETAG, seen=seen)
    assert seen == set()


def test_each_page_extends_the_lease_and_only_the_newest_counts(user):
    first = reading(user)
    second = add_page(first, [1], pages=3).sync
    assert second.lease > first.lease
    assert sync_row(first.sync_id).claimed_until == second.lease
    assert ledger.add_page(first, references([2]), reading=Reading(pages=3), etag=None, seen=set()) is None


def test_a_user_who_left_stops_the_reading(user):
    sync = reading(user)
    ledger.unlink(user.id)
    assert ledger.add_page(sync, references([1]), reading=Reading(pages=1), etag=None, seen=set()) is None
    assert not ledger.end_listing(sync, etag=None, fresh_for=0, complete=True)
    assert not ledger.wait_with_sync(sync, utcnow(), "no")
    assert not ledger.fail_sync(sync.sync_id, "no")
    assert ledger_ids() == set()


# The end of the list


def test_the_end_of_the_list_is_what_the_next_sync_relies_on(user):
    sync = add_page(reading(user), [1]).sync
    assert ledger.end_listing(sync, etag="new", fresh_for=300, complete=True)
    ended = sync_row(sync.sync_id)
    assert (ended.state, ended.claimed_until, ended.finished_at, ended.error) == (SyncState.FETCHING, None, None, None)
    after = user_row(user)
    assert (after.list_etag, after.last_sync_complete) == ("new", True)
    assert utcnow() + timedelta(seconds=290) < after.list_fresh_until < utcnow() + timedelta(seconds=301)
    assert after.last_full_sync_at == user.last_full_sync_at


def test_esis_cache_is_respected_from_page_one_on(user):
    """A sync that is killed after page 1 must not make the next one ask for it before ESI has anything new."""
    sync = reading(user)
    first = ledger.add_page(sync, references([2]), reading=Reading(pages=2), etag=ETAG, fresh_for=300, seen=set())
    assert first is not None
    fresh_until = user_row(user).list_fresh_until
    assert utcnow() + timedelta(seconds=290) < fresh_until < utcnow() + timedelta(seconds=301)
    second = ledger.add_page(
        first.sync, references([1]), reading=Reading(pages=2), etag=None, fresh_for=9000, seen=set()
    )
    assert second is not None
    assert ledger.end_listing(second.sync, etag=ETAG, complete=True)
    assert user_row(user).list_fresh_until == fresh_until


def test_who_goes_on_with_the_list_knows_the_etag_of_page_one(user):
    sync = add_page(reading(user), [2], pages=2).sync
    lose_leases()
    assert claimed(sync.sync_id).page_one_etag == ETAG


def test_only_a_full_sync_counts_as_one(user):
    sync = reading(user, full=True)
    end_listing(sync)
    assert user_row(user).last_full_sync_at > user.last_full_sync_at


def test_a_list_that_was_cut_lets_nothing_stop_early(user):
    User.update(list_etag="old", last_sync_complete=True).execute()
    sync = reading(user, full=True)
    end_listing(sync, complete=False)
    after = user_row(user)
    assert (after.list_etag, after.last_sync_complete) == (None, False)
    assert after.last_full_sync_at == user.last_full_sync_at
    assert "SYNC_MAX_PAGES" in sync_row(sync.sync_id).error


def test_a_list_ends_once(user):
    sync = reading(user)
    end_listing(sync)
    assert not ledger.end_listing(sync, etag=ETAG, fresh_for=300, complete=True)


# Waiting


def test_a_waiting_sync_says_until_when_and_is_not_claimed_before(user):
    sync = add_page(reading(user), [1], pages=2).sync
    until = utcnow() + timedelta(minutes=5)
    assert ledger.wait_with_sync(sync, until, "downtime " + "x" * 1000)
    waiting = sync_row(sync.sync_id)
    assert (waiting.state, waiting.waiting_until, waiting.claimed_until) == (SyncState.LISTING, until, None)
    assert waiting.waiting_for.startswith("downtime")
    assert len(waiting.waiting_for) <= 300
    assert ledger.claim_sync(sync.sync_id) is None
    # When the time has come
    lose_messages()
    again = claimed(sync.sync_id)
    assert again.page == 2
    assert sync_row(sync.sync_id).waiting_until is None
    assert sync_row(sync.sync_id).waiting_for is None


def test_a_wait_spends_an_attempt_only_after_a_failure_and_a_page_gives_them_back(user):
    sync = reading(user)
    ledger.wait_with_sync(sync, utcnow(), "asked to")
    assert claimed(sync.sync_id).attempts == 0
    lose_leases()
    ledger.wait_with_sync(claimed(sync.sync_id), utcnow(), "failed", failed=True)
    again = claimed(sync.sync_id)
    assert again.attempts == 1
    assert add_page(again, [1], pages=2).sync.attempts == 0
    assert sync_row(sync.sync_id).attempts == 0


def test_a_sync_waits_once(user):
    sync = reading(user)
    assert ledger.wait_with_sync(sync, utcnow() + HOUR, "first")
    assert not ledger.wait_with_sync(sync, utcnow(), "second")
    assert sync_row(sync.sync_id).waiting_for == "first"


# Failure


def test_a_failed_sync_ends_and_what_it_wrote_down_stays_to_be_done(user):
    stored_before = listed(user, [1])
    stored(1)
    ledger.finalize(stored_before, timedelta(0))
    sync = add_page(reading(user, force=True), [1, 2, 3], pages=2).sync
    stored(2)
    assert ledger.fail_sync(sync.sync_id, "x" * 1000, lease=sync.lease)
    ended = sync_row(sync.sync_id)
    assert (ended.state, ended.claimed_until) == (SyncState.FAILED, None)
    assert ended.finished_at is not None
    assert ended.error == "x" * 300
    assert counts(sync.sync_id) == (3, 1, 1, 1)
    assert ledger_ids() == {3}
    assert items(sync.sync_id) == {3}
    assert links(user) == {1, 2, 3}
    # And what is left is fetched all the same
    stored(3)


@pytest.mark.parametrize(("before", "wait"), list(enumerate(FAILED_SYNC_BACKOFF)))
def test_failures_in_a_row_push_the_next_sync_further_out(before, wait):
    user = make_user(consecutive_failures=before, last_sync_complete=True)
    assert ledger.fail_sync(opened(user), "no")
    after = user_row(user)
    assert (after.consecutive_failures, after.last_sync_complete) == (before + 1, False)
    assert utcnow() + 0.79 * wait < after.next_sync_at < utcnow() + 1.21 * wait


def test_the_pushing_out_stops_at_the_last_step():
    user = make_user(consecutive_failures=50)
    ledger.fail_sync(opened(user), "no")
    assert user_row(user).next_sync_at < utcnow() + 1.21 * FAILED_SYNC_BACKOFF[-1]


def test_who_may_not_be_synced_any_more_is_not_made_due_by_a_failure(user):
    sync_id = opened(user)
    User.update(next_sync_at=None).execute()
    ledger.fail_sync(sync_id, "the refresh token was refused")
    assert user_row(user).next_sync_at is None


def test_a_failure_hides_no_cooldown(user):
    ledger.fail_sync(opened(user), "no")
    assert user_row(user).last_killmail_sync_at is None
    assert opened(user, Trigger.WEB)


def test_only_a_sync_that_is_still_to_be_listed_can_fail(user):
    sync_id = listed(user, [1])
    assert not ledger.fail_sync(sync_id, "late")
    assert sync_row(sync_id).state == SyncState.FETCHING
    assert user_row(user).consecutive_failures == 0


def _everything() -> list[object]:
    """All that a page, an end, a wait or a failure would change."""
    tables = ("syncs", "ledger", "sync_items", "user_killmails", "users")
    return [execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]


@pytest.mark.parametrize(
    ("so_far", "complete", "error"),
    [
        (Reading(pages=1), True, None),
        (Reading(pages=1, moved=True), True, None),
        (Reading(pages=1, unreadable=1), True, "1 entry of the list could not be read"),
        (Reading(pages=1, unreadable=2), True, "2 entries of the list could not be read"),
        (Reading(pages=9, unreadable=2), False, "2 entries of the list could not be read.*SYNC_MAX_PAGES"),
        (Reading(pages=9), False, "^the list is longer than SYNC_MAX_PAGES"),
    ],
)
def test_a_list_that_was_not_seen_whole_keeps_no_etag_and_says_what_it_lacks(user, so_far, complete, error):
    sync = reading(user, full=True)
    added = ledger.add_page(sync, references([1]), reading=so_far, etag=ETAG, seen=set())
    assert added is not None
    assert ledger.end_listing(added.sync, etag=ETAG, complete=complete)
    whole = complete and so_far.steady
    after = user_row(user)
    assert (after.last_sync_complete, after.list_etag) == (whole, ETAG if whole else None)
    told = sync_row(sync.sync_id)
    assert told.state == SyncState.FETCHING
    assert told.error is None if error is None else re.search(error, told.error)
    full_read = after.last_full_sync_at is not None and after.last_full_sync_at > utcnow() - HOUR / 2
    assert full_read == complete, "what was left out is not healed by reading it again as a full sync"


def test_when_page_one_was_read_and_last_brought_something_new(user):
    sync = reading(user)
    add_page(sync, [1, 2])
    first = user_row(user)
    assert first.list_read_at == first.list_changed_at == sync_row(sync.sync_id).started_at
    execute("UPDATE syncs SET state = 'FINISHED', finished_at = started_at")
    add_page(claimed(opened(user, force=True)), [1, 2])
    again = user_row(user)
    assert again.list_read_at > first.list_read_at
    assert again.list_changed_at == first.list_changed_at
