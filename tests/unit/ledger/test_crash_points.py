"""kill -9 between a commit and what was to be sent after it, and inside every lease: the tick finds the work again.

Each test stops the flow at one place, without the message that would have gone out; from there on only the tick runs,
and what the tick sends arrives. In the end everything is stored and the sync is finished, with nobody's help.
"""

from __future__ import annotations

import random

import pytest

import ledger
from ledger import ClaimedSync
from models import SyncState, Trigger, User
from tests.unit.ledger.world import (
    COOLDOWN,
    HOUR,
    add_page,
    claimed,
    counts,
    dispatch_all,
    end_listing,
    failed,
    joined,
    listed,
    lose_leases,
    lose_messages,
    make_due,
    opened,
    reading,
    row_state,
    send_syncs,
    settle,
    stored,
    stored_ids,
    sync_row,
    taken,
    user_row,
)

LIST = (1, 2, 3, 4)


def time_passes() -> None:
    """Longer than any lease, and than any message takes."""
    lose_leases()
    lose_messages()


def tick() -> list[int]:
    """What `tend_ledger` does, and what the messages it sends come to; returns the syncs that ended."""
    ledger.take_back_expired()
    for sync in send_syncs():
        read_list(claimed(sync.sync_id))
    ended = [sync_id for sync_id in ledger.ready_to_finish() if ledger.finalize(sync_id, COOLDOWN)]
    for sent in dispatch_all():
        claim = ledger.claim(sent.killmail_id)
        assert claim is not None
        assert settle(claim).stored
    return ended


def read_list(sync: ClaimedSync) -> None:
    """The list has two pages of two. The worker goes on with the page it was told."""
    seen: set[int] = set()
    while sync.page <= 2:
        sync = add_page(sync, LIST[2 * sync.page - 2 : 2 * sync.page], pages=2, seen=seen).sync
    end_listing(sync)


def recovers(sync_id: int) -> bool:
    """Whether two ticks are enough to end it, with everything stored and counted once."""
    ended = [*tick(), *tick()]
    assert ended == [sync_id]
    assert stored_ids() == set(LIST)
    assert counts(sync_id) == (4, 4, 0, 0)
    assert tick() == []  # and there is nothing left to do
    assert send_syncs() == []
    return bool(sync_row(sync_id).state == SyncState.FINISHED)


@pytest.mark.parametrize("trigger", list(Trigger))
def test_after_open(user, trigger):
    sync_id = opened(user, trigger)
    time_passes()
    assert recovers(sync_id)


def test_after_the_scheduler_opened_it(user):
    (sync_id,) = ledger.open_due_syncs(10)
    time_passes()
    assert recovers(sync_id)


def test_after_a_join_that_raised_it(user):
    sync_id = opened(user)
    joined(user, Trigger.LOGIN)
    time_passes()
    assert recovers(sync_id)


def test_after_the_claim_of_a_sync(user):
    sync = reading(user)
    assert tick() == []  # not before the lease has run out
    assert sync_row(sync.sync_id).state == SyncState.LISTING
    time_passes()
    assert recovers(sync.sync_id)


def test_after_a_page(user):
    sync = add_page(reading(user), LIST[:2], pages=2).sync
    time_passes()
    assert recovers(sync.sync_id)


def test_after_a_page_and_its_dispatch(user):
    sync = add_page(reading(user), LIST[:2], pages=2).sync
    assert len(dispatch_all()) == 2
    assert tick() == []
    assert row_state(1) == "sent"
    time_passes()
    assert recovers(sync.sync_id)


def test_after_a_worker_told_the_sync_to_wait(user):
    sync = add_page(reading(user), LIST[:2], pages=2).sync
    ledger.wait_with_sync(sync, user.next_sync_at + HOUR, "downtime")
    time_passes()
    assert recovers(sync.sync_id)


def test_after_a_broker_took_half_of_what_was_dispatched(user):
    sync_id = listed_whole(user)
    late = [sent.killmail_id for sent in dispatch_all()][2:]
    ledger.give_back(late)
    time_passes()
    assert recovers(sync_id)


def test_after_the_end_of_the_list(user):
    sync_id = listed_whole(user)
    assert recovers(sync_id)


