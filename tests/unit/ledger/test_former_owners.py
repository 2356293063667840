"""A sold character's killmails: hidden at once, kept for thirty days, given back, and deleted with nothing left."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from peewee import OperationalError

import ledger
from database import db, execute, insert_rows, utcnow
from ledger import former_owners
from ledger.former_owners import BATCH, KEPT_FOR
from ledger.unlinking import delete_only_theirs
from models import FormerKillmail, FormerOwner, Killmail, Sync, User
from tests.unit.ledger.at_once import Another, together, waits
from tests.unit.ledger.world import (
    add_page,
    dispatch_all,
    items,
    ledger_ids,
    links,
    listed,
    make_user,
    reading,
    settle,
    stored,
    stored_ids,
    taken,
    user_row,
)

postgres = pytest.mark.parametrize("any_db_url", ["postgres"], indirect=True)


def sell(user: User) -> User:
    """The character's new owner logs in."""
    assert former_owners.hide(user.id, user.owner_hash)
    return make_user(character_id=user.character_id, owner_hash=f"not {user.owner_hash}", last_full_sync_at=None)


def days_later(days: float = 31) -> None:
    """So much time passes for all who were sold."""
    for table in ("former_owners", "users"):
        for (row_id,) in execute(f"SELECT id FROM {table} WHERE sold_at IS NOT NULL").fetchall():
            before = utcnow() - timedelta(days=days)
            execute(f"UPDATE {table} SET sold_at = ? WHERE id = ?", (before, row_id))


def kept() -> set[int]:
    return {link.killmail_id for link in FormerKillmail.select()}


def test_what_the_former_owner_had_is_in_no_list_and_nothing_of_it_is_fetched(user):
    sync_id = listed(user, [1, 2, 3])
    stored(1, 2)
    claim = taken(3)
    newcomer = sell(user)
    assert links(newcomer) == items(sync_id) == ledger_ids() == set()
    assert Sync.select().count() == 0
    assert not settle(claim).stored
    # And what was stored is kept for later
    assert stored_ids() == kept() == {1, 2}
    assert [row.id for row in User.select()] == [newcomer.id]


def test_another_owner_in_the_meantime_is_not_hidden(user):
    assert not former_owners.hide(user.id, "an earlier owner")
    assert not former_owners.hide(user.id, user.owner_hash, sold_before=utcnow())
    assert (User.get().id, FormerOwner.select().count()) == (user.id, 0)


def test_what_others_list_is_theirs_as_before(user, other):
    listed(other, [1, 2])
    listed(user, [1, 2, 3])
    stored(1, 3)
    sell(user)
    assert links(other) == {1, 2}
    assert ledger_ids() == {2}
    # And they can leave without taking the former owner's with them
    ledger.unlink(other.id)
    assert stored_ids() == {1, 3}


def test_the_new_owner_lists_what_is_stored_without_a_request(user):
    """ESI lists by character: what happened before the sale is in the new owner's list, too."""
    listed(user, [1, 2])
    stored(1, 2)
    newcomer = sell(user)
    assert add_page(reading(newcomer), [2]).new == 0
    assert links(newcomer) == {2}
    assert dispatch_all() == []


def test_after_thirty_days_it_is_deleted_but_for_what_others_have(user, other):
    listed(user, [1, 2, 3])
    listed(other, [2])
    stored(1, 2, 3)
    newcomer = sell(user)
    add_page(reading(newcomer), [3])
    days_later(29)
    assert former_owners.delete_due() == 0
    assert stored_ids() == {1, 2, 3}
    days_later(31)
    assert former_owners.delete_due() == 1
    assert stored_ids() == {2, 3}
    assert FormerOwner.select().count() == FormerKillmail.select().count() == 0
    assert execute("SELECT COUNT(DISTINCT killmail_id) FROM attackers").fetchone()[0] == 2
    assert former_owners.delete_due() == 0


def test_two_former_owners_of_one_killmail_are_deleted_one_after_the_other(user):
    listed(user, [1])
    stored(1)
    newcomer = sell(user)
    add_page(reading(newcomer), [1])
    sell(newcomer)
    days_later()
    assert former_owners.delete_due(1) == 1
    assert stored_ids() == {1}
    assert former_owners.delete_due(1) == 1
    assert stored_ids() == set()


def test_a_former_owner_with_many_killmails_is_deleted_in_batches_that_stay_deleted(user, other, monkeypatch):
    """Given a deletion that fails after some batches, or has no time for more, Then the next one goes on from there."""
    many = list(range(1, 2 * BATCH + 6))
    insert_former_links(user, many)
    insert_rows("user_killmails", ("user_id", "killmail_id", "linked_at"), [(other.id, 1, utcnow())])
    days_later()
    fails_at = iter([False, True])

    def fail_in_the_second_batch(*args):
        if next(fails_at):
            raise OperationalError("canceling statement due to lock timeout")
        delete_only_theirs(*args)

    with monkeypatch.context() as patched:
        patched.setattr(former_owners, "delete_only_theirs", fail_in_the_second_batch)
        with pytest.raises(OperationalError):
            former_owners.delete_due()
    assert kept() == set(many[BATCH:])
    assert stored_ids() == {1, *many[BATCH:]}
    assert FormerOwner.select().count() == 1
    # One batch, and no more
    assert former_owners.delete_due(batches=1) == 0
    assert kept() == set(many[2 * BATCH :])
    # The last one
    assert former_owners.delete_due() == 1
    assert (stored_ids(), kept(), FormerOwner.select().count()) == ({1}, set(), 0)


