"""add_page: links, ledger rows, items and counts of one page, and what is shared between users."""

from __future__ import annotations

import random

import pytest

import ledger
from database import execute, utcnow
from ledger.reading import Reading
from models import Fetch, Trigger, UserKillmail
from tests.unit.ledger.world import (
    COOLDOWN,
    ETAG,
    add_page,
    claimed,
    counts,
    dispatch_all,
    end_listing,
    failed,
    finished,
    hash_of,
    items,
    joined,
    ledger_ids,
    links,
    listed,
    lose_leases,
    make_due,
    make_user,
    opened,
    reading,
    rejected,
    row,
    row_state,
    settle,
    stored,
    sync_row,
    taken,
)


def test_a_page_is_written_down_whole(user):
    sync = reading(user)
    seen: set[int] = set()
    added = add_page(sync, [30, 10, 20], pages=2, seen=seen)
    assert (added.new, added.known, added.written) == (3, 0, True)
    assert (added.sync.page, added.sync.sync_id, added.sync.user_id) == (2, sync.sync_id, user.id)
    assert seen == links(user) == items(sync.sync_id) == ledger_ids() == {10, 20, 30}
    for killmail_id in (10, 20, 30):
        wanted = row(killmail_id)
        assert (wanted.state, wanted.priority, wanted.attempts) == ("pending", 3, 0)
        assert (wanted.killmail_hash, wanted.claimed_until) == (hash_of(killmail_id), None)
    after = sync_row(sync.sync_id)
    assert (after.found, after.skipped, after.next_page, after.pages, after.page_one_etag) == (3, 0, 2, 2, ETAG)


def test_what_is_stored_is_linked_and_not_fetched_again(user, other):
    listed(other, [1, 2])
    stored(1, 2)
    sync = reading(user)
    added = add_page(sync, [1, 2, 3])
    assert (added.new, added.known) == (1, 2)
    assert links(user) == {1, 2, 3}
    assert ledger_ids() == items(sync.sync_id) == {3}
    assert (sync_row(sync.sync_id).found, sync_row(sync.sync_id).skipped) == (3, 2)


def test_an_empty_page_is_one_too(user):
    sync = reading(user)
    added = add_page(sync, [])
    assert (added.new, added.known, added.written, added.sync.page) == (0, 0, True, 2)
    assert sync_row(sync.sync_id).found == 0


def test_only_page_one_has_the_etag(user):
    sync = add_page(reading(user), [2], pages=2).sync
    assert ledger.add_page(sync, [(1, hash_of(1))], reading=Reading(pages=2), etag="page two", seen=set())
    assert sync_row(sync.sync_id).page_one_etag == ETAG


def test_a_list_that_moves_while_it_is_read_is_counted_exactly(user, other):
    """Two new killmails appear at the top: the last two of page 1 stand at the head of page 2 as well."""
    listed(other, [5, 8])
    stored(5, 8)
    seen: set[int] = set()
    first = add_page(reading(user), [9, 8, 7, 6], pages=2, seen=seen)
    second = add_page(first.sync, [7, 6, 5, 4], pages=2, seen=seen)
    assert (second.new, second.known) == (3, 1)
    after = sync_row(first.sync.sync_id)
    assert (after.found, after.skipped) == (6, 2)
    assert items(after.id) == {4, 6, 7, 9}
    # And stored in the meantime or not, they are counted once
    end_listing(second.sync)
    stored(4, 6, 7, 9)
    finished(after.id)
    assert counts(after.id) == (6, 4, 2, 0)


def test_an_overlap_that_was_stored_in_between_is_still_counted_once(user):
    seen: set[int] = set()
    first = add_page(reading(user), [3, 2], pages=2, seen=seen)
    stored(3, 2)
    second = add_page(first.sync, [2, 1], pages=2, seen=seen)
    assert (second.new, second.known) == (1, 1)
    end_listing(second.sync)
    stored(1)
    finished(first.sync.sync_id)
    assert counts(first.sync.sync_id) == (3, 3, 0, 0)


def test_a_killmail_that_stands_on_a_page_twice_is_counted_once(user):
    sync = reading(user)
    added = add_page(sync, [2, 1, 2])
    assert (added.new, added.known) == (2, 0)
    end_listing(added.sync)
    stored(1, 2)
    finished(sync.sync_id)
    assert counts(sync.sync_id) == (2, 2, 0, 0)


