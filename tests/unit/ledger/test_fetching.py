"""A row in one worker's hands: claim, and every way to be rid of it; guards against who comes late or twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

import ledger
from database import execute, utcnow
from ledger import Settled
from ledger.rules import FETCH_BACKOFF, FETCH_LEASE
from ledger.storing import load
from models import Fetch
from models import Killmail as StoredKillmail
from tests.unit.ledger.world import (
    counts,
    dispatch_all,
    failed,
    finished,
    hash_of,
    items,
    ledger_ids,
    listed,
    lose_leases,
    make_due,
    make_killmail,
    rejected,
    row,
    row_state,
    settle,
    stored,
    stored_ids,
    taken,
)


def test_a_claim_holds_what_the_request_needs_and_hides_the_hash(user):
    listed(user, [1])
    claim = taken(1)
    assert (claim.killmail_id, claim.killmail_hash, claim.priority, claim.attempts) == (1, hash_of(1), 3, 0)
    assert (row(1).state, row(1).claimed_until) == ("fetching", claim.lease)
    assert utcnow() < claim.lease <= utcnow() + FETCH_LEASE
    assert hash_of(1) not in repr(claim) + str(claim)


@pytest.mark.parametrize("state", ["pending", "fetching", "deferred", "rejected"])
def test_only_what_was_sent_is_claimed(user, state):
    listed(user, [1])
    execute("UPDATE ledger SET state = ?", (state,))
    assert ledger.claim(1) is None
    assert row_state(1) == state
    assert ledger.claim(4711) is None


def test_a_doubled_message_is_claimed_once(user):
    listed(user, [1])
    dispatch_all()
    assert ledger.claim(1) is not None
    assert ledger.claim(1) is None


def test_a_message_that_comes_after_its_killmail_was_stored_finds_nothing(user):
    listed(user, [1])
    stored(1)
    assert ledger.claim(1) is None


# Stored


def test_settling_stores_strikes_off_and_names_who_waited(user, other):
    first, second = listed(user, [1, 2]), listed(other, [1])
    settled = settle(taken(1))
    assert settled.stored
    assert sorted(settled.sync_ids) == [first, second]
    assert load(1) == make_killmail(1)
    assert StoredKillmail.get_by_id(1).killmail_hash == hash_of(1)
    assert ledger_ids() == items(first) == {2}
    assert items(second) == set()


def test_settling_twice_stores_once(user):
    listed(user, [1])
    claim = taken(1)
    assert settle(claim).stored
    assert settle(claim) == Settled(stored=False)
    assert stored_ids() == {1}


def test_what_was_unlinked_meanwhile_is_not_stored(user):
    listed(user, [1])
    claim = taken(1)
    ledger.unlink(user.id)
    assert settle(claim) == Settled(stored=False)
    assert stored_ids() == set()
    assert Fetch.select().count() == 0


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_workers_one_stores_where_the_first_ones_lease_ran_out(user, first):
    sync_id = listed(user, [1])
    workers = [taken(1)]
    lose_leases()
    ledger.take_back_expired()
    workers.append(taken(1))
    results = [settle(workers[first]), settle(workers[1 - first])]
    assert [result.stored for result in results] == [True, False]
    assert stored_ids() == {1}
    assert ledger.ready_to_finish() == [sync_id]


def test_a_body_of_another_killmail_is_not_stored(user):
    listed(user, [1, 2])
    claim = taken(1)
    with pytest.raises(ValueError, match="claimed killmail 1"):
        ledger.settle(claim, make_killmail(2))
    assert stored_ids() == set()
    assert (row_state(1), items(1) | ledger_ids()) == ("fetching", {1, 2})


def test_a_killmail_that_cannot_be_stored_leaves_everything_as_it_was(user):
    sync_id = listed(user, [1])
    claim = taken(1)
    broken = replace(make_killmail(1), attackers=(None,))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NoneType"):
        ledger.settle(claim, broken)
    assert (row_state(1), items(sync_id), stored_ids()) == ("fetching", {1}, set())
    assert settle(claim).stored


# Given back


def test_a_released_row_is_pending_and_has_spent_nothing(user):
    listed(user, [1])
    ledger.release(taken(1))
    assert (row(1).state, row(1).attempts, row(1).claimed_until) == ("pending", 0, None)


def test_what_could_not_be_sent_is_pending_again_unless_somebody_has_it(user):
    listed(user, [1, 2, 3])
    dispatch_all()
    ledger.claim(2)
    ledger.give_back([1, 2, 4711])
    assert {id_: row_state(id_) for id_ in (1, 2, 3)} == {1: "pending", 2: "fetching", 3: "sent"}
    assert row(1).claimed_until is None
    ledger.give_back([])


# Failures


@pytest.mark.parametrize(("attempts", "wait"), list(enumerate(FETCH_BACKOFF, 1)))
def test_each_failure_in_a_row_waits_longer(user, attempts, wait):
    listed(user, [1])
    failed(1, times=attempts)
    after = row(1)
    assert (after.state, after.attempts, after.claimed_until) == ("deferred", attempts, None)
    assert after.last_error == "ESI answered 500"
    assert utcnow() + 0.79 * wait < after.not_before < utcnow() + 1.21 * wait


def test_the_last_wait_is_not_exceeded(user):
    listed(user, [1])
    failed(1, times=len(FETCH_BACKOFF) + 3)
    assert row(1).not_before < utcnow() + 1.21 * FETCH_BACKOFF[-1]


def test_an_error_text_is_bounded(user):
    listed(user, [1, 2])
    ledger.defer(taken(1), "x" * 5000)
    ledger.reject(taken(2), "x" * 5000)
    assert row(1).last_error == row(2).last_error == "x" * 300


def test_after_four_failures_the_syncs_end_without_it_and_the_ledger_goes_on(user, other):
    first, second = listed(user, [1]), listed(other, [1, 2])
    assert [failed(1), failed(1), failed(1)] == [(), (), ()]
    assert ledger.ready_to_finish() == []
    assert sorted(failed(1)) == [first, second]
    assert ledger.ready_to_finish() == [first]
    finished(first)
    assert counts(first) == (1, 0, 0, 1)
    # When it comes in the end
    make_due(1)
    stored(1)
    # Then it is stored, for both; what the ended sync has said stays
    assert stored_ids() == {1}
    assert counts(first) == (1, 0, 0, 1)
    assert items(first) == set()
    stored(2)
    finished(second)
    assert counts(second) == (2, 2, 0, 0)


def test_a_killmail_that_comes_late_is_known_to_the_next_sync(user):
    first = listed(user, [1])
    failed(1, times=4)
    finished(first)
    make_due(1)
    stored(1)
    second = listed(user, [1], force=True)
    finished(second)
    assert counts(second) == (1, 0, 1, 0)


def test_a_rejected_killmail_is_counted_as_failed_and_not_tried_again(user):
    sync_id = listed(user, [1])
    assert rejected(1) == (sync_id,)
    assert (row(1).state, row(1).attempts, row(1).claimed_until) == ("rejected", 1, None)
    assert row(1).last_error == "ESI answered 422"
    assert ledger.ready_to_finish() == [sync_id]
    finished(sync_id)
    assert counts(sync_id) == (1, 0, 0, 1)
    lose_leases()
    assert ledger.take_back_expired() == 0
    assert dispatch_all() == []


def test_refusals_are_counted_in_a_row(user):
    listed(user, [1])
    counted = []
    for refused in (True, True, False, True):
        ledger.defer(taken(1), "ESI answered", refused=refused)
        make_due(1)
        counted.append(row(1).refusals)
    assert counted == [1, 2, 0, 1]
    assert taken(1).refusals == 1


# Whoever comes late changes nothing


@pytest.mark.parametrize("state", ["pending", "sent", "deferred", "rejected"])
def test_who_holds_nothing_any_more_changes_nothing(user, state):
    listed(user, [1])
    claim = taken(1)
    execute("UPDATE ledger SET state = ?, claimed_until = NULL", (state,))
    ledger.release(claim)
    assert ledger.defer(claim, "late") == ()
    ledger.reject(claim, "late")
    assert (row(1).state, row(1).attempts, row(1).last_error) == (state, 0, None)
    assert stored_ids() == set()


@pytest.mark.parametrize("state", ["pending", "sent", "fetching", "deferred", "rejected"])
def test_a_body_that_was_received_is_stored_whatever_became_of_its_row(user, other, state):
    first, second = listed(user, [1]), listed(other, [1])
    claim = taken(1)
    execute("UPDATE ledger SET state = ?, claimed_until = ?", (state, utcnow() if state == "fetching" else None))
    settled = settle(claim)
    assert (settled.stored, sorted(settled.sync_ids)) == (True, [first, second])
    assert (stored_ids(), ledger_ids(), items(first) | items(second)) == ({1}, set(), set())
    assert settle(claim) == Settled(stored=False), "one event"


@pytest.mark.parametrize("late", ["release", "defer", "reject"])
def test_whose_lease_ran_out_takes_nothing_out_of_anothers_hands(user, late):
    listed(user, [1])
    slow = taken(1)
    lose_leases()
    ledger.take_back_expired()
    quick = taken(1)
    if late == "release":
        ledger.release(slow)
    elif late == "defer":
        ledger.defer(slow, "late")
    else:
        ledger.reject(slow, "late")
    assert (row(1).state, row(1).attempts, row(1).claimed_until) == ("fetching", 1, quick.lease)
    assert settle(quick).stored


def test_a_claim_of_a_row_that_is_gone_changes_nothing(user):
    listed(user, [1])
    claim = taken(1)
    ledger.unlink(user.id)
    ledger.release(claim)
    assert ledger.defer(claim, "late") == ()
    assert ledger.reject(claim, "late") == ()
    assert Fetch.select().count() == 0


def test_a_lease_of_a_second_claim_is_not_the_first_ones(user):
    listed(user, [1])
    first = taken(1)
    ledger.release(first)
    assert taken(1).lease > first.lease
