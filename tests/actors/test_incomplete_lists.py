"""Lists that come up short: malformed entries, a missing X-Pages, empty pages, a page that another pilot's sync stored.

What there is to read is stored at once, the sync says what it lacks, and the next one reads the whole list.
"""

from __future__ import annotations

import logging

import pytest

import ledger
from api.syncs import load
from database import utcnow
from models import SyncState, User, UserKillmail
from tests.actors.asking import only_row, only_sync, stored
from tests.actors.simulated import Pilot, Simulated


def _conditional(simulated: Simulated) -> list[bool]:
    return [entry.conditional for entry in simulated.asked("recent")]


def _seen_by(pilot: Pilot) -> list[int]:
    """What the pilot sees: stored, and linked to them; newest first."""
    linked = UserKillmail.select().where(UserKillmail.user == pilot.user_id)
    return sorted({link.killmail_id for link in linked} & set(stored()), reverse=True)


# Malformed entries


def test_malformed_entries_are_left_out_and_the_sync_says_so(simulated, sync, caplog):
    pilot = simulated.pilot(5)
    simulated.fault("recent", "malformed_entries", count=1)
    with caplog.at_level(logging.WARNING, "actors.users"):
        done = sync(pilot)

    assert stored() == simulated.list_of(pilot)
    assert (done.state, done.found, done.saved, done.failed) == (SyncState.FINISHED, 5, 5, 0)
    assert done.error == "6 entries of the list could not be read; the next sync reads the whole list again"
    assert load([done.id])[done.id].error == done.error
    assert (pilot.user.last_sync_complete, pilot.user.list_etag) == (False, None)
    [line] = [record.getMessage() for record in caplog.records if "malformed" in record.getMessage()]
    assert line.startswith(f"sync {done.id}: page 1: left out 6 malformed entries, at positions 1, 2, 3, 4, 5, 6")
    assert "not a hash" not in caplog.text


def test_malformed_entries_are_no_failed_sync(simulated, sync):
    """The next one is due after the cooldown, however often it happens."""
    pilot = simulated.pilot(2)
    simulated.fault("recent", "malformed_entries")
    for _ in range(5):
        assert sync(pilot).state == SyncState.FINISHED
    assert pilot.user.consecutive_failures == 0
    assert (pilot.user.next_sync_at - utcnow()).total_seconds() <= 15 * 60
    assert pilot.user.last_full_sync_at is not None, "or each sync would be a full one and retry what was refused"


def test_after_malformed_entries_the_next_sync_reads_every_page_and_the_one_after_that_none(simulated, sync):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    simulated.fault("recent", "malformed_entries", page=2, count=1)
    sync(pilot)
    again = sync(pilot)
    assert (again.full, again.error) == (False, None)
    sync(pilot)
    assert simulated.pages_asked() == [1, 2, 3, 1, 2, 3, 1]
    assert _conditional(simulated) == [False] * 6 + [True]


def test_malformed_entries_of_a_page_that_another_worker_read_are_counted(simulated, sync, later, tick):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(4)
    simulated.fault("recent", "malformed_entries", page=1, count=1)
    simulated.fault("recent", "status:500", page=2, count=1)
    sync(pilot)
    later(200)
    tick()
    assert only_sync().state == SyncState.FINISHED
    assert only_sync().error.startswith("6 entries")
    assert not pilot.user.last_sync_complete
    assert stored() == simulated.list_of(pilot)


def test_a_page_of_ones_own_with_a_malformed_entry_does_not_end_the_reading(simulated, sync):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    sync(pilot)
    User.update(list_etag=None).execute()
    simulated.fault("recent", "malformed_entries", page=1, count=1)
    sync(pilot)
    assert simulated.pages_asked() == [1, 2, 3, 1, 2]


def test_upper_case_hashes_are_hashes(simulated, sync):
    pilot = simulated.pilot(3)
    simulated.fault("recent", "upper_case_hashes")
    done = sync(pilot)
    assert (done.saved, done.error) == (3, None)
    assert pilot.user.last_sync_complete


# X-Pages