def test_reading_again_from_page_one_counts_nothing_twice(user):
    """`full` was asked for while page 2 was read."""
    seen: set[int] = set()
    sync = add_page(reading(user), [6, 5], pages=2, seen=seen).sync
    stored(6)
    joined(user, full=True)
    sync = add_page(sync, [4, 3], pages=2, seen=seen).sync
    for page in ([6, 5], [4, 3]):
        sync = add_page(sync, page, pages=2, seen=seen).sync
    end_listing(sync)
    stored(5, 4, 3)
    finished(sync.sync_id)
    found, saved, skipped, failures = counts(sync.sync_id)
    assert found == 4
    assert saved + skipped == 4
    assert failures == 0


@pytest.mark.parametrize("waits", [False, True])
def test_a_sync_sent_back_counts_nothing_below_zero(user, waits):
    """Between the page that was dropped and page 1 read again: in the hands of the same worker, or of the next."""
    sync = add_page(reading(user), [6, 5], pages=2).sync
    if waits:
        ledger.wait_with_sync(sync, utcnow(), "ESI asks to wait")
    joined(user, full=True)
    sync = claimed(sync.sync_id) if waits else add_page(sync, [4, 3], pages=2).sync
    progress = ledger.sync_progress([sync.sync_id])[sync.sync_id]
    assert min(progress.saved, progress.failed, progress.pending) >= 0
    # And when the list cannot be read a second time
    assert ledger.fail_sync(sync.sync_id, "ESI answered 500", lease=sync.lease)
    assert min(counts(sync.sync_id)) >= 0
    assert ledger_ids() == {5, 6}


def test_reading_again_after_a_crash_wants_everything_once(user):
    sync = reading(user)
    add_page(sync, [2, 1], pages=2)
    lose_leases()
    again = claimed(sync.sync_id)
    add_page(again, [1, 0], pages=2)
    assert items(sync.sync_id) == ledger_ids() == {0, 1, 2}


def test_a_link_keeps_the_time_at_which_it_was_first_seen(user):
    sync_id = listed(user, [1])
    first = UserKillmail.get().linked_at
    stored(1)
    finished(sync_id)
    listed(user, [1], force=True)
    assert UserKillmail.get().linked_at == first


# Shared between users


def test_a_killmail_of_two_users_is_fetched_once_and_ends_the_syncs_of_both(user, other):
    first = listed(user, [1, 2])
    second = listed(other, [2, 3])
    assert Fetch.select().count() == 3
    assert sorted(sent.killmail_id for sent in dispatch_all()) == [1, 2, 3]
    stored(1)
    assert ledger.ready_to_finish() == []
    claim = taken(2)
    assert ledger.claim(2) is None
    assert sorted(settle(claim).sync_ids) == [first, second]
    assert ledger.ready_to_finish() == [first]
    stored(3)
    assert sorted(ledger.ready_to_finish()) == [first, second]
    finished(first)
    finished(second)
    assert counts(first) == counts(second) == (2, 2, 0, 0)


def test_what_somebody_else_is_fetching_right_now_is_waited_for_and_not_asked_for_again(user, other):
    listed(other, [1])
    taken(1)
    sync_id = listed(user, [1])
    assert row(1).state == "fetching"
    assert dispatch_all() == []
    assert items(sync_id) == {1}


@pytest.mark.parametrize("state", ["pending", "sent", "fetching", "deferred", "rejected"])
def test_a_page_raises_the_priority_of_what_somebody_else_wants_in_any_state(user, other, state):
    listed(other, [1])
    execute("UPDATE ledger SET state = ?", (state,))
    listed(user, [1], Trigger.LOGIN)
    assert row(1).priority == 8


def test_a_page_lowers_no_priority(user, other):
    listed(other, [1], Trigger.LOGIN)
    listed(user, [1], Trigger.SCHEDULE)
    assert row(1).priority == 8


def test_a_sync_raised_while_a_page_was_read_writes_that_page_at_the_new_priority(user):
    sync = reading(user)
    joined(user, Trigger.LOGIN)
    added = add_page(sync, [1])
    assert added.sync.priority == 8
    assert row(1).priority == 8


# Fresh tries of what failed before


@pytest.mark.parametrize(
    ("trigger", "fresh"),
    [(Trigger.SCHEDULE, False), (Trigger.MANUAL, False), (Trigger.WEB, True), (Trigger.LOGIN, True)],
)
def test_a_deferred_killmail_is_tried_again_at_once_for_a_pilot_who_asks_in_person(user, other, trigger, fresh):
    listed(other, [1])
    failed(1, times=2)
    listed(user, [1], trigger)
    state, attempts = row(1).state, row(1).attempts
    assert (state, attempts, row(1).not_before is None) == (("pending", 0, True) if fresh else ("deferred", 2, False))


def test_a_row_that_is_being_tried_keeps_its_attempts(user, other):
    listed(other, [1])
    failed(1)
    make_due(1)
    taken(1)
    listed(user, [1], Trigger.LOGIN)
    assert (row(1).state, row(1).attempts) == ("fetching", 1)


