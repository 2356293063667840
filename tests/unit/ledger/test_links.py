"""A killmail is visible to a pilot only if its body names them, whatever ESI's list said and in whatever order."""

from __future__ import annotations

import pytest

import ledger
from database import db, execute, utcnow
from models import SyncState, Trigger, User, UserKillmail
from tests.unit.ledger.at_once import Another, together, waits
from tests.unit.ledger.world import (
    COOLDOWN,
    add_page,
    claimed,
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
    make_due,
    make_killmail,
    make_user,
    opened,
    reading,
    settle,
    stored,
    stored_ids,
    sync_row,
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
    # And its sync ends without it, says so, and takes its own newest for the newest
    assert items(sync_id) == set()
    assert finished(sync_id).last_killmail_id == 1
    assert counts(sync_id) == (1, 1, 0, 0)
    assert sync_row(sync_id).error.startswith("1 killmail of the list does not name this pilot and is not shown")


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
    User.update(last_full_sync_at=utcnow()).execute()
    sync = reading(user, force=True)
    first = add_page(sync, [1], pages=2)
    joined(user, full=True)
    back = add_page(first.sync, [2])
    assert not back.written
    end_listing(add_page(back.sync, [1, 2]).sync)
    assert links(user) == {2}


# A list that was another's is not taken for complete


def is_distrusted(user: User) -> bool:
    """Whether the next sync reads every page, without an ETag."""
    now = user_row(user)
    assert (now.list_etag is None) == (not now.last_sync_complete)
    return now.list_etag is None and now.last_full_sync_at is None


def test_a_list_whose_killmails_name_another_is_not_complete(user, other):
    """The usual order: the list ends, its killmails are stored, the sync ends."""
    sync_id = listed(user, [1, 2, 3])
    assert not is_distrusted(user), "nothing is known yet"
    stored(1, 2, 3, names=[other.character_id])
    assert is_distrusted(user)
    assert finished(sync_id).saved == 0
    assert is_distrusted(user)
    assert counts(sync_id) == (0, 0, 0, 0)
    assert sync_row(sync_id).error == (
        "3 killmails of the list do not name this pilot and are not shown; the next sync reads the whole list again"
    )
    assert ledger.open_sync(user.id, Trigger.LOGIN, cooldown=COOLDOWN, force=True).full


def test_a_killmail_that_is_stored_before_the_list_ends_counts_as_well(user, other):
    first = add_page(reading(user, full=True), [1, 2], pages=2)
    stored(1, names=[other.character_id])
    end_listing(add_page(first.sync, [3], pages=2).sync)
    assert is_distrusted(user)
    stored(2, 3)
    finished(first.sync.sync_id)
    assert counts(first.sync.sync_id) == (2, 2, 0, 0)
    assert is_distrusted(user)


def test_a_killmail_that_is_stored_long_after_its_sync_counts_as_well(user, other):
    sync_id = listed(user, [1, 2])
    stored(2)
    failed(1, times=4)
    finished(sync_id)
    assert not is_distrusted(user)
    make_due(1)
    stored(1, names=[other.character_id])
    assert is_distrusted(user)
    assert counts(sync_id) == (2, 1, 0, 1), "what an ended sync counted stays"


def test_a_page_of_stored_killmails_that_name_another_is_not_complete(user, other):
    listed(other, [1, 2])
    stored(1, 2, names=[other.character_id])
    sync = reading(user, full=True)
    sync_id = sync.sync_id
    end_listing(add_page(sync, [1, 2]).sync)
    finished(sync_id)
    assert is_distrusted(user)
    assert counts(sync_id) == (0, 0, 0, 0)
    assert sync_row(sync_id).error.startswith("2 killmails of the list do not name this pilot")
    assert not is_distrusted(other)


def test_a_foreign_page_counts_also_where_its_list_is_never_read_to_the_end(user, other):
    listed(other, [1])
    stored(1, names=[other.character_id])
    sync = add_page(reading(user), [1], pages=2).sync
    assert ledger.fail_sync(sync.sync_id, "ESI answered 500")
    assert is_distrusted(user)


def test_a_foreign_page_that_another_worker_read_is_not_forgotten(user, other):
    listed(other, [1])
    stored(1, names=[other.character_id])
    sync = add_page(reading(user, full=True), [1], pages=2).sync
    execute("UPDATE syncs SET claimed_until = NULL WHERE id = ?", (sync.sync_id,))
    end_listing(add_page(claimed(sync.sync_id), [2], pages=2).sync)
    assert is_distrusted(user)


def test_a_304_to_the_etag_of_anothers_list_is_not_believed(user, other):
    """The killmail of the earlier list is stored while ESI is asked whether that list has changed."""
    sync_id = listed(user, [1, 2])
    stored(2)
    failed(1, times=4)
    finished(sync_id)
    sync = reading(user, force=True)
    make_due(1)
    stored(1, names=[other.character_id])
    assert not ledger.finish_unchanged(sync, fresh_for=300, cooldown=COOLDOWN)
    end_listing(sync)
    assert sync_row(sync.sync_id).state == SyncState.FETCHING
    assert is_distrusted(user)


def test_after_a_right_list_all_is_as_before(user, other):
    sync_id = listed(user, [1])
    stored(1, names=[other.character_id])
    finished(sync_id)
    sync_id = listed(user, [2], force=True)
    stored(2)
    finished(sync_id)
    assert not is_distrusted(user)
    assert (counts(sync_id), sync_row(sync_id).error) == ((1, 1, 0, 0), None)


def test_a_list_that_is_read_again_from_its_start_counts_foreign_entries_once(user, other):
    sync = reading(user)
    first = add_page(sync, [1, 2], pages=2)
    stored(1, names=[other.character_id])
    joined(user, full=True)
    execute("UPDATE syncs SET claimed_until = NULL")
    end_listing(add_page(claimed(sync.sync_id), [1, 2]).sync)
    stored(2)
    finished(first.sync.sync_id)
    assert counts(sync.sync_id) == (1, 1, 0, 0)
    assert sync_row(sync.sync_id).foreign_entries == 1


def test_only_the_pilot_whose_list_was_wrong_reads_it_again(user, other):
    listed(user, [1, 2])
    theirs = listed(other, [1, 2])
    stored(1, 2, names=[other.character_id])
    assert is_distrusted(user)
    assert not is_distrusted(other)
    finished(theirs)
    assert counts(theirs) == (2, 2, 0, 0)


def test_a_settle_that_withdraws_links_costs_a_few_statements(user, other):
    """However long the list is, and however many lists had it."""
    pilots = [user, *(make_user() for _ in range(5))]
    for pilot in pilots:
        listed(pilot, range(1, 101))
    claim = taken(1)
    statements: list[str] = []

    def note(event: object) -> None:
        statements.append(event.sql)  # type: ignore[attr-defined]

    db.obj.query_hooks.append(note)
    try:
        assert settle(claim, [other.character_id]).stored
    finally:
        db.obj.query_hooks.remove(note)
    assert all(is_distrusted(pilot) for pilot in pilots)
    assert len(statements) < 40


@postgres
def test_a_sync_that_ends_while_its_last_killmail_is_withdrawn_counts_it_right(user, other):
    sync_id = listed(user, [1])
    claim = taken(1)
    with Another() as finisher:
        with db.atomic():
            assert settle(claim, [other.character_id]).stored
            finishing = finisher.start(finished, sync_id)
            assert waits(finishing)
        finishing.result()
    assert (counts(sync_id), sync_row(sync_id).foreign_entries) == ((0, 0, 0, 0), 1)
    assert is_distrusted(user)


@postgres
def test_a_killmail_that_is_withdrawn_while_its_list_ends_is_not_forgotten(user, other):
    sync = add_page(reading(user, full=True), [1]).sync
    claim = taken(1)
    with Another() as worker:
        with db.atomic():
            end_listing(sync)
            settling = worker.start(settle, claim, [other.character_id])
            assert waits(settling)
        assert settling.result().stored
    assert is_distrusted(user)


@postgres
def test_a_sync_that_is_opened_while_its_pilot_is_locked_is_locked_as_well(user, other):
    """A settle that holds the user and not the sync, and a page that holds the sync, would wait for each other."""
    sync_id = listed(user, [1])
    failed(1, times=4)
    finished(sync_id)
    make_due(1)
    claim = taken(1)
    with Another() as worker:
        with db.atomic():
            execute("SELECT id FROM users WHERE id = ? FOR UPDATE", (user.id,))
            settling = worker.start(settle, claim, [other.character_id])
            assert waits(settling)
            new = opened(user, force=True)
        assert settling.result().stored
    assert sync_row(new).list_moved
    assert is_distrusted(user)


@postgres
@pytest.mark.parametrize("seed", range(6))
def test_withdrawals_ends_pages_and_requests_at_once_never_deadlock(user, other, seed):
    ids = list(range(1, 13))
    old = listed(user, ids)
    claims = [taken(killmail_id) for killmail_id in ids]
    execute("UPDATE ledger SET attempts = 4")
    finished(old)
    listed(other, ids)
    listing = reading(user, force=True)

    def settle_all() -> None:
        for claim in claims if seed % 2 else reversed(claims):
            settle(claim, [other.character_id])

    def read_and_end() -> None:
        added = add_page(listing, ids[::-1])
        end_listing(added.sync)
        ledger.finalize(listing.sync_id, COOLDOWN)

    def ask() -> None:
        for _ in range(5):
            ledger.open_sync(user.id, Trigger.LOGIN, cooldown=COOLDOWN, full=bool(seed % 3))

    together(settle_all, read_and_end, ask)
    assert links(user) == set()
    assert links(other) == set(ids)
    assert is_distrusted(user)
