"""open_sync: at most one active sync a user, whoever asks and however often."""

from __future__ import annotations

from datetime import timedelta

import pytest

import ledger
from database import utcnow
from ledger import Outcome
from ledger.rules import LAST_TURN
from models import Sync, SyncState, Trigger, User
from tests.unit.ledger.world import (
    COOLDOWN,
    HOUR,
    add_page,
    claimed,
    end_listing,
    failed,
    finished,
    joined,
    listed,
    make_user,
    opened,
    reading,
    row,
    send_syncs,
    sync_row,
    user_row,
)


@pytest.mark.parametrize(
    ("trigger", "priority"), [(Trigger.LOGIN, 8), (Trigger.WEB, 8), (Trigger.MANUAL, 5), (Trigger.SCHEDULE, 3)]
)
def test_a_new_sync_is_queued_at_the_priority_of_who_asks(user, trigger, priority):
    result = ledger.open_sync(user.id, trigger, cooldown=COOLDOWN)
    assert (result.outcome, result.send, result.priority, result.full) == (Outcome.CREATED, True, priority, False)
    assert result.sync_id is not None
    sync = sync_row(result.sync_id)
    assert (sync.state, sync.priority, sync.trigger, sync.user_id) == (SyncState.QUEUED, priority, trigger, user.id)
    assert sync.sent_at is None, "rows only: the dispatcher sends"
    assert sync.next_page == 1


def test_a_process_that_cannot_send_leaves_it_to_the_tick(user):
    result = ledger.open_sync(user.id, Trigger.MANUAL, cooldown=COOLDOWN)
    assert [sync.sync_id for sync in send_syncs()] == [result.sync_id]


@pytest.mark.parametrize("trigger", [Trigger.LOGIN, Trigger.SCHEDULE])
def test_who_may_not_be_synced_gets_none(trigger):
    result = ledger.open_sync(make_user(next_sync_at=None).id, trigger, cooldown=COOLDOWN, full=True, force=True)
    assert (result.outcome, result.sync_id, result.send) == (Outcome.NOT_ELIGIBLE, None, False)
    assert ledger.open_sync(4711, trigger, cooldown=COOLDOWN).outcome is Outcome.NOT_ELIGIBLE
    assert Sync.select().count() == 0


def test_the_cooldown_is_counted_from_the_last_sync_and_says_when_it_ends(user):
    last = utcnow() - timedelta(minutes=29)
    User.update(last_killmail_sync_at=last).execute()
    result = ledger.open_sync(user.id, Trigger.WEB, cooldown=COOLDOWN)
    assert (result.outcome, result.sync_id, result.send) == (Outcome.COOLDOWN, None, False)
    assert (result.last_synced_at, result.cooldown_ends_at) == (last, last + COOLDOWN)
    assert Sync.select().count() == 0
    # When it is over, a sync is made
    User.update(last_killmail_sync_at=utcnow() - COOLDOWN - timedelta(seconds=1)).execute()
    assert ledger.open_sync(user.id, Trigger.WEB, cooldown=COOLDOWN).outcome is Outcome.CREATED


def test_a_sync_of_the_future_has_no_cooldown(user):
    """A clock was ahead when it ended, and has been set back since; another machine's may be a little ahead."""
    User.update(last_killmail_sync_at=utcnow() + timedelta(minutes=1)).execute()
    assert ledger.open_sync(user.id, Trigger.WEB, cooldown=COOLDOWN).outcome is Outcome.COOLDOWN
    User.update(last_killmail_sync_at=utcnow() + timedelta(days=2)).execute()
    assert ledger.open_sync(user.id, Trigger.WEB, cooldown=COOLDOWN).outcome is Outcome.CREATED


def test_force_ignores_the_cooldown(user):
    User.update(last_killmail_sync_at=utcnow()).execute()
    assert ledger.open_sync(user.id, Trigger.WEB, cooldown=COOLDOWN, full=True).outcome is Outcome.COOLDOWN
    assert ledger.open_sync(user.id, Trigger.WEB, cooldown=COOLDOWN, force=True).outcome is Outcome.CREATED


@pytest.mark.parametrize(
    ("columns", "asked", "full", "first"),
    [
        ({}, False, False, False),
        ({}, True, True, False),
        ({"last_full_sync_at": None}, False, True, True),
        ({"full_requested": True}, False, True, False),
        ({"last_full_sync_at": utcnow() - 25 * HOUR}, False, True, False),
        ({"last_full_sync_at": utcnow() - 23 * HOUR}, False, False, False),
    ],
)
def test_when_a_sync_is_a_full_one(columns, asked, full, first):
    user = make_user(**columns)
    result = ledger.open_sync(user.id, Trigger.LOGIN, cooldown=COOLDOWN, full=asked)
    assert (result.full, result.first) == (full, first)
    assert result.sync_id is not None
    assert sync_row(result.sync_id).full is full
    assert not user_row(user).full_requested  # used up


