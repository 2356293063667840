"""add_page: whose page it was before, and what the next worker is told of the pages so far."""

from __future__ import annotations

import ledger
from database import execute
from ledger.reading import Reading
from tests.unit.ledger.world import (
    ETAG,
    add_page,
    claimed,
    end_listing,
    finished,
    joined,
    listed,
    lose_leases,
    opened,
    reading,
    references,
    stored,
)


def test_a_page_is_ones_own_only_if_it_was_before_this_sync(user, other):
    end_listing(add_page(reading(other), [1, 2, 3]).sync)
    stored(1, 2, 3)
    mine = reading(user)
    seen: set[int] = set()
    first = add_page(mine, [3, 2], pages=3, seen=seen)
    assert (first.new, first.own) == (0, False), "stored for another pilot"
    again = add_page(first.sync, [2, 3], pages=3, seen=seen)
    assert not again.own, "linked by this very sync"
    last = add_page(again.sync, [1], pages=3, seen=seen)
    end_listing(last.sync)
    finished(mine.sync_id)

    later = claimed(opened(user, force=True))
    first = add_page(later, [3, 2], pages=3)
    assert first.own
    assert not add_page(first.sync, [], pages=3).own, "an empty page says nothing"


def test_a_page_with_a_killmail_that_is_not_stored_is_not_ones_own(user):
    listed(user, [1, 2])
    stored(1)
    execute("UPDATE syncs SET state = 'FINISHED', finished_at = started_at")
    assert not add_page(claimed(opened(user, force=True)), [1, 2]).own


def test_what_a_reading_lacks_is_kept_for_the_worker_that_reads_on(user):
    sync = reading(user)
    so_far = Reading(pages=None, largest_page=20, moved=True, unreadable=3, lacking=True, last_page=5)
    ledger.add_page(sync, references([1]), reading=so_far, etag=ETAG, seen=set())
    lose_leases()
    assert claimed(sync.sync_id).reading == so_far


def test_the_reading_starts_again_with_page_one(user):
    sync = reading(user)
    ledger.add_page(sync, references([1]), reading=Reading(3, 20, True, 3), etag=ETAG, seen=set())
    joined(user, full=True)
    lose_leases()
    assert claimed(sync.sync_id).reading == Reading()
