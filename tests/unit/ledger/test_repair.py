"""The tick's repairs: what a lost message or a dead process left is found again, once, and nothing else is touched."""

from __future__ import annotations

from datetime import timedelta

import pytest

import ledger
from database import execute, utcnow
from ledger import OutgoingSync
from ledger.rules import (
    ATTEMPTS_BEFORE_DEFERRED,
    DEATHS_APART,
    FETCH_BACKOFF,
    LAST_TURN,
    LIST_BACKOFF,
    SYNC_RESEND_AFTER,
)
from models import Lock, RefreshSlot, SyncState, Trigger, User
from tests.unit.ledger.world import (
    COOLDOWN,
    HOUR,
    add_page,
    claimed,
    counts,
    dispatch_all,
    failed,
    listed,
    lose_leases,
    lose_messages,
    make_due,
    make_user,
    opened,
    reading,
    rejected,
    row,
    row_state,
    send_syncs,
    settle,
    stored,
    sync_row,
    taken,
    user_row,
)


def test_nothing_is_repaired_that_is_in_good_hands(user, other):
    listed(user, [1, 2, 3])
    taken(1)
    failed(2)
    reading(other)
    opened(make_user())
    assert len(send_syncs()) == 1
    assert ledger.take_back_expired() == 0
    assert send_syncs() == []
    assert {id_: row_state(id_) for id_ in (1, 2, 3)} == {1: "fetching", 2: "deferred", 3: "sent"}


def test_a_message_that_went_astray_costs_no_attempt(user):
    listed(user, [1])
    dispatch_all()
    lose_leases()
    assert ledger.take_back_expired() == 1
    assert (row(1).state, row(1).attempts, row(1).claimed_until, row(1).last_error) == ("pending", 0, None, None)
    assert ledger.take_back_expired() == 0


def test_a_dead_workers_row_costs_an_attempt(user):
    listed(user, [1])
    taken(1)
    lose_leases()
    assert ledger.take_back_expired() == 1
    assert (row(1).state, row(1).attempts, row(1).claimed_until) == ("pending", 1, None)
    assert "went away" in row(1).last_error


def test_only_what_ran_out_is_taken_back(user):
    listed(user, [1, 2])
    dispatch_all()
    execute("UPDATE ledger SET claimed_until = ? WHERE killmail_id = 1", (utcnow() - timedelta(milliseconds=1),))
    assert ledger.take_back_expired() == 1
    assert (row_state(1), row_state(2)) == ("pending", "sent")


def killed_its_worker(killmail_id: int) -> None:
    """Its wait is over, a worker takes it up and goes away, and the tick finds that out."""
    make_due(killmail_id)
    taken(killmail_id)
    execute("UPDATE ledger SET claimed_until = ? WHERE killmail_id = ?", (utcnow() - HOUR, killmail_id))
    assert ledger.take_back_expired() == 1


def test_a_killmail_that_kills_its_workers_is_put_off_like_any_other(user):
    sync_id = listed(user, [1, 2])
    for _ in range(ATTEMPTS_BEFORE_DEFERRED):
        killed_its_worker(1)
    assert (row(1).state, row(1).attempts) == ("deferred", ATTEMPTS_BEFORE_DEFERRED)
    assert row(1).not_before > utcnow() + timedelta(minutes=10)
    assert ledger.ready_to_finish() == []
    stored(2)
    assert ledger.ready_to_finish() == [sync_id]


def test_the_longer_a_killmail_kills_its_workers_the_longer_it_waits_and_behind_all_others(user):
    listed(user, [1])
    for attempt in range(1, len(FETCH_BACKOFF) + 3):
        killed_its_worker(1)
        assert row(1).attempts == attempt
        if attempt < ATTEMPTS_BEFORE_DEFERRED:
            continue
        expected = FETCH_BACKOFF[min(attempt, len(FETCH_BACKOFF)) - 1]
        assert 0.7 * expected < row(1).not_before - utcnow() < 1.3 * expected
        assert 2 * LAST_TURN <= row(1).turn < 3 * LAST_TURN
        make_due(1)
        assert taken(1).put_behind, "it shares what doubtful killmails may ask for"
        ledger.give_back([1])
        execute("UPDATE ledger SET state = 'pending' WHERE killmail_id = 1")