def test_an_ended_sync_is_joined_by_nobody(user):
    first = listed(user, [])
    finished(first)
    assert opened(user, force=True) != first


# Joining


def test_asking_again_makes_no_second_sync_and_sends_no_second_message(user):
    sync_id = opened(user)
    send_syncs()
    again = joined(user)
    assert (again.sync_id, again.send) == (sync_id, False)
    assert Sync.select().count() == 1
    assert send_syncs() == []


def test_a_queued_sync_that_is_raised_is_sent_again(user):
    sync_id = opened(user)
    send_syncs()
    again = joined(user, Trigger.LOGIN)
    assert (again.sync_id, again.send, again.priority) == (sync_id, True, 8)
    assert [(sync.sync_id, sync.priority) for sync in send_syncs()] == [(sync_id, 8)]


def test_a_priority_is_never_lowered(user):
    sync_id = opened(user, Trigger.LOGIN)
    send_syncs()
    again = joined(user, Trigger.SCHEDULE)
    assert (again.send, again.priority) == (False, 8)
    assert sync_row(sync_id).priority == 8


def test_a_queued_sync_that_was_not_sent_yet_may_be_sent_by_the_one_who_joins(user):
    sync_id = opened(user)
    assert joined(user).send
    assert [sync.sync_id for sync in send_syncs()] == [sync_id]


def test_a_sync_at_work_is_raised_without_a_second_message(user):
    sync = reading(user)
    assert not joined(user, Trigger.LOGIN).send
    assert sync_row(sync.sync_id).priority == 8


def test_a_login_ends_the_wait_of_a_background_sync(user):
    """What background work leaves to logins is there for this one."""
    sync = add_page(reading(user), [1], pages=3).sync
    ledger.wait_with_sync(sync, utcnow() + HOUR, "ESI's allowance is used up")
    assert joined(user, Trigger.LOGIN).send
    after = sync_row(sync.sync_id)
    assert (after.waiting_until, after.waiting_for) == (None, None)
    assert claimed(sync.sync_id).page == 2


@pytest.mark.parametrize("reason", ["ESI asks to wait (429)", "ESI's copy of your killmail list is renewed then"])
def test_a_login_cuts_no_wait_short_that_esi_asks_for(user, reason):
    User.update(list_fresh_until=utcnow() + HOUR).where(User.id == user.id).execute()
    sync = reading(user)
    if "asks" in reason:
        sync = add_page(sync, [1], pages=3).sync  # page 2 is not in the cache
    ledger.wait_with_sync(sync, utcnow() + HOUR, reason)
    assert not joined(user, Trigger.LOGIN).send
    assert sync_row(sync.sync_id).waiting_for == reason


def test_a_script_that_joins_ends_no_wait(user):
    sync = reading(user)
    ledger.wait_with_sync(sync, utcnow() + HOUR, "ESI's allowance is used up")
    assert not joined(user, Trigger.MANUAL).send
    assert sync_row(sync.sync_id).waiting_until is not None


def test_a_raise_while_fetching_asks_for_a_dispatch(user):
    sync_id = listed(user, [1])
    assert joined(user, Trigger.LOGIN).dispatch
    assert not joined(user, Trigger.LOGIN).dispatch
    assert sync_row(sync_id).state == SyncState.FETCHING


def test_joining_raises_what_the_sync_waits_for_and_nothing_else(user, other):
    listed(other, [3, 4])
    sync_id = listed(user, [1, 2, 3])
    joined(user, Trigger.MANUAL)
    assert sync_row(sync_id).priority == 5
    assert {id_: row(id_).priority for id_ in (1, 2, 3, 4)} == {1: 5, 2: 5, 3: 5, 4: 3}


def test_joining_lowers_nothing(user, other):
    listed(other, [1], Trigger.LOGIN)
    listed(user, [1, 2])
    joined(user, Trigger.MANUAL)
    assert (row(1).priority, row(2).priority) == (8, 5)


def test_a_pilot_who_asks_in_person_gets_a_fresh_try_of_what_was_given_up(user, other):
    sync_id = listed(user, [1])
    failed(1, times=4)
    listed(other, [2])
    failed(2)
    assert ledger.ready_to_finish([sync_id]) == [sync_id]
    joined(user, Trigger.WEB)
    assert (row(1).state, row(1).attempts, row(1).not_before) == ("pending", 0, None)
    assert ledger.ready_to_finish([sync_id]) == []
    assert row(2).state == "deferred"  # not this pilot's


