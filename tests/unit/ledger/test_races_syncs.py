"""Syncs opened, joined, ended and taken up by several at once, on PostgreSQL: one wins, nothing asked for is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

import ledger
from database import db, execute, utcnow
from ledger import Opened, Outcome
from ledger.reading import Reading
from models import Sync, SyncState, Trigger, User
from tests.unit.ledger.at_once import Another, postgres_only, together, waits
from tests.unit.ledger.world import (
    COOLDOWN,
    HOUR,
    add_page,
    end_listing,
    failed,
    joined,
    ledger_ids,
    listed,
    lose_leases,
    make_user,
    opened,
    reading,
    references,
    row,
    row_state,
    send_syncs,
    settle,
    stored,
    sync_row,
    taken,
    user_row,
)

pytestmark = postgres_only


def open_one(user: User, trigger: Trigger = Trigger.LOGIN, *, full: bool = False) -> Opened:
    return ledger.open_sync(user.id, trigger, cooldown=COOLDOWN, full=full)


def lock_user(user: User) -> None:
    execute("SELECT id FROM users WHERE id = ? FOR UPDATE", (user.id,))


@pytest.mark.parametrize("_", range(12))
def test_opened_by_eight_at_once_there_is_one_sync(user, _):
    results = together(*[partial(open_one, user)] * 8)
    assert sorted(result.outcome for result in results) == [Outcome.CREATED] + [Outcome.JOINED] * 7
    assert len({result.sync_id for result in results}) == 1
    assert Sync.select().count() == 1


def test_two_schedulers_at_once_open_each_users_sync_once():
    users = {make_user().id for _ in range(40)}
    first, second = together(*[partial(ledger.open_due_syncs, 100)] * 2)
    ledger.open_due_syncs(100)  # who was skipped, because the other looked at them, is found by the next look
    assert not set(first) & set(second)
    assert {sync.user_id for sync in Sync.select()} == users
    assert Sync.select().count() == 40


@pytest.mark.parametrize("seed", range(4))
def test_scheduler_and_logins_at_once_open_each_users_sync_once(seed):
    users = [make_user(next_sync_at=utcnow() - HOUR) for _ in range(6)]
    logins: list[Callable[[], object]] = [partial(open_one, login) for login in users[seed::3]]
    together(partial(ledger.open_due_syncs, 100), *logins, partial(ledger.open_due_syncs, 100))
    ledger.open_due_syncs(100)
    assert sorted(sync.user_id for sync in Sync.select()) == [user.id for user in users]


def test_a_login_between_the_schedulers_look_and_its_insert_neither_fails_nor_waits_for_ever(user, other):
    with Another() as scheduler:
        with db.atomic():
            lock_user(user)  # what open_sync does first
            looking = scheduler.start(ledger.open_due_syncs, 100)
            result = open_one(user)
        opened_by_scheduler = looking.result()
    assert result.outcome is Outcome.CREATED
    assert [sync_row(sync_id).user_id for sync_id in opened_by_scheduler] == [other.id]
    assert Sync.select().count() == 2


def test_one_who_leaves_while_the_scheduler_looks_spoils_nothing_for_the_others(user, other):
    with Another() as scheduler:
        with db.atomic():
            lock_user(user)
            looking = scheduler.start(ledger.open_due_syncs, 100)
            ledger.unlink(user.id)
        assert [sync_row(sync_id).user_id for sync_id in looking.result()] == [other.id]


def test_one_message_is_taken_up_by_one_worker(user):
    sync_id = opened(user)
    claims = together(*[partial(ledger.claim_sync, sync_id)] * 6)
    assert sum(claim is not None for claim in claims) == 1


def test_an_abandoned_sync_is_taken_up_by_one_worker(user):
    sync_id = reading(user).sync_id
    lose_leases()
    claims = together(*[partial(ledger.claim_sync, sync_id)] * 6)
    assert sum(claim is not None for claim in claims) == 1


def test_two_ticks_send_a_lost_sync_once():
    syncs = {opened(make_user()) for _ in range(20)}
    first, second = together(*[send_syncs] * 2)
    assert len(first) + len(second) == 20
    assert {sync.sync_id for sync in [*first, *second]} == syncs


# Joining a sync that moves on


def test_full_asked_while_the_list_ends_is_not_lost(user):
    sync = add_page(reading(user), [1]).sync
    with Another() as worker:
        with db.atomic():
            assert open_one(user, full=True).outcome is Outcome.JOINED
            ending = worker.start(ledger.end_listing, sync, etag=None, fresh_for=0, complete=True)
            assert waits(ending)
        ending.result()
    assert _full_is_to_come(user, sync.sync_id)
    after = sync_row(sync.sync_id)
    assert after.state == SyncState.LISTING or after.found == 1


def test_full_asked_just_after_the_list_ended_is_not_lost(user):
    sync = add_page(reading(user), [1]).sync
    with Another() as pilot:
        with db.atomic():
            end_listing(sync)
            asking = pilot.start(open_one, user, full=True)
            assert waits(asking)
        assert asking.result().outcome is Outcome.JOINED
    assert user_row(user).full_requested


@pytest.mark.parametrize("seed", range(6))
def test_full_asked_at_any_moment_of_the_end_of_a_list_is_not_lost(user, seed):
    sync = add_page(reading(user), [1]).sync
    together(
        partial(open_one, user, full=True),
        partial(ledger.end_listing, sync, etag=None, fresh_for=0, complete=True),
    )
    assert _full_is_to_come(user, sync.sync_id)


@pytest.mark.parametrize("seed", range(6))
def test_full_asked_at_any_moment_of_the_end_of_a_sync_is_granted_or_refused(user, seed):
    sync_id = listed(user, [])
    asked, _ = together(partial(open_one, user, full=True), partial(ledger.finalize, sync_id, COOLDOWN))
    assert sync_row(sync_id).state == SyncState.FINISHED
    assert isinstance(asked, Opened)
    if asked.outcome is Outcome.JOINED:
        assert user_row(user).full_requested
        assert user_row(user).next_sync_at <= utcnow()
    else:
        assert asked.outcome is Outcome.COOLDOWN
        assert not user_row(user).full_requested


def test_who_asks_while_a_sync_ends_is_told_of_the_cooldown_that_it_began(user):
    sync_id = listed(user, [])
    with Another() as pilot:
        with db.atomic():
            assert ledger.finalize(sync_id, COOLDOWN)
            asking = pilot.start(open_one, user)
            assert waits(asking)
        assert asking.result().outcome is Outcome.COOLDOWN


def test_a_sync_that_was_given_a_fresh_try_waits_for_it(user):
    sync_id = listed(user, [1])
    failed(1, times=4)
    with Another() as worker:
        with db.atomic():
            joined(user, Trigger.WEB)
            ending = worker.start(ledger.finalize, sync_id, COOLDOWN)
            assert waits(ending)
        assert ending.result() is None
    assert (row_state(1), sync_row(sync_id).state) == ("pending", SyncState.FETCHING)


def test_a_page_and_a_raise_at_once_leave_no_row_behind_at_the_old_priority(user):
    sync = add_page(reading(user), [1], pages=2).sync
    with Another() as worker:
        with db.atomic():
            joined(user, Trigger.LOGIN)
            adding = worker.start(add_page, sync, [2], pages=2)
            assert waits(adding)
        adding.result()
    assert (row(1).priority, row(2).priority) == (8, 8)


def test_a_worker_thought_dead_and_its_successor_write_a_page_once(user):
    slow = reading(user)
    lose_leases()
    quick = ledger.claim_sync(slow.sync_id)
    assert quick is not None
    add = partial(ledger.add_page, references=references([1, 2]), reading=Reading(pages=1), etag=None)
    first, second = together(partial(add, slow, seen=set()), partial(add, quick, seen=set()))
    assert first is None
    assert second is not None
    assert sync_row(slow.sync_id).found == 2


# The end


@pytest.mark.parametrize("_", range(5))
def test_of_many_that_end_a_sync_one_does(user, _):
    sync_id = listed(user, [])
    results = together(*[partial(ledger.finalize, sync_id, COOLDOWN)] * 6)
    assert sum(result is not None for result in results) == 1


def test_who_comes_second_waits_and_ends_nothing(user):
    sync_id = listed(user, [])
    with Another() as worker:
        with db.atomic():
            assert ledger.finalize(sync_id, COOLDOWN)
            ending = worker.start(ledger.finalize, sync_id, COOLDOWN)
            assert waits(ending)
        assert ending.result() is None


def _settle_and_look(killmail_id: int) -> list[int]:
    claim = taken(killmail_id)
    return ledger.ready_to_finish(settle(claim).sync_ids)


@pytest.mark.parametrize("_", range(5))
def test_of_two_last_workers_at_least_one_finds_the_sync_done(user, _):
    sync_id = listed(user, [1, 2])
    found = together(partial(_settle_and_look, 1), partial(_settle_and_look, 2))
    assert [sync_id] in found


def test_the_last_to_commit_finds_the_sync_done(user):
    sync_id = listed(user, [1, 2, 3])
    stored(3)  # new names are waited for: these are known now
    claim = taken(1)
    with Another() as worker:
        with db.atomic():
            last = settle(claim)
            assert worker.start(_settle_and_look, 2).result() == []  # the first is not committed yet
        assert ledger.ready_to_finish(last.sync_ids) == [sync_id]


@pytest.mark.parametrize("_", range(5))
def test_the_end_of_a_list_and_the_last_killmail_at_once_leave_one_who_finds_it_done(user, _):
    sync = add_page(reading(user), [1]).sync

    def end_and_look() -> list[int]:
        end_listing(sync)
        return ledger.ready_to_finish([sync.sync_id])

    assert [sync.sync_id] in together(end_and_look, partial(_settle_and_look, 1))
    assert ledger_ids() == set()


def test_a_refusal_by_sso_while_a_sync_fails_is_not_undone(user):
    sync_id = opened(user)
    with Another() as tick:
        with db.atomic():
            User.update(next_sync_at=None, needs_login_reason="refused").where(User.id == user.id).execute()
            failing = tick.start(ledger.fail_sync, sync_id, "gave up")
            assert waits(failing)
        assert failing.result()
    assert user_row(user).next_sync_at is None


def _full_is_to_come(user: User, sync_id: int) -> bool:
    sync = sync_row(sync_id)
    read_again = sync.state == SyncState.LISTING and sync.full and sync.next_page == 1
    return bool(read_again or user_row(user).full_requested)