def test_what_died_together_comes_back_apart(user, other):
    """One of them kills its worker: the others must not be with it each time, or they would be given up as well."""
    listed(user, range(1, 21))
    for killmail_id in range(1, 21):
        taken(killmail_id)
    lose_leases()
    assert ledger.take_back_expired() == 20
    assert {row_state(id_) for id_ in range(1, 21)} == {"pending"}, "the first time is most often a restart"
    for killmail_id in range(1, 21):
        taken(killmail_id)
    lose_leases()
    assert ledger.take_back_expired() == 20
    times = sorted(row(id_).not_before for id_ in range(1, 21))
    assert times[-1] - times[0] > DEATHS_APART / 4
    assert len(set(times)) > 10
    assert times[-1] <= utcnow() + DEATHS_APART


def test_where_only_one_process_works_a_killmail_that_kills_it_is_put_off_too(user):
    """The process that starts again finds what the last one held."""
    listed(user, [1, 2])
    for attempt in range(1, ATTEMPTS_BEFORE_DEFERRED + 1):
        make_due(1)
        taken(1)
        ledger.reset_unfinished()
        assert (row(1).attempts, row(2).attempts, row_state(2)) == (attempt, 0, "pending")
    assert row(1).turn >= 2 * LAST_TURN
    assert row(1).not_before > utcnow() + timedelta(minutes=10)


def test_what_failed_and_then_killed_a_worker_counts_together(user):
    listed(user, [1])
    failed(1, times=3)
    execute("UPDATE ledger SET not_before = ?", (utcnow(),))
    taken(1)
    lose_leases()
    ledger.take_back_expired()
    assert (row(1).state, row(1).attempts) == ("deferred", 4)


def test_deferred_and_rejected_rows_are_none_of_its_business(user):
    listed(user, [1, 2])
    failed(1)
    rejected(2)
    lose_leases()
    assert ledger.take_back_expired() == 0


# Syncs


def test_a_sync_never_sent_is_sent_once(user):
    sync_id = opened(user, Trigger.MANUAL)
    assert send_syncs() == [OutgoingSync(sync_id, 5)]
    assert send_syncs() == []
    assert sync_row(sync_id).sent_at is not None


def test_a_sync_sent_too_long_ago_is_sent_again(user):
    sync_id = opened(user)
    age = SYNC_RESEND_AFTER - timedelta(seconds=5)
    execute("UPDATE syncs SET sent_at = ?", (utcnow() - age,))
    assert send_syncs() == []
    assert send_syncs(resend_after=timedelta(seconds=10)) == [OutgoingSync(sync_id, 3)]
    lose_messages()
    assert send_syncs() == [OutgoingSync(sync_id, 3)]
    assert sync_row(sync_id).attempts == 0


def test_the_most_urgent_first():
    syncs = [opened(make_user(), trigger) for trigger in (Trigger.SCHEDULE, Trigger.LOGIN, Trigger.MANUAL)]
    lose_messages()
    assert [sync.sync_id for sync in send_syncs()] == [syncs[1], syncs[2], syncs[0]]


def test_an_abandoned_sync_is_sent_again_and_taken_up_where_it_was_left(user):
    sync = add_page(reading(user), [1], pages=2).sync
    lose_leases()
    assert [sent.sync_id for sent in send_syncs()] == [sync.sync_id]
    assert send_syncs() == []
    again = claimed(sync.sync_id)
    assert (again.page, again.attempts) == (2, 1)