def test_a_killmail_given_up_and_just_being_tried_again_is_waited_for_by_who_asks_in_person(user, other):
    listed(other, [1])
    failed(1, times=4)
    make_due(1)
    taken(1)
    sync_id = listed(user, [1], Trigger.LOGIN)
    assert ledger.ready_to_finish([sync_id]) == []


@pytest.mark.parametrize(
    ("trigger", "full", "version", "fresh"),
    [
        (Trigger.SCHEDULE, False, 0, False),
        (Trigger.SCHEDULE, True, 0, True),
        (Trigger.LOGIN, False, 0, False),
        (Trigger.LOGIN, True, 0, True),
        (Trigger.MANUAL, False, 0, False),
        (Trigger.MANUAL, True, 0, True),
        (Trigger.SCHEDULE, False, 1, True),
        (Trigger.LOGIN, False, 1, True),
    ],
)
def test_a_rejected_killmail_comes_back_for_a_full_sync_or_with_another_hash(
    user, other, trigger, full, version, fresh
):
    listed(other, [1])
    rejected(1)
    sync_id = listed(user, [1], trigger, version=version, full=full)
    after = row(1)
    assert (after.state, after.attempts) == (("pending", 0) if fresh else ("rejected", 1))
    assert after.killmail_hash == hash_of(1, version)
    assert ledger.ready_to_finish([sync_id]) == ([] if fresh else [sync_id])


def test_full_asked_of_an_active_sync_brings_rejected_killmails_back(user):
    stored_before = listed(user, [1])
    rejected(1)
    finished(stored_before)
    # Given a scheduled sync that is under way
    sync_id = opened(user, force=True)
    # When a script joins it
    joined(user, Trigger.MANUAL, full=True, force=True)
    end_listing(add_page(claimed(sync_id), [1]).sync)
    # Then it asks for what was rejected
    assert row_state(1) == "pending"


def test_full_asked_of_a_sync_that_fetches_makes_the_next_bring_rejected_killmails_back(user):
    first = listed(user, [1, 2])
    rejected(1)
    joined(user, Trigger.MANUAL, full=True, force=True)
    stored(2)
    finished(first)
    assert row_state(1) == "rejected"
    [sync_id] = ledger.open_due_syncs(10)
    add_page(claimed(sync_id), [1, 2])
    assert row_state(1) == "pending"


def test_a_full_sync_tries_what_was_rejected_only_once(user, other):
    listed(other, [1, 2])
    for killmail_id in (1, 2):
        failed(killmail_id, times=7, refused=True)
        make_due(killmail_id)
        rejected(killmail_id)
    listed(user, [1], full=True)
    assert row(1).refusals == 7
    # Another hash is another killmail, as far as refusals go
    listed(make_user(), [2], version=1, full=True)
    assert row(2).refusals == 0


def test_another_hash_disturbs_nothing_that_is_under_way(user, other):
    listed(other, [1])
    taken(1)
    listed(user, [1], version=1)
    assert (row(1).state, row(1).killmail_hash) == ("fetching", hash_of(1))


@pytest.mark.parametrize("seed", range(4))
def test_random_lists_read_with_overlap_end_in_exact_counts(seed):
    """Three users with overlapping lists, read page by page with a list that moves, fetched in between."""
    dice = random.Random(seed)
    lists = {make_user().id: dice.sample(range(1, 60), dice.randint(0, 40)) for _ in range(3)}
    expected: dict[int, int] = {}
    for user_id, ids in lists.items():
        result = ledger.open_sync(user_id, Trigger.SCHEDULE, cooldown=COOLDOWN)
        assert result.sync_id is not None
        sync, seen, at = claimed(result.sync_id), set[int](), 0
        while at < len(ids):
            size = dice.randint(1, 12)
            page = ids[at : at + size]
            sync = add_page(sync, page, pages=9, seen=seen).sync
            for sent in dispatch_all()[: dice.randint(0, 9)]:
                stored_one(sent.killmail_id)
            execute("UPDATE ledger SET state = 'pending' WHERE state = 'sent'")
            at += max(1, size - dice.randint(0, 3))
        end_listing(sync)
        expected[result.sync_id] = len(ids)
    for sent in dispatch_all():
        stored_one(sent.killmail_id)
    assert sorted(ledger.ready_to_finish()) == sorted(expected)
    for sync_id, found in expected.items():
        finished(sync_id)
        assert counts(sync_id)[0] == found
        assert sum(counts(sync_id)[1:]) == found
        assert min(counts(sync_id)) >= 0


def stored_one(killmail_id: int) -> None:
    claim = ledger.claim(killmail_id)
    assert claim is not None
    assert settle(claim).stored
