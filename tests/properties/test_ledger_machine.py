"""Any order of anything that may happen to the ledger ends in the same truth, on both engines."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

import ledger
from database import is_sqlite
from models import Trigger
from tests.properties.budget import budget
from tests.properties.machine import LedgerMachine
from tests.properties.table import Snapshot
from tests.unit.ledger.world import add_page, counts, end_listing, failed, finished, joined, make_user, reading


def test_any_order_of_steps_ends_in_the_same_truth(quick_db):
    examples = 120 if is_sqlite() else 40  # the rules are the same; a statement costs several times as much
    run_state_machine_as_test(LedgerMachine, settings=budget(examples, steps=40))


@pytest.mark.parametrize("ends_well", [True, False])
def test_what_a_sync_counted_before_it_was_sent_back_is_not_counted_against_it(quick_db, ends_well):
    """Too deep for the short form to find by itself: six steps, of which each has to be the right one."""
    # Given a list of which a page is read when all of it is asked for
    user = make_user(last_sync_complete=True)
    sync, seen = reading(user), set[int]()
    first = add_page(sync, [1], seen=seen)
    joined(user, Trigger.MANUAL, full=True)
    back = add_page(first.sync, [], seen=seen)
    # When it ends with another list, and nothing of either can be had
    if ends_well:
        end_listing(add_page(back.sync, [2], seen=seen).sync)
        failed(1, times=4)
        failed(2, times=4)
        finished(sync.sync_id)
    else:
        assert ledger.fail_sync(sync.sync_id, "ESI answered 500", lease=back.sync.lease)
    # Then the counts add up, and are those of the second reading
    Snapshot.taken().keeps_the_promises()
    assert counts(sync.sync_id) == ((1, 0, 0, 1) if ends_well else (0, 0, 0, 0))
