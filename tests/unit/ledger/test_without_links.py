"""Killmails that stand in nobody's list: kept for a week, then deleted in bounded steps."""

from __future__ import annotations

from datetime import timedelta

import pytest

import ledger
from database import execute, utcnow
from ledger import former_owners, without_links
from ledger.without_links import KEPT_FOR, TURN, sweep
from tests.unit.ledger.world import add_page as add
from tests.unit.ledger.world import (
    dispatch_all,
    end_listing,
    ledger_ids,
    links,
    listed,
    make_user,
    reading,
    row_state,
    settle,
    stored,
    stored_ids,
    taken,
)

STRANGER = 95_000_000


def store_foreign(*ids: int) -> None:
    """These are stored, and name none of those who listed them."""
    for killmail_id in ids:
        settle(taken(killmail_id), [STRANGER])


def age(*ids: int, days: float = KEPT_FOR.days + 1) -> None:
    for killmail_id in ids:
        execute(
            "UPDATE killmails SET created_at = ? WHERE killmail_id = ?",
            (utcnow() - timedelta(days=days), killmail_id),
        )


def look() -> int:
    """The next look, whenever the last one was."""
    execute("UPDATE periodic_runs SET due_at = ? WHERE name = ?", (utcnow(), TURN))
    return sweep()


def test_what_a_wrong_list_left_is_deleted_also_after_its_only_reader_unlinked(user, other):
    listed(user, [1, 2, 3])
    store_foreign(1, 2)
    stored(3)
    ledger.unlink(user.id)
    assert stored_ids() == {1, 2}
    listed(other, [4])
    stored(4)
    age(1, 2, 4)
    assert look() == 2
    assert stored_ids() == {4}
    assert execute("SELECT COUNT(*) FROM attackers WHERE killmail_id IN (1, 2)").fetchone() == (0,)


def test_they_are_kept_for_a_week(user):
    listed(user, [1])
    store_foreign(1)
    age(1, days=KEPT_FOR.days - 1)
    assert look() == 0
    assert stored_ids() == {1}


def test_what_a_former_owner_had_stays(user):
    listed(user, [1])
    stored(1)
    former_owners.hide(user.id, "owner")
    age(1)
    assert (look(), stored_ids()) == (0, {1})


def test_one_that_is_listed_again_is_fetched_again(user):
    listed(user, [1])
    store_foreign(1)
    execute("UPDATE syncs SET state = 'FINISHED', finished_at = started_at")
    age(1)
    assert look() == 1
    end_listing(add(reading(user, force=True), [1]).sync)
    assert ledger_ids() == {1}
    dispatch_all()
    assert row_state(1) == "sent"
    assert links(user) == {1}


def test_each_look_goes_on_where_the_last_one_ended(user, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(without_links, "BATCH", 2)
    listed(user, [1, 2, 3, 4, 5])
    store_foreign(1, 2, 3, 4, 5)
    age(1, 2, 3, 4, 5)
    assert [look() for _ in range(4)] == [2, 2, 1, 0]
    assert stored_ids() == set()


def test_it_looks_once_a_minute(user):
    make_user()
    listed(user, [1])
    store_foreign(1)
    assert look() == 0
    age(1)
    assert sweep() == 0
    assert look() == 1
