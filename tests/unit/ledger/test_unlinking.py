"""unlink: what only this user held goes, whatever state it is in; what others hold stays, and is still fetched."""

from __future__ import annotations

import pytest

import ledger
from database import execute
from models import Fetch, Sync, SyncItem, User, UserKillmail
from tests.unit.ledger.world import (
    COOLDOWN,
    add_page,
    counts,
    dispatch_all,
    failed,
    finished,
    items,
    ledger_ids,
    links,
    listed,
    make_user,
    opened,
    reading,
    rejected,
    settle,
    stored,
    stored_ids,
    sync_row,
    taken,
    user_row,
)

PARTS = ("victims", "attackers", "killmail_items")


def test_what_only_they_held_goes(user):
    listed(user, range(1, 8))
    stored(1, 2)
    rejected(3)
    failed(4)
    taken(5)
    execute("UPDATE ledger SET state = 'pending' WHERE killmail_id = 6")
    ledger.unlink(user.id)
    for table in (User, Sync, SyncItem, UserKillmail, Fetch):
        assert table.select().count() == 0, table
    assert stored_ids() == set()
    for part in PARTS:
        assert execute(f"SELECT COUNT(*) FROM {part}").fetchone()[0] == 0, part


def test_what_is_shared_stays_stored_and_linked(user, other):
    listed(other, [2, 3])
    listed(user, [1, 2])
    stored(1, 2, 3)
    ledger.unlink(user.id)
    assert stored_ids() == links(other) == {2, 3}
    assert execute("SELECT COUNT(DISTINCT killmail_id) FROM attackers").fetchone()[0] == 2
    assert [found.id for found in User.select()] == [other.id]


def test_what_others_still_want_is_still_fetched(user, other):
    sync_id = listed(other, [2, 3])
    listed(user, [1, 2])
    claim = taken(2)
    ledger.unlink(user.id)
    assert ledger_ids() == {2, 3}
    assert items(sync_id) == {2, 3}
    assert ledger.claim(1) is None
    assert settle(claim).sync_ids == (sync_id,)
    stored(3)
    finished(sync_id)
    assert counts(sync_id) == (2, 2, 0, 0)


def test_what_the_other_listed_long_ago_is_theirs_too(user, other):
    """A link holds a killmail, whether a sync of this user's is active or not."""
    first = listed(other, [1])
    failed(1, times=4)
    finished(first)
    listed(user, [1])
    ledger.unlink(user.id)
    assert ledger_ids() == {1}


def test_a_message_for_what_went_away_finds_nothing(user):
    listed(user, [1])
    dispatch_all()
    ledger.unlink(user.id)
    assert ledger.claim(1) is None
    ledger.give_back([1])
    assert Fetch.select().count() == 0


@pytest.mark.parametrize("state", ["queued", "listing", "fetching", "ended"])
def test_their_sync_goes_whatever_it_is_doing(user, other, state):
    theirs = opened(other)
    mine = opened(user)
    if state != "queued":
        sync = ledger.claim_sync(mine)
        assert sync is not None
        if state != "listing":
            ledger.end_listing(sync, etag=None, fresh_for=0, complete=True)
        if state == "ended":
            finished(mine)
    ledger.unlink(user.id)
    assert [sync.id for sync in Sync.select()] == [theirs]
    assert ledger.claim_sync(mine) is None
    assert ledger.finalize(mine, COOLDOWN) is None
    assert ledger.ready_to_finish() == []


def test_who_comes_back_starts_clean(user):
    listed(user, [1])
    stored(1)
    ledger.unlink(user.id)
    again = make_user(character_id=user.character_id, last_full_sync_at=None)
    added = add_page(reading(again), [1])
    assert (added.new, added.known) == (1, 0)
    stored(1)


def test_a_page_after_the_other_left_fetches_what_went_with_them(user, other):
    listed(other, [1])
    stored(1)
    sync = reading(user)
    ledger.unlink(other.id)
    assert add_page(sync, [1]).new == 1
    stored(1)
    assert stored_ids() == {1}


def test_unlinking_nobody_changes_nothing(user):
    sync_id = listed(user, [1])
    ledger.unlink(4711)
    assert ledger_ids() == items(sync_id) == {1}
    assert user_row(user).id == user.id
    assert sync_row(sync_id).found == 1
