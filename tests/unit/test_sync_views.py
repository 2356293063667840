"""A sync as its pilot sees it, on both engines: where it stands in one line, how far it is, and what failed and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from peewee import Database

from api import syncs
from api.syncs import FailureView, SyncView
from database import utcnow
from models import Sync, SyncItem
from tests.web_app import make_sync, make_user, wait_for_killmail
from web import choosing

ENDED = datetime(2026, 11, 23, 14, 0)


@pytest.fixture(autouse=True)
def _database(any_db: Database) -> None:
    """Every test here runs on both engines."""


def view_of(**columns: Any) -> SyncView:
    user = make_user()
    make_sync(user.id, **columns)
    view = syncs.latest_of(user.id)
    assert view is not None
    return view


@pytest.mark.parametrize(
    ("columns", "summary", "progress"),
    [
        ({}, "Queued: a worker takes it up in a moment", None),
        ({"state": "LISTING"}, "Listing: asking ESI for your killmails", None),
        ({"state": "LISTING", "pages": 3, "next_page": 2}, "Listing page 2 of 3", 0.1 / 3),
        ({"state": "LISTING", "pages": 1, "next_page": 2, "found": 9}, "Listing page 1 of 1", 0.1),
        ({"state": "LISTING", "pages": 1, "next_page": 5}, "Listing page 1 of 1", 0.1),
        ({"state": "FETCHING", "found": 1431, "skipped": 1000}, "Fetching 431 of 431", 1.0),
        ({"state": "FETCHING"}, "Fetching 0 of 0", 1.0),
        ({"state": "FINISHED", "finished_at": ENDED, "found": 1200, "skipped": 1200},
         "Done: nothing new among 1,200 killmails", 1.0),
        ({"state": "FINISHED", "finished_at": ENDED, "found": 1, "skipped": 1},
         "Done: nothing new among 1 killmail", 1.0),
        ({"state": "FINISHED", "finished_at": ENDED}, "Done: nothing new", 1.0),
        ({"state": "FINISHED", "finished_at": ENDED, "found": 5, "saved": 5}, "Done: 5 new", 1.0),
        ({"state": "FINISHED", "finished_at": ENDED, "found": 5, "saved": 3, "failed": 2},
         "Done: 3 new, 2 could not be had yet", 1.0),
        ({"state": "FAILED", "finished_at": ENDED}, "Stopped before the end of your list", None),
    ],
)  # fmt: skip
def test_one_line_and_a_bar(columns: dict[str, Any], summary: str, progress: float | None) -> None:
    view = view_of(**columns)
    assert view.summary == summary
    assert view.progress == (progress if progress is None else pytest.approx(progress))


def test_what_is_still_to_come_is_not_done() -> None:
    user = make_user()
    sync = make_sync(user.id, state="FETCHING", found=4)
    wait_for_killmail(sync, 1)
    view = syncs.active_of([user.id])[user.id]
    assert view.summary == "Fetching 3 of 4"
    assert view.progress == pytest.approx(0.1 + 0.9 * 0.75)


def test_waiting_keeps_the_place() -> None:
    view = view_of(state="FETCHING", found=4, waiting_for="ESI is down", waiting_until=utcnow() + timedelta(minutes=5))
    assert (view.state, view.phase, view.summary) == ("WAITING", "FETCHING", "Fetching 4 of 4")


def test_failures_say_why_and_when_it_goes_on() -> None:
    # Given an ended sync that gave up on five: two to be tried again, one rejected, and two had since
    user = make_user()
    sync = make_sync(user.id, state="FINISHED", finished_at=ENDED, found=9, saved=4, failed=5)
    soon, later = utcnow().replace(microsecond=0) + timedelta(minutes=3), utcnow() + timedelta(hours=3)
    wait_for_killmail(sync, 1, state="deferred", attempts=4, not_before=later, last_error="502")
    wait_for_killmail(sync, 2, state="deferred", attempts=9, not_before=soon, last_error="502")
    wait_for_killmail(sync, 3, state="rejected", attempts=1, last_error="no such killmail")
    # And one that is no failure yet, wanted by this one and another
    other = make_sync(make_user(90_000_002).id, state="FETCHING", found=1)
    wait_for_killmail(other, 4, state="deferred", attempts=1, not_before=soon, last_error="timeout")
    SyncItem.create(sync=sync.id, killmail_id=4, force_insert=True)
    # When they are shown
    view = syncs.load([sync.id])[sync.id]
    # Then each kind says how many, why, and when it is tried again
    assert view.failures == [FailureView(2, "502", soon), FailureView(1, "no such killmail", None)]
    assert syncs.load([other.id])[other.id].failures == ()


def test_the_cool_down_ends_when_asking_helps_again() -> None:
    user = make_user(last_killmail_sync_at=utcnow() - timedelta(minutes=5))
    ends_at = syncs.cool_down_ends_at(user, 15)
    assert ends_at == user.last_killmail_sync_at + timedelta(minutes=15)
    assert syncs.cool_down_ends_at(user, 5) is None
    assert syncs.cool_down_ends_at(make_user(2), 15) is None
    assert syncs.cool_down_ends_at(make_user(3, next_sync_at=None, last_killmail_sync_at=utcnow()), 15) is None


def test_syncs_are_counted_for_who_leaves() -> None:
    user = make_user()
    make_sync(user.id, state="FINISHED", finished_at=ENDED)
    make_sync(user.id)
    make_sync(make_user(2).id)
    assert syncs.count_of(user) == 2
    assert Sync.select().count() == 3


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\u202e", "nothing", "' OR 1=1 --", "%", "_"])
def test_a_filter_that_names_nothing_chooses_nothing(text: str) -> None:
    choice = choosing.read({"ship": text})
    assert choice.chosen is None
    assert len(choice.problems) == 1
