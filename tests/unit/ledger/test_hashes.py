"""One killmail, two hashes: a row keeps both, and refusals make them take turns."""

from __future__ import annotations

import pytest

import ledger
from database import execute
from ledger.reading import Reading
from models import Fetch
from tests.unit.ledger.world import (
    ETAG,
    add_page,
    claimed,
    end_listing,
    hash_of,
    listed,
    make_due,
    opened,
    reading,
    rejected,
    row,
    settle,
    taken,
)

A, B, C = (hash_of(1, version) for version in range(3))


def add_both(sync: ledger.ClaimedSync, first: str = A, second: str = B) -> ledger.PageAdded:
    """A page that lists killmail 1 with these two."""
    added = ledger.add_page(
        sync, [(1, first)], reading=Reading(pages=1), etag=ETAG, seen=set(), other_hashes={1: second}
    )
    assert added is not None
    return added


def hashes() -> tuple[str, str | None]:
    found = row(1)
    return found.killmail_hash, found.other_hash


def refused() -> str:
    """Killmail 1 is refused as the actor does it; returns the hash that was asked for."""
    make_due(1)
    claim = taken(1)
    ledger.try_other_hash(claim)
    ledger.defer(claim, "ESI answered 422", refused=True)
    return claim.killmail_hash


def test_a_page_with_two_hashes_keeps_both_and_refusals_make_them_take_turns(user):
    add_both(reading(user))
    assert hashes() == (A, B)
    assert [refused() for _ in range(4)] == [A, B, A, B]
    assert row(1).refusals == 4


def test_the_hash_that_opened_it_is_stored(user):
    add_both(reading(user))
    refused()
    make_due(1)
    assert settle(taken(1)).stored
    assert execute("SELECT killmail_hash FROM killmails").fetchall() == [(B,)]


def test_without_another_hash_a_refusal_changes_nothing(user):
    add_page(reading(user), [1])
    assert not ledger.try_other_hash(taken(1))
    assert hashes() == (A, None)


def test_a_claim_that_is_lost_changes_nothing(user):
    add_both(reading(user))
    claim = taken(1)
    Fetch.update(state="pending", claimed_until=None).execute()
    assert not ledger.try_other_hash(claim)
    assert hashes() == (A, B)


@pytest.mark.parametrize("state", ["pending", "sent", "fetching"])
def test_another_hash_on_a_later_page_or_in_anothers_list_is_kept_beside_the_first(user, other, state):
    listed(user, [1])
    Fetch.update(state=state).execute()
    listed(other, [1], version=1)
    assert hashes() == (A, B)
    assert row(1).state == state


def test_a_third_hash_replaces_the_second(user, other):
    add_both(reading(user))
    add_page(reading(other), [1], version=2)
    assert hashes() == (A, C)


def test_a_rejected_killmail_comes_back_for_a_hash_that_was_not_tried_and_only_for_that(user, other):
    listed(user, [1])
    rejected(1)
    sync = reading(other)
    end_listing(add_both(sync).sync)
    assert (row(1).state, row(1).refusals, hashes()) == ("pending", 0, (A, B))
    rejected(1)
    # Both were tried: whichever of them is listed first from now on
    execute("UPDATE syncs SET state = 'FINISHED', finished_at = started_at")
    add_both(claimed(opened(user, force=True)), B, A)
    assert row(1).state == "rejected"


def test_a_rejected_killmail_tries_the_new_hash_first(user, other):
    listed(user, [1])
    rejected(1)
    listed(other, [1], version=1)
    assert (row(1).state, hashes()) == ("pending", (B, A))
