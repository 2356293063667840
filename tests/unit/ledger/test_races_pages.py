"""Pages against pages, settles and unlinks, on PostgreSQL: nothing is fetched twice, lost, or waited for in vain."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

import ledger
from database import db, execute
from ledger import PageAdded, Settled
from models import Fetch, Trigger, User
from tests.unit.ledger.at_once import Another, postgres_only, together, waits
from tests.unit.ledger.world import (
    add_page,
    counts,
    dispatch_all,
    end_listing,
    failed,
    finished,
    items,
    joined,
    ledger_ids,
    links,
    listed,
    make_user,
    reading,
    settle,
    stored,
    stored_ids,
    taken,
)

pytestmark = postgres_only


# A page of one user and the settle of the same killmail


def test_a_page_that_waits_for_a_settle_finds_the_killmail_stored(user, other):
    listed(other, [1])
    claim, sync = taken(1), reading(user)
    with Another() as lister:
        with db.atomic():
            assert settle(claim).stored
            adding = lister.start(add_page, sync, [1])
            assert waits(adding)
        added = adding.result()
    assert (added.new, added.known) == (0, 1)
    _nothing_is_fetched_twice_and_it_ends(user, added)


def test_a_settle_that_waits_for_a_page_ends_that_users_sync_too(user, other):
    first = listed(other, [1])
    claim, sync = taken(1), reading(user)
    with Another() as worker:
        with db.atomic():
            added = add_page(sync, [1])
            settling = worker.start(settle, claim)
            assert waits(settling)
        settled = settling.result()
    assert settled.stored
    assert sorted(settled.sync_ids) == [first, sync.sync_id]
    _nothing_is_fetched_twice_and_it_ends(user, added)


def test_a_settle_between_a_pages_look_and_its_writing_leaves_no_row_behind(user, other):
    """The page saw that 2 is not stored, and waits for the row of 1 when 2 is stored."""
    listed(other, [1, 2])
    claim, sync = taken(2), reading(user)
    with Another() as lister, Another() as worker:
        with db.atomic():
            execute("SELECT killmail_id FROM ledger WHERE killmail_id = 1 FOR UPDATE")
            adding = lister.start(add_page, sync, [2, 1])
            assert waits(adding)
            assert worker.start(settle, claim).result().stored
            assert waits(adding)
        added = adding.result()
    assert (added.new, added.known) == (1, 1)
    assert ledger_ids() == items(sync.sync_id) == {1}
    stored(1)
    _nothing_is_fetched_twice_and_it_ends(user, added)


@pytest.mark.parametrize("seed", range(6))
def test_pages_and_settles_in_any_order(user, other, seed):
    """What one user's list has, workers store while the other user's list is read."""
    ids = random.Random(seed).sample(range(1, 100), 12)
    listed(other, ids)
    claims = [taken(killmail_id) for killmail_id in ids]
    sync = reading(user)

    def settle_all() -> list[Settled]:
        return [settle(claim) for claim in claims]

    added, settled = together(partial(add_page, sync, ids), settle_all)
    assert isinstance(added, PageAdded)
    assert isinstance(settled, list)
    assert all(one.stored for one in settled)
    assert ledger_ids() == items(sync.sync_id) == set()
    _nothing_is_fetched_twice_and_it_ends(user, added)


def _nothing_is_fetched_twice_and_it_ends(user: User, added: PageAdded) -> None:
    assert dispatch_all() == []
    assert Fetch.select().count() == 0
    assert links(user) <= stored_ids()
    end_listing(added.sync)
    sync_id = added.sync.sync_id
    assert ledger.ready_to_finish([sync_id]) == [sync_id]
    finished(sync_id)
    found, saved, skipped, failures = counts(sync_id)
    assert (saved + skipped, failures) == (found, 0)


# Pages that overlap


@pytest.mark.parametrize("seed", range(6))
def test_pages_with_the_same_killmails_in_opposite_order_never_deadlock(seed):
    dice = random.Random(seed)
    ids = dice.sample(range(1, 1000), 200)
    readers = [reading(make_user()) for _ in range(3)]
    orders = [ids, ids[::-1], dice.sample(ids, len(ids))]
    added = together(*[partial(add_page, sync, order) for sync, order in zip(readers, orders, strict=True)])
    assert [page.new for page in added] == [200] * 3
    assert ledger_ids() == set(ids)
    for sync in readers:
        assert items(sync.sync_id) == set(ids)


def test_a_page_that_waits_for_another_shares_its_rows(user, other):
    first, second = reading(user), reading(other)
    with Another() as lister:
        with db.atomic():
            add_page(first, [3, 1])
            adding = lister.start(add_page, second, [1, 2, 3])
            assert waits(adding)
        assert adding.result().new == 3
    assert ledger_ids() == items(second.sync_id) == {1, 2, 3}


@pytest.mark.parametrize("seed", range(6))
def test_pages_joins_and_failures_at_once_never_deadlock(user, other, seed):
    """All that locks many rows of the ledger locks them in the order of their ids."""
    ids = random.Random(seed).sample(range(1, 500), 80)
    listed(user, ids)
    failed(ids[0])
    dispatch_all()
    sync = reading(other)
    works: list[Callable[[], object]] = [
        partial(add_page, sync, ids[::-1]),
        partial(joined, user, Trigger.LOGIN),
        partial(ledger.give_back, ids[:40]),
        ledger.take_back_expired,
        dispatch_all,
    ]
    together(*works)
    assert Fetch.select().where(Fetch.priority == 8).count() == 80


def _page(user: User, other: User) -> Callable[[], object]:
    return partial(add_page, reading(other), [3, 1, 2])


def _join(user: User, other: User) -> Callable[[], object]:
    return partial(joined, user, Trigger.LOGIN)


def _give_back(user: User, other: User) -> Callable[[], object]:
    dispatch_all()
    return partial(ledger.give_back, [3, 1, 2])


def _retry(user: User, other: User) -> Callable[[], object]:
    for killmail_id in (3, 1, 2):
        failed(killmail_id)
    return partial(ledger.retry_given_up, user.id, 8)


def _unlink(user: User, other: User) -> Callable[[], object]:
    return partial(ledger.unlink, user.id)


@pytest.mark.parametrize("prepare", [_page, _join, _give_back, _retry, _unlink])
def test_whoever_locks_many_rows_begins_at_the_lowest_id(user, other, prepare):
    """Two that lock in one order cannot wait for each other. Held up at row 2, it has row 1 and not yet row 3."""
    listed(user, [2, 3, 1])
    work = prepare(user, other)
    with Another() as somebody:
        with db.atomic():
            execute("SELECT killmail_id FROM ledger WHERE killmail_id = 2 FOR UPDATE")
            working = somebody.start(work)
            assert waits(working)
            free = execute("SELECT killmail_id FROM ledger FOR UPDATE SKIP LOCKED").fetchall()
            assert {killmail_id for (killmail_id,) in free} == {2, 3}
        working.result()


# Unlinking


def test_an_unlink_first_then_a_page_of_another_finds_it_gone_and_fetches_it(user, other):
    listed(other, [1, 2])
    stored(1)
    sync = reading(user)
    with Another() as lister:
        with db.atomic():
            ledger.unlink(other.id)
            adding = lister.start(add_page, sync, [1, 2])
            assert waits(adding)
        added = adding.result()
    assert added.new == 2
    stored(1, 2)
    _nothing_is_fetched_twice_and_it_ends(user, added)


def test_a_page_of_another_first_then_an_unlink_leaves_what_that_page_linked(user, other):
    listed(other, [1, 2, 3])
    stored(1)
    sync = reading(user)
    with Another() as leaver:
        with db.atomic():
            added = add_page(sync, [1, 2])
            leaving = leaver.start(ledger.unlink, other.id)
            assert waits(leaving)
        leaving.result()
    assert stored_ids() == {1}
    assert ledger_ids() == {2}
    stored(2)
    _nothing_is_fetched_twice_and_it_ends(user, added)


def test_an_unlink_and_a_page_of_other_killmails_wait_for_nothing(user, other):
    """However many pages are written, and however long each takes: a pilot who leaves has left."""
    listed(other, [1, 2])
    stored(1)
    sync = reading(user)
    with Another() as leaver:
        with db.atomic():
            add_page(sync, [3, 4])
            leaving = leaver.start(ledger.unlink, other.id)
            assert not waits(leaving)
        assert leaving.result() is not None
    # And the other way round
    stored(3)
    third = reading(make_user())
    with Another() as lister:
        with db.atomic():
            ledger.unlink(user.id)
            adding = lister.start(add_page, third, [5, 6])
            assert not waits(adding)
        assert adding.result().new == 2


def test_a_page_whose_killmail_an_unlink_takes_away_is_written_again(user, other):
    """The page saw 1 stored and waits for the ledger row of 2; when it comes to link 1, 1 is gone."""
    third = make_user()
    listed(other, [1])
    stored(1)
    listed(third, [2])
    sync = reading(user)
    with Another() as lister, Another() as leaver:
        with db.atomic():
            execute("SELECT killmail_id FROM ledger WHERE killmail_id = 2 FOR UPDATE")
            adding = lister.start(add_page, sync, [1, 2])
            assert waits(adding)
            assert leaver.start(ledger.unlink, other.id).result() is not None
            assert waits(adding)
        added = adding.result()
    assert added.new == 2
    assert ledger_ids() == items(sync.sync_id) == links(user) == {1, 2}


@pytest.mark.parametrize("seed", range(5))
def test_an_unlink_at_any_moment_of_anothers_page_loses_nothing(user, other, seed):
    listed(other, [1, 2, 3, 4])
    stored(1, 2)
    claim, sync = taken(3), reading(user)
    added, _, _ = together(
        partial(add_page, sync, [4, 3, 2, 1]), partial(ledger.unlink, other.id), partial(settle, claim)
    )
    assert isinstance(added, PageAdded)
    assert stored_ids() | ledger_ids() == {1, 2, 3, 4}
    stored(*ledger_ids())
    assert stored_ids() == links(user) == {1, 2, 3, 4}
    _nothing_is_fetched_twice_and_it_ends(user, added)


def test_an_unlink_first_then_the_settle_stores_nothing(user):
    listed(user, [1])
    claim = taken(1)
    with Another() as worker:
        with db.atomic():
            ledger.unlink(user.id)
            settling = worker.start(settle, claim)
            assert waits(settling)
        assert not settling.result().stored
    assert stored_ids() == set()


def test_a_settle_first_then_the_unlink_deletes_what_it_stored(user):
    listed(user, [1])
    claim = taken(1)
    with Another() as leaver:
        with db.atomic():
            assert settle(claim).stored
            leaving = leaver.start(ledger.unlink, user.id)
            assert waits(leaving)
        leaving.result()
    assert stored_ids() == ledger_ids() == set()


@pytest.mark.parametrize("seed", range(6))
def test_two_who_share_everything_and_leave_at_once_leave_nothing_behind(user, other, seed):
    listed(user, range(1, 20))
    listed(other, range(1, 20))
    stored(*range(1, 10))
    claim = taken(15)
    together(partial(ledger.unlink, user.id), partial(ledger.unlink, other.id), partial(settle, claim))
    assert stored_ids() == ledger_ids() == set()
    assert User.select().count() == 0