@pytest.mark.parametrize("kind", ["no_x_pages", "malformed_x_pages"])
@pytest.mark.parametrize(
    ("killmails", "pages"),
    [
        (0, [1]),
        (2, [1, 2]),  # nothing to compare it with: the 404 of page 2 tells that there is no more
        (6, [1, 2, 3]),
        (7, [1, 2, 3]),  # a third of a page: the last one
        (8, [1, 2, 3, 4]),  # two thirds
    ],
)
def test_without_x_pages_the_list_is_read_until_it_ends(simulated, sync, kind, killmails, pages):
    simulated.configure(page_size=3)
    pilot = simulated.pilot(killmails)
    simulated.fault("recent", kind)
    done = sync(pilot)
    assert stored() == simulated.list_of(pilot)
    assert simulated.pages_asked() == pages
    assert (done.state, done.error, pilot.user.last_sync_complete) == (SyncState.FINISHED, None, True)
    assert pilot.user.last_full_sync_at is not None
    assert done.pages == len(pages)


def test_without_x_pages_sync_max_pages_is_a_bound_and_no_full_read(simulated, sync, configure):
    simulated.configure(page_size=2)
    configure(SYNC_MAX_PAGES="2")
    pilot = simulated.pilot(6)
    simulated.fault("recent", "no_x_pages")
    done = sync(pilot)
    assert simulated.pages_asked() == [1, 2]
    assert "SYNC_MAX_PAGES" in done.error
    assert (pilot.user.last_sync_complete, pilot.user.last_full_sync_at) == (False, None)


def test_without_x_pages_another_worker_reads_on(simulated, sync, later, tick):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(5)
    simulated.fault("recent", "status:500", page=3, count=1)
    simulated.fault("recent", "no_x_pages")
    sync(pilot)
    later(200)
    tick()
    assert only_sync().state == SyncState.FINISHED
    assert stored() == simulated.list_of(pilot)
    assert pilot.user.last_sync_complete


# Empty pages


@pytest.mark.parametrize("page", [1, 2, 3])
def test_an_empty_page_of_a_longer_list_is_a_list_that_moved(simulated, sync, page):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    simulated.fault("recent", "empty_page", page=page, count=1)
    first = sync(pilot)
    assert (first.state, first.saved) == (SyncState.FINISHED, 4)
    assert simulated.pages_asked() == [1, 2, 3], "the pages after it are read"
    assert (pilot.user.last_sync_complete, pilot.user.list_etag) == (False, None)
    sync(pilot)
    assert simulated.pages_asked() == [1, 2, 3, 1, 2, 3]
    assert stored() == simulated.list_of(pilot)
    assert pilot.user.last_sync_complete


def test_an_empty_page_that_another_worker_met_is_not_forgotten(simulated, sync, later, tick):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    simulated.fault("recent", "empty_page", page=2, count=1)
    simulated.fault("recent", "status:500", page=3, count=1)
    sync(pilot)
    later(200)
    tick()
    assert only_sync().state == SyncState.FINISHED
    assert not pilot.user.last_sync_complete
    sync(pilot)
    assert stored() == simulated.list_of(pilot)


# Pages that another pilot's sync stored


def test_a_page_that_anothers_sync_stored_does_not_end_the_reading(simulated, sync):
    simulated.configure(page_size=2)
    pilot, other = simulated.pilot(4), simulated.pilot()
    sync(pilot)
    alone = simulated.fight(pilot, 2)
    shared = simulated.fight(pilot, 2, other)
    sync(other)
    assert simulated.list_of(pilot)[:4] == sorted(alone + shared, reverse=True)

    done = sync(pilot)
    assert set(alone) <= set(stored())
    assert (done.saved, done.skipped) == (2, 4)
    assert simulated.asked("recent")[-1].page == 3, "the first page that was this pilot's own"


# Another character's list