def test_an_abandoned_sync_whose_new_message_is_lost_too_is_sent_once_more(user):
    sync_id = reading(user).sync_id
    lose_leases()
    send_syncs()
    lose_messages()
    assert [sent.sync_id for sent in send_syncs()] == [sync_id]
    assert sync_row(sync_id).attempts == 1  # nobody has had it in between


def test_a_sync_that_waits_is_left_alone_until_its_wait_is_over(user):
    sync = reading(user)
    ledger.wait_with_sync(sync, utcnow() + HOUR, "downtime")
    assert send_syncs() == []
    lose_messages()
    assert [sent.sync_id for sent in send_syncs()] == [sync.sync_id]


def test_a_sync_whose_workers_go_away_again_and_again_fails(user):
    sync = add_page(reading(user), [1], pages=2).sync
    for attempt in range(len(LIST_BACKOFF)):
        lose_leases()
        assert len(send_syncs()) == 1, attempt
        claimed(sync.sync_id)
    lose_leases()
    assert ledger.fail_abandoned() == [sync.sync_id]
    assert send_syncs() == []
    after = sync_row(sync.sync_id)
    assert (after.state, after.finished_at is not None) == (SyncState.FAILED, True)
    assert after.error.startswith("gave up")
    assert counts(after.id) == (1, 0, 0, 1)
    assert user_row(user).next_sync_at > utcnow()
    # What it wrote down is fetched all the same
    stored(1)


def test_progress_in_between_counts_the_workers_anew(user):
    sync = reading(user)
    for page in range(2 * len(LIST_BACKOFF)):
        sync = add_page(sync, [page], pages=99).sync
        lose_leases()
        assert len(send_syncs()) == 1
        sync = claimed(sync.sync_id)
    assert sync_row(sync.sync_id).state == SyncState.LISTING


@pytest.mark.parametrize("ended", ["finished", "failed"])
def test_an_ended_sync_is_not_sent(user, ended):
    if ended == "finished":
        assert ledger.finalize(listed(user, []), COOLDOWN)
    else:
        assert ledger.fail_sync(opened(user), "no")
    lose_messages()
    lose_leases()
    assert send_syncs() == []


def test_a_sync_that_fetches_is_not_sent(user):
    listed(user, [1])
    lose_messages()
    lose_leases()
    assert send_syncs() == []


# Alone at start


def test_who_is_alone_takes_everything_back_at_once(user, other):
    queued = opened(make_user())
    fetching = listed(user, [1, 2, 3, 4, 5])
    rejected(1)
    failed(2)
    claim = taken(3)
    listing = reading(other).sync_id
    ledger.set_wake(utcnow() + HOUR)
    User.update(refresh_claimed_until=utcnow() + HOUR).execute()
    RefreshSlot.update(held_until=4e9).execute()
    # When the one process there is starts again
    ledger.reset_unfinished()
    # Then nothing is in anybody's hands
    assert {id_: row_state(id_) for id_ in range(1, 6)} == {
        1: "rejected",
        2: "deferred",
        3: "pending",
        4: "pending",
        5: "pending",
    }
    assert [sync.sync_id for sync in send_syncs()] == [queued, listing]
    assert claimed(listing).page == 1
    assert sync_row(fetching).state == SyncState.FETCHING
    assert ledger.set_wake(utcnow() + HOUR)
    assert User.select().where(User.refresh_claimed_until.is_null(False)).count() == 0
    assert RefreshSlot.select().where(RefreshSlot.held_until > 0).count() == 0
    assert settle(claim).stored, "a body that was received is kept"
    stored(4, 5)


def test_being_alone_twice_changes_nothing_more(user):
    sync_id = listed(user, [1])
    ledger.reset_unfinished()
    ledger.reset_unfinished()
    assert (row_state(1), sync_row(sync_id).state) == ("pending", SyncState.FETCHING)
    assert {lock.name for lock in Lock.select()} == {"dispatch", "links", "syncs"}