def test_after_the_end_of_a_list_of_which_everything_is_stored(user):
    sync = add_page(add_page(reading(user), LIST[:2], pages=2).sync, LIST[2:], pages=2).sync
    stored(*LIST)
    end_listing(sync)
    # FETCHING is committed, finish was not tried
    assert ledger.ready_to_finish() == [sync.sync_id]
    assert recovers(sync.sync_id)


def test_after_the_claim_of_a_row(user):
    sync_id = listed_whole(user)
    taken(3)
    time_passes()
    assert recovers(sync_id)


def test_after_a_row_was_released(user):
    sync_id = listed_whole(user)
    ledger.release(taken(3))
    time_passes()
    assert recovers(sync_id)


def test_after_a_failure(user):
    sync_id = listed_whole(user)
    failed(3)
    time_passes()
    tick()
    assert ledger.ready_to_finish() == []
    make_due(3)
    assert recovers(sync_id)


def test_after_the_last_failure_that_a_sync_waits_for(user):
    sync_id = listed_whole(user)
    stored(1, 2, 4)
    failed(3, times=4)
    # The row is deferred, finish was not tried
    assert tick() == [sync_id]
    assert counts(sync_id) == (4, 3, 0, 1)
    make_due(3)
    tick()
    assert stored_ids() == set(LIST)


def test_after_the_last_settle(user):
    sync_id = listed_whole(user)
    stored(*LIST)
    # The killmail is stored, finish was not tried
    assert tick() == [sync_id]
    assert counts(sync_id) == (4, 4, 0, 0)


def test_after_finish_was_sent(user):
    sync_id = listed_whole(user)
    stored(*LIST)
    assert ledger.ready_to_finish([sync_id]) == [sync_id]
    # The message was lost, or its worker died before the commit
    assert tick() == [sync_id]


def test_after_finalize(user):
    """What comes after it, SyncFinished and the names, is not the ledger's: everything it has to say is written."""
    sync_id = listed_whole(user)
    stored(*LIST)
    assert ledger.finalize(sync_id, COOLDOWN)
    assert tick() == []
    assert user_row(user).last_killmail_id == max(LIST)
    assert user_row(user).last_killmail_sync_at == sync_row(sync_id).finished_at


def test_after_a_failed_sync_everything_listed_is_fetched(user):
    sync = add_page(reading(user), LIST[:2], pages=2).sync
    dispatch_all()
    ledger.fail_sync(sync.sync_id, "ESI answered 500", lease=sync.lease)
    time_passes()
    tick()
    assert stored_ids() == {1, 2}


def test_between_the_tick_and_what_it_sends(user):
    """The tick itself dies after each of its commits."""
    sync_id = opened(user)
    time_passes()
    assert send_syncs()
    time_passes()
    (again,) = send_syncs()
    read_list(claimed(again.sync_id))
    assert dispatch_all()
    time_passes()
    assert ledger.take_back_expired() == 4
    assert dispatch_all()
    time_passes()
    assert recovers(sync_id)


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_again_and_again(seed, user, other):
    """Two users share a list; whoever works is killed at a random place, and time passes. It ends all the same."""
    dice = random.Random(seed)
    syncs = [opened(user), opened(other, Trigger.LOGIN)]
    for _ in range(dice.randint(3, 10)):
        _work_a_little(dice)
        time_passes()
    for _ in range(6):
        for killmail_id in LIST:
            make_due(killmail_id)
        tick()
        time_passes()
    assert stored_ids() == set(LIST)
    for sync_id in syncs:
        assert sync_row(sync_id).state == SyncState.FINISHED
        assert sync_row(sync_id).saved + sync_row(sync_id).skipped + sync_row(sync_id).failed == sync_row(sync_id).found


def _work_a_little(dice: random.Random) -> None:
    ledger.take_back_expired()
    for sent_sync in send_syncs()[: dice.randint(0, 2)]:
        sync = claimed(sent_sync.sync_id)
        if dice.random() < 0.5:
            sync = add_page(sync, LIST[2 * sync.page - 2 : 2 * sync.page], pages=2).sync
        if sync.page > 2:
            end_listing(sync)
    for sent in dispatch_all()[: dice.randint(0, 4)]:
        claim = ledger.claim(sent.killmail_id)
        if claim is None or dice.random() < 0.3:
            continue
        if dice.random() < 0.6:
            settle(claim)
        else:
            ledger.defer(claim, "ESI answered 500")


def listed_whole(user: User) -> int:
    """The list is read, in one page; nothing of it is dispatched."""
    return listed(user, LIST)
