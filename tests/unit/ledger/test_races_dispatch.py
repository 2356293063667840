"""Several dispatchers, and several workers for one row, on PostgreSQL: no window overfilled, nothing twice."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

import ledger
from database import db, utcnow
from ledger import Allowed, Outgoing
from models import Trigger
from tests.unit.ledger.at_once import Another, postgres_only, together, waits
from tests.unit.ledger.world import (
    PLENTY,
    add_page,
    dispatch_all,
    failed,
    ledger_ids,
    listed,
    lose_leases,
    make_due,
    reading,
    row,
    row_state,
    settle,
    stored_ids,
    taken,
)

pytestmark = postgres_only


def dispatch(window: int) -> list[Outgoing]:
    return ledger.dispatch(Allowed(PLENTY, PLENTY), window)


@pytest.mark.parametrize("_", range(3))
def test_dispatchers_at_once_fill_a_window_once(user, other, _):
    listed(user, range(1, 61))
    listed(other, range(101, 161), Trigger.LOGIN)
    batches = together(*[partial(dispatch, 20)] * 5)
    sent = [out.killmail_id for batch in batches for out in batch]
    assert len(sent) == len(set(sent)) == ledger.upcoming() == 20
    assert sorted(sent)[:3] == [59, 60, 143]  # logins first, whichever dispatched them, but for one row in ten


def test_who_dispatches_second_waits_and_sees_what_the_first_has_sent(user):
    listed(user, range(1, 11))
    with Another() as dispatcher:
        with db.atomic():
            assert len(dispatch(6)) == 6
            second = dispatcher.start(dispatch, 8)
            assert waits(second)
        assert [out.killmail_id for out in second.result()] == [4, 3]


def test_a_dispatch_that_waited_sees_the_page_that_was_added_meanwhile(user):
    """No wake-up is lost: whoever dispatches after a commit sees what was committed."""
    sync = reading(user)
    with Another() as lister:
        with db.atomic():
            assert dispatch_all() == []
            added = lister.start(_add_and_dispatch, sync)
            assert waits(added)
        assert [out.killmail_id for out in added.result()] == [1]


def _add_and_dispatch(sync: ledger.ClaimedSync) -> list[Outgoing]:
    add_page(sync, [1])
    return dispatch_all()


def test_a_row_in_another_transactions_hands_holds_up_no_dispatch(user, other):
    listed(user, [1, 2])
    sync = reading(other)
    with Another() as dispatcher, db.atomic():
        add_page(sync, [2, 3])
        sent = dispatcher.start(dispatch_all).result()
        assert [out.killmail_id for out in sent] == [1]
    assert [out.killmail_id for out in dispatch_all()] == [3, 2]


@pytest.mark.parametrize("_", range(3))
def test_a_message_doubled_many_times_is_claimed_once(user, _):
    listed(user, [1])
    dispatch_all()
    claims = together(*[partial(ledger.claim, 1)] * 8)
    assert sum(claim is not None for claim in claims) == 1


@pytest.mark.parametrize("_", range(3))
def test_two_workers_with_the_same_killmail_store_it_once(user, _):
    sync_id = listed(user, [1])
    slow = taken(1)
    lose_leases()
    ledger.take_back_expired()
    quick = taken(1)
    results = together(partial(settle, slow), partial(settle, quick))
    assert sorted(result.stored for result in results) == [False, True]
    assert stored_ids() == {1}
    assert [result.sync_ids for result in results if result.stored] == [(sync_id,)]


@pytest.mark.parametrize("_", range(3))
def test_a_late_failure_and_a_success_at_once_end_in_the_success(user, _):
    listed(user, [1])
    slow = taken(1)
    lose_leases()
    ledger.take_back_expired()
    quick = taken(1)
    together(partial(ledger.defer, slow, "late"), partial(settle, quick))
    assert (row_state(1), stored_ids()) == (None, {1})


@pytest.mark.parametrize("_", range(3))
def test_two_ticks_take_a_row_back_once(user, _):
    listed(user, range(1, 30))
    for killmail_id in range(1, 10):
        taken(killmail_id)
    lose_leases()
    assert sum(together(*[ledger.take_back_expired] * 3)) == 29
    assert [row(killmail_id).attempts for killmail_id in (1, 9, 10, 29)] == [1, 1, 0, 0]


def test_a_worker_that_settles_as_its_row_is_taken_back_stores_it(user):
    listed(user, range(1, 6))
    claims = [taken(killmail_id) for killmail_id in range(1, 6)]
    lose_leases()

    def settle_all() -> int:
        return sum(settle(claim).stored for claim in claims)

    kept, _ = together(settle_all, ledger.take_back_expired)
    assert kept == len(stored_ids()) == 5
    assert not ledger_ids()


def test_what_is_due_is_promoted_once_by_two_at_once(user):
    listed(user, [1, 2, 3])
    for killmail_id in (1, 2, 3):
        failed(killmail_id)
    for killmail_id in (1, 2, 3):
        make_due(killmail_id)
    first, second = together(dispatch_all, dispatch_all)
    assert sorted(out.killmail_id for out in [*first, *second]) == [1, 2, 3]


def test_one_of_many_sends_the_wake_up():
    at = utcnow() + timedelta(seconds=30)
    assert sum(together(*[partial(ledger.set_wake, at)] * 6)) == 1
