"""Lists that come up short: malformed entries, a missing X-Pages, empty pages, a page that another pilot's sync stored.

What there is to read is stored at once, the sync says what it lacks, and the next one reads the whole list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

import ledger
import runtime
from api.syncs import load
from database import utcnow
from esi.client import NotModified
from esi.values import RecentPage
from models import Killmail, SyncState, User, UserKillmail
from tests.actors.asking import only_row, only_sync, stored
from tests.actors.simulated import Pilot, Simulated

LACKING = "the list changed, or lacked a page, while it was read; the next sync reads all of it again"

Spoil = Callable[[RecentPage, int], RecentPage]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Spoil | None], None]]:
    """From now on every page of a list (with its number) is what this makes of it; None: as ESI sends it."""
    with monkeypatch.context() as changes:

        def start(change: Spoil | None) -> None:
            changes.undo()
            client = runtime.esi()
            read = client.recent_killmails

            def recent_killmails(character_id: int, token: str, number: int, *rest: object) -> RecentPage | NotModified:
                page = read(character_id, token, number, *rest)  # type: ignore[arg-type]
                return page if isinstance(page, NotModified) or change is None else change(page, number)

            changes.setattr(client, "recent_killmails", recent_killmails)

        yield start


def cut(page: RecentPage, entries: int) -> RecentPage:
    """The page with its first entries alone."""
    return replace(page, references=page.references[:entries], entries=entries)


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
        (0, [1, 2]),  # an empty page alone may be a mistake
        (2, [1, 2]),  # nothing to compare it with: the 404 of page 2 tells that there is no more
        (6, [1, 2, 3]),  # two full pages
        (7, [1, 2, 3, 4]),  # so may a short one
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


@pytest.mark.parametrize("entries", [0, 5])
def test_without_x_pages_an_empty_or_short_page_in_the_middle_does_not_end_the_list(simulated, sync, spoil, entries):
    simulated.configure(page_size=20)
    pilot = simulated.pilot(55)
    spoil(lambda page, number: replace(cut(page, entries) if number == 2 else page, pages=None))
    first = sync(pilot)
    assert (first.state, first.found, first.error) == (SyncState.FINISHED, 35 + entries, LACKING)
    assert not pilot.user.last_sync_complete
    spoil(None)
    assert sync(pilot).error is None
    assert stored() == simulated.list_of(pilot)


# A list that is cut at its end


def test_an_x_pages_that_is_too_low_is_found_out_when_page_one_is_next_read_whole(simulated, sync, spoil, later):
    simulated.configure(page_size=20)
    pilot = simulated.pilot(55)
    spoil(lambda page, _number: replace(page, pages=1))
    first = sync(pilot)
    assert (first.found, first.error) == (20, None), "nothing tells it from a list of 20"
    spoil(None)
    later(3_700)
    sync(pilot)
    assert stored() == simulated.list_of(pilot)


def test_sync_max_pages_allows_a_list_of_so_many_full_pages(simulated, sync, configure):
    simulated.configure(page_size=20)
    configure(SYNC_MAX_PAGES="2")
    pilot = simulated.pilot(40)
    for _ in range(2):
        assert sync(pilot).error is None
    assert simulated.pages_asked() == [1, 2, 1, 2]
    assert pilot.user.last_sync_complete


def test_a_last_page_as_full_as_the_others_is_followed_by_one_more_look(simulated, sync, spoil):
    simulated.configure(page_size=20)
    pilot = simulated.pilot(55)
    spoil(lambda page, _number: replace(page, pages=page.pages and 2))
    first = sync(pilot)
    assert (first.saved, first.error) == (55, LACKING)
    assert simulated.pages_asked() == [1, 2, 3, 4]
    assert not pilot.user.last_sync_complete


def test_a_last_page_that_was_cut_is_found_out_by_the_next_sync(simulated, sync, spoil):
    simulated.configure(page_size=20)
    pilot = simulated.pilot(55)
    spoil(lambda page, number: cut(page, 3) if number == 3 else page)
    assert sync(pilot).found == 43
    spoil(None)
    sync(pilot)
    assert stored() == simulated.list_of(pilot)


def test_a_list_that_is_known_costs_one_request_and_no_page(simulated, sync):
    simulated.configure(page_size=20)
    pilot = simulated.pilot(55)
    for _ in range(4):
        sync(pilot)
    assert simulated.pages_asked() == [1, 2, 3, 1, 2, 3, 1, 1], "the second reading proves the first"
    assert _conditional(simulated) == [False] * 6 + [True] * 2


def test_a_first_list_of_one_page_is_proven_by_itself(simulated, sync):
    pilot = simulated.pilot(30)
    sync(pilot)
    sync(pilot)
    assert _conditional(simulated) == [False, True]


def test_a_list_that_is_shorter_than_before_is_read_again_and_the_pilot_is_told(simulated, sync, spoil, caplog):
    # Given a pilot whose list is known
    simulated.configure(page_size=20)
    pilot = simulated.pilot(55)
    sync(pilot)
    sync(pilot)
    # When the last page of a full reading is cut
    spoil(lambda page, number: cut(page, 3) if number == 3 else page)
    with caplog.at_level(logging.INFO, "ledger.listing"):
        done = sync(pilot, full=True)
    told = "the list was shorter than before (43 entries after 55); the next sync reads all of it again"
    assert (done.state, done.error) == (SyncState.FINISHED, told)
    assert f"sync {done.id}: {told}" in caplog.text
    assert not pilot.user.last_sync_complete
    # Then the next sync reads all of it, and is content
    spoil(None)
    asked = len(simulated.pages_asked())
    assert sync(pilot).error is None
    assert simulated.pages_asked()[asked:] == [1, 2, 3]
    assert pilot.user.last_sync_complete


def test_a_list_that_stays_shorter_is_believed_the_second_time(simulated, sync, spoil):
    simulated.configure(page_size=20)
    pilot = simulated.pilot(55)
    sync(pilot)
    sync(pilot)
    spoil(lambda page, number: cut(page, 3) if number == 3 else page)
    assert sync(pilot, full=True).error is not None
    assert sync(pilot).error is None
    assert pilot.user.last_sync_complete


def test_a_list_that_lacks_what_became_too_old_for_it_is_whole(simulated, sync, spoil):
    # Given a pilot whose oldest twelve killmails are 90 days old
    simulated.configure(page_size=20)
    pilot = simulated.pilot(55)
    sync(pilot)
    sync(pilot)
    oldest = simulated.list_of(pilot)[-12:]
    then = utcnow() - timedelta(days=90)
    Killmail.update(killmail_time=then).where(Killmail.killmail_id.in_(oldest)).execute()
    # When they have left the list
    spoil(lambda page, number: cut(page, 3) if number == 3 else page)
    done = sync(pilot, full=True)
    # Then nothing is missing
    assert done.error is None
    assert pilot.user.last_sync_complete
    assert pilot.user.list_entries == 43


# What the pilot is told


def test_a_pilot_is_told_that_a_list_lacked_a_page(simulated, sync, caplog):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    simulated.fault("recent", "empty_page", page=2, count=1)
    with caplog.at_level(logging.INFO, "ledger.listing"):
        done = sync(pilot)
    assert (done.state, done.saved) == (SyncState.FINISHED, 4)
    assert load([done.id])[done.id].error == LACKING
    assert [record.getMessage() for record in caplog.records if LACKING in record.getMessage()] == [
        f"sync {done.id}: {LACKING}"
    ]
    assert sync(pilot).error is None


def test_a_new_killmail_that_moved_the_list_is_not_worth_a_word(simulated, sync, spoil):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)

    def fight_after_page_one(page: RecentPage, number: int) -> RecentPage:
        if number == 1:
            simulated.fight(pilot, 1)
        return page

    spoil(fight_after_page_one)
    done = sync(pilot)
    assert (done.state, done.saved, done.error) == (SyncState.FINISHED, 6, None)
    assert not pilot.user.last_sync_complete, "the next one reads all of it"
    spoil(None)
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
