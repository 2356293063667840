"""A killmail is visible to a pilot only if its body names them, whatever ESI's list said and in whatever order."""

from __future__ import annotations

import pytest

import ledger
from database import db, execute
from models import UserKillmail
from tests.unit.ledger.at_once import Another, together, waits
from tests.unit.ledger.world import (
    add_page,
    counts,
    dispatch_all,
    end_listing,
    finished,
    items,
    joined,
    ledger_ids,
    links,
    listed,
    make_killmail,
    make_user,
    reading,
    settle,
    stored,
    stored_ids,
    taken,
    user_row,
)

postgres = pytest.mark.parametrize("any_db_url", ["postgres"], indirect=True)


def test_a_wrong_list_shows_nothing_once_its_killmails_are_stored(user, other, caplog):
    sync_id = listed(user, [1, 2])
    listed(other, [2])
    stored(1, names=[user.character_id])
    stored(2, names=[other.character_id])
    assert links(user) == {1}
    assert links(other) == {2}
    assert stored_ids() == {1, 2}
    assert f"killmail 2: it does not name user {user.id}" in caplog.text
    # And its sync ends, counts it, and takes its own newest for the newest
    assert items(sync_id) == set()
    assert finished(sync_id).last_killmail_id == 1
    assert counts(sync_id) == (2, 2, 0, 0)


def test_the_victim_is_named_too(user):
    listed(user, [1])
    victim = make_killmail(1).victim.character_id
    execute("UPDATE users SET character_id = ?", (victim,))
    stored(1, names=())
    assert links(user_row(user)) == {1}


def test_what_is_stored_already_is_linked_only_where_it_names_the_pilot(user, other):
    listed(other, [1, 2, 3])
    stored(1, 3, names=[other.character_id])
    stored(2, names=[user.character_id, other.character_id])
    added = add_page(reading(user), [3, 2, 1, 4])
    assert links(user) == {2, 4}
    assert (added.new, added.known) == (1, 3)
    assert ledger_ids() == {4}, "nothing of it is fetched again"


def test_a_killmail_that_names_none_of_its_pilots_is_hidden_and_not_fetched_again(user, other):
    sync_id = listed(user, [1])
    stored(1, names=[other.character_id])
    finished(sync_id)
    assert UserKillmail.select().count() == 0
    assert add_page(reading(user, force=True), [1]).new == 0
    assert stored_ids() == {1}
    # And it is there for the pilot whom it names
    add_page(reading(other), [1])
    assert links(other) == {1}
    assert dispatch_all() == []


def test_a_link_that_exists_is_not_checked_again(user):
    """What a page of known killmails costs does not grow with their attackers."""
    sync_id = listed(user, [1, 2])
    stored(1, 2)
    finished(sync_id)
    statements: list[str] = []

    def note(event: object) -> None:
        statements.append(event.sql)  # type: ignore[attr-defined]

    sync = reading(user, force=True)
    db.obj.query_hooks.append(note)
    try:
        add_page(sync, [1, 2])
    finally:
        db.obj.query_hooks.remove(note)
    assert not [sql for sql in statements if "attackers" in sql or "INSERT INTO user_killmails" in sql]


@postgres
def test_a_page_that_waits_for_the_settle_of_a_foreign_killmail_links_nothing(user, other):
    listed(other, [1])
    claim, sync = taken(1), reading(user)
    with Another() as lister:
        with db.atomic():
            assert settle(claim, [other.character_id]).stored
            adding = lister.start(add_page, sync, [1])
            assert waits(adding)
        adding.result()
    assert (links(user), links(other)) == (set(), {1})


@postgres
def test_a_settle_that_waits_for_a_page_withdraws_the_link_which_that_page_wrote(user, other):
    listed(other, [1])
    claim, sync = taken(1), reading(user)
    with Another() as worker:
        with db.atomic():
            add_page(sync, [1])
            settling = worker.start(settle, claim, [other.character_id])
            assert waits(settling)
        assert settling.result().stored
    assert (links(user), links(other)) == (set(), {1})


@postgres
@pytest.mark.parametrize("seed", range(4))
def test_foreign_pages_settles_and_unlinks_at_once_never_deadlock(user, other, seed):
    third = make_user()
    ids = list(range(1, 21))
    for pilot in (user, other):
        listed(pilot, ids)
    claims = [taken(killmail_id) for killmail_id in ids]
    sync = reading(third)

    def settle_all() -> None:
        for claim in claims if seed % 2 else reversed(claims):
            settle(claim, [other.character_id])

    together(lambda: add_page(sync, ids[::-1]), settle_all, lambda: ledger.unlink(user.id))
    assert links(third) <= ledger_ids()
    assert links(other) == set(ids)


def test_a_page_with_a_foreign_killmail_is_no_reason_to_stop_early(user, other):
    """A list that holds one was answered for somebody else, maybe: what comes after it is read."""
    listed(other, [1, 2])
    stored(1, 2, names=[other.character_id])
    assert add_page(reading(user), [1, 2]).foreign == 2


def test_a_full_sync_that_is_asked_for_does_not_bring_it_back(user, other):
    sync_id = listed(user, [1, 2])
    stored(1, names=[other.character_id])
    stored(2)
    finished(sync_id)
    sync = reading(user, force=True)
    first = add_page(sync, [1], pages=2)
    joined(user, full=True)
    back = add_page(first.sync, [2])
    assert not back.written
    end_listing(add_page(back.sync, [1, 2]).sync)
    assert links(user) == {2}