@pytest.mark.parametrize("threads", [1, 4])
def test_a_list_of_another_character_is_not_taken_for_complete(simulated, sync, threads):
    pilot, other = simulated.pilot(6), simulated.pilot(4)
    simulated.fault("recent", "foreign_list", count=1, character_id=pilot.character_id, other_id=other.character_id)

    first = sync(pilot, threads=threads)
    assert (first.state, first.found, first.saved, first.skipped, first.failed) == (SyncState.FINISHED, 0, 0, 0, 0)
    assert first.error == (
        "4 killmails of the list do not name this pilot and are not shown; the next sync reads the whole list again"
    )
    assert load([first.id])[first.id].summary == "Done: nothing new"
    assert _seen_by(pilot) == []
    now = pilot.user
    assert (now.last_sync_complete, now.list_etag, now.last_full_sync_at) == (False, None, None)

    again = sync(pilot)
    assert (again.full, again.found, again.saved, again.error) == (True, 6, 6, None)
    assert _conditional(simulated) == [False, False]
    assert _seen_by(pilot) == simulated.list_of(pilot)
    assert pilot.user.last_sync_complete


def test_a_list_of_another_character_that_is_stored_already_is_not_taken_for_complete(simulated, sync):
    simulated.configure(page_size=2)
    pilot, other = simulated.pilot(6), simulated.pilot(4)
    sync(pilot)
    sync(other)
    new = simulated.fight(pilot, 1)
    simulated.fault("recent", "foreign_list", count=2, character_id=pilot.character_id, other_id=other.character_id)
    wrong = sync(pilot)
    assert (wrong.found, wrong.saved, wrong.skipped) == (0, 0, 0)
    assert "4 killmails of the list do not name this pilot" in wrong.error
    asked = len(simulated.asked("recent"))

    right = sync(pilot)
    assert (right.full, right.saved) == (True, 1)
    assert [entry.page for entry in simulated.asked("recent")[asked:]] == [1, 2, 3, 4]
    assert set(new) <= set(_seen_by(pilot))
    assert pilot.user.last_sync_complete


def test_killmails_that_came_with_anothers_list_are_linked_without_a_fetch_when_their_pilot_logs_in(simulated, sync):
    """Also those that the pilot had before an unlink, which another pilot kept."""
    pilot, other = simulated.pilot(1), simulated.pilot(4)
    shared = simulated.fight(other, 2, pilot)
    simulated.fault("recent", "foreign_list", count=1, character_id=pilot.character_id, other_id=other.character_id)
    sync(pilot)
    fetched = len(simulated.asked("killmail"))
    assert fetched == 6
    done = sync(other)
    assert (done.found, done.skipped) == (6, 6)
    assert len(simulated.asked("killmail")) == fetched
    assert _seen_by(other) == simulated.list_of(other)

    ledger.unlink(other.user_id)
    assert not set(simulated.list_of(other)) & set(stored()) - set(shared)


# Two hashes


def test_a_killmail_listed_with_two_hashes_is_stored_by_the_one_that_opens_it(simulated, sync, later, tick):
    pilot = simulated.pilot(3)
    simulated.fault("recent", "two_hashes", count=1)
    sync(pilot)
    newest = simulated.list_of(pilot)[0]
    assert newest not in stored()
    assert only_row().killmail_hash == simulated.killmail(newest).killmail_hash, "the other one is next"
    later(100)
    tick()
    assert stored() == simulated.list_of(pilot)
    assert (only_sync().state, only_sync().failed) == (SyncState.FINISHED, 0)
    assert not pilot.user.last_sync_complete, "the list is read again next time"


# A frozen ETag


def test_a_frozen_etag_is_found_out_within_two_hours(simulated, sync, later):
    pilot = simulated.pilot(3)
    sync(pilot)
    simulated.fault("recent", "frozen")
    simulated.fight(pilot, 1)
    assert sync(pilot).found == 0, "a 304 is believed at first"
    later(3_700)
    again = sync(pilot)
    assert (again.found, again.saved) == (4, 1)
    assert stored() == simulated.list_of(pilot)
    assert not again.full


def test_a_304_is_believed_for_longer_where_nothing_happens(simulated, sync, later):
    pilot = simulated.pilot(3)
    sync(pilot)
    later(8 * 86_400)
    User.update(last_full_sync_at=utcnow(), list_read_at=utcnow()).execute()
    later(5 * 3600)
    sync(pilot)
    later(2 * 3600)
    sync(pilot)
    sync(pilot)
    assert _conditional(simulated) == [False, True, False, True]