def test_what_was_refused_gets_one_try_when_a_pilot_asks_and_stays_behind_everything_else(user):
    """Those that a pilot hurried are too close together to prove that there is no such killmail."""
    listed(user, [1])
    failed(1, times=4, refused=True)
    joined(user, Trigger.WEB)
    assert (row(1).state, row(1).attempts, row(1).refusals) == ("pending", 0, 1)
    assert row(1).turn >= LAST_TURN
    assert failed(1, refused=True), "that was the one"
    ledger.retry_given_up(user.id, 8)
    assert (row(1).attempts, row(1).refusals) == (0, 1)
    assert row(1).turn >= LAST_TURN


def test_a_script_that_joins_gives_no_fresh_try(user):
    listed(user, [1])
    failed(1)
    joined(user, Trigger.MANUAL)
    assert (row(1).state, row(1).attempts, row(1).priority) == ("deferred", 1, 5)


def test_a_list_that_did_not_change_still_gives_its_killmails_a_fresh_try(user, other):
    """A 304 brings no page that would do it."""
    listed(user, [1, 2, 3])
    listed(other, [4])
    failed(1, times=4)
    failed(2)
    failed(4)
    assert ledger.retry_given_up(user.id, 8) == 2
    for killmail_id in (1, 2):
        again = row(killmail_id)
        assert (again.state, again.attempts, again.not_before, again.priority) == ("pending", 0, None, 8)
    assert (row(3).state, row(3).priority, row(4).state) == ("sent", 3, "deferred")
    assert ledger.retry_given_up(user.id, 8) == 0


def test_a_fresh_try_lowers_no_priority(user):
    listed(user, [1], Trigger.LOGIN)
    failed(1)
    ledger.retry_given_up(user.id, 3)
    assert row(1).priority == 8


# A full sync asked for while one is active


def test_full_makes_a_queued_sync_a_full_one(user):
    sync_id = opened(user)
    assert joined(user, full=True).full
    assert sync_row(sync_id).full
    assert claimed(sync_id).full


def test_full_sends_a_list_half_read_back_to_page_one(user):
    sync = add_page(reading(user), [1, 2], pages=3).sync
    joined(user, full=True)
    # When the worker comes with page 2
    added = add_page(sync, [3, 4], pages=3)
    # Then nothing of it is written, and it goes on with page 1, as a full sync
    assert (added.written, added.new, added.sync.page, added.sync.full) == (False, 0, 1, True)
    assert sync_row(sync.sync_id).next_page == 1
    assert add_page(added.sync, [1, 2], pages=3).written


def test_full_asked_of_a_full_sync_sends_nothing_back(user):
    sync = add_page(reading(user, full=True), [1], pages=2).sync
    joined(user, full=True)
    assert add_page(sync, [2], pages=2).written


def test_full_asked_while_fetching_makes_the_next_sync_a_full_one(user):
    sync_id = listed(user, [1])
    assert joined(user, full=True).full
    assert not sync_row(sync_id).full
    assert user_row(user).full_requested


def test_full_asked_when_the_last_page_was_read_is_not_lost(user):
    """The worker has read the last page, or a 304, and comes to say that the list is at its end."""
    sync = add_page(reading(user), [1]).sync
    joined(user, full=True)
    ended = ledger.end_listing(sync, etag="e", fresh_for=0, complete=True)
    later = sync_row(sync.sync_id)
    read_again = not ended and later.state == SyncState.LISTING and later.full and later.next_page == 1
    assert read_again or user_row(user).full_requested
    # And where this one goes on, it goes on with what it has counted
    assert read_again or later.found == 1


def test_full_asked_before_a_304_is_not_lost(user):
    sync = reading(user)
    joined(user, full=True)
    ended = ledger.end_listing(sync, etag="e", fresh_for=0, complete=True)
    assert not ended or user_row(user).full_requested


def test_full_asked_while_the_sync_waits_counts_nothing_twice(user):
    """The next worker to read the list knows nothing of what the first has read."""
    sync = add_page(reading(user), [1, 2], pages=2).sync
    assert ledger.wait_with_sync(sync, utcnow() - HOUR, "ESI asks to wait")
    joined(user, full=True)
    seen: set[int] = set()
    again = add_page(claimed(sync.sync_id), [1, 2], pages=2, seen=seen).sync
    end_listing(add_page(again, [3], pages=2, seen=seen).sync)
    assert sync_row(sync.sync_id).found == 3