def test_what_is_left_of_a_deletion_under_way_can_be_given_back(user):
    many = list(range(1, BATCH + 3))
    newcomer = insert_former_links(user, many)
    days_later()
    assert former_owners.delete_due(batches=1) == 0
    assert former_owners.restore(newcomer.id) == 2
    assert former_owners.delete_due() == 0
    assert links(newcomer) == stored_ids() == set(many[BATCH:])


def insert_former_links(user: User, killmail_ids: list[int]) -> User:
    """A former owner with so many stored killmails; returns the new owner."""
    newcomer = sell(user)
    former_id = FormerOwner.get().id
    columns = (
        "killmail_id",
        "killmail_hash",
        "killmail_time",
        "solar_system_id",
        "attacker_count",
        "is_npc",
        "is_solo",
    )
    rows = [(each, "a" * 40, utcnow(), 30_000_142, 1, False, False) for each in killmail_ids]
    with db.atomic():
        Killmail.insert_many(rows, [getattr(Killmail, name) for name in columns]).execute()
        insert_rows(
            "former_killmails",
            ("former_owner_id", "killmail_id", "linked_at"),
            [(former_id, each, utcnow()) for each in killmail_ids],
        )
    return newcomer


def test_a_user_whose_sale_only_a_refresh_has_seen_is_deleted_too(user, other):
    listed(user, [1])
    stored(1)
    execute("UPDATE users SET sold_at = ? WHERE id = ?", (utcnow() - KEPT_FOR - timedelta(hours=1), user.id))
    execute("UPDATE users SET sold_at = ? WHERE id = ?", (utcnow() - KEPT_FOR + timedelta(hours=1), other.id))
    assert former_owners.delete_due() == 1
    assert [row.id for row in User.select()] == [other.id]
    assert stored_ids() == set()


def test_the_thirty_days_begin_when_a_refresh_saw_the_sale(user):
    seen_at = utcnow() - timedelta(days=20)
    execute("UPDATE users SET sold_at = ?", (seen_at,))
    sell(user_row(user))
    assert FormerOwner.get().sold_at == seen_at


def test_the_former_owner_gets_everything_back(user):
    listed(user, [1, 2])
    stored(1, 2)
    before = execute("SELECT killmail_id, linked_at FROM user_killmails").fetchall()
    newcomer = sell(user)
    assert former_owners.hide(newcomer.id, newcomer.owner_hash)
    back = make_user(character_id=user.character_id, owner_hash=user.owner_hash)
    assert former_owners.restore(back.id, owner_hash=user.owner_hash) == 2
    # When it was listed is as it was: a page that was open before is not sent it again
    assert execute("SELECT killmail_id, linked_at FROM user_killmails").fetchall() == before
    assert user_row(back).last_killmail_id == 2
    assert [row.owner_hash for row in FormerOwner.select()] == [newcomer.owner_hash]


def test_only_the_same_owner_gets_it_back_unless_the_operator_says_so(user):
    listed(user, [1])
    stored(1)
    newcomer = sell(user)
    assert former_owners.restore(newcomer.id, owner_hash=newcomer.owner_hash) is None
    assert former_owners.restore(newcomer.id, owner_hash=user.owner_hash) is None
    assert links(newcomer) == set()
    assert former_owners.restore(newcomer.id) == 1
    assert links(newcomer) == {1}
    assert former_owners.restore(newcomer.id) is None


@postgres
def test_a_killmail_that_a_page_links_meanwhile_is_not_deleted(user, other):
    listed(user, [1, 2])
    stored(1, 2)
    sell(user)
    days_later()
    sync = reading(other)
    with Another() as tick:
        with db.atomic():
            add_page(sync, [1])
            deleting = tick.start(former_owners.delete_due)
            assert waits(deleting)
        assert deleting.result() == 1
    assert stored_ids() == links(other) == {1}


@postgres
@pytest.mark.parametrize("seed", range(4))
def test_a_sale_an_unlink_a_deletion_and_a_page_at_once_lose_nothing_of_anybody_else(user, other, seed):
    third, fourth = make_user(), make_user()
    ids = list(range(1, 13))
    for pilot in (user, other, third):
        listed(pilot, ids)
    stored(*ids[:10])
    assert former_owners.hide(third.id, third.owner_hash)
    days_later()
    sync, claim = reading(fourth), taken(11)
    works: list[Callable[[], object]] = [
        partial(former_owners.hide, user.id, user.owner_hash),
        partial(ledger.unlink, other.id),
        former_owners.delete_due,
        partial(add_page, sync, ids[seed::2]),
        partial(settle, claim),
    ]
    together(*works)
    assert set(ids[seed::2]) <= stored_ids() | ledger_ids()
    assert links(fourth) == set(ids[seed::2])
    assert kept() <= stored_ids()
    assert stored_ids() == kept() | (links(fourth) - ledger_ids())
