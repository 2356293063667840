"""What a class of syncs waits for: one row, which the views of its syncs read."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from api import syncs
from database import utcnow
from ledger import waits
from models import Sync, Trigger, User, Wait
from tests.unit.esi.limiting import counted_statements
from tests.unit.ledger.world import HOUR, failed, finished, listed, make_user, reading, stored

pytestmark = pytest.mark.usefixtures("any_db")


def shown(sync_id: int) -> tuple[object, object]:
    view = syncs.load([sync_id])[sync_id]
    return view.waiting_until, view.waiting_for


@pytest.fixture
def user() -> User:
    return make_user()


def test_a_closed_gate_is_news_once() -> None:
    until = utcnow() + timedelta(minutes=3)
    assert waits.note(waits.BACKGROUND, until, "r" * 1000)
    assert not waits.note(waits.BACKGROUND, until + timedelta(seconds=1), "r" * 1000)
    assert waits.current() == {waits.BACKGROUND: waits.Wait(until, "r" * 300)}
    assert waits.note(waits.BACKGROUND, until + HOUR, "r" * 1000)
    assert waits.note(waits.BACKGROUND, until + HOUR, "another reason")


def test_a_wait_ends_when_its_time_has_passed_or_the_gate_opens_before() -> None:
    assert not waits.end([waits.INTERACTIVE, waits.BACKGROUND])
    waits.note(waits.INTERACTIVE, utcnow() - timedelta(seconds=5), "over")
    assert waits.current() == {}
    waits.note(waits.INTERACTIVE, utcnow() + HOUR, "closed")
    waits.note(waits.LISTS, utcnow() + HOUR, "closed")
    assert waits.end([waits.INTERACTIVE, waits.BACKGROUND])
    assert list(waits.current()) == [waits.LISTS]


def test_each_sync_shows_the_wait_of_its_class() -> None:
    background, login = listed(make_user(), [1]), listed(make_user(), [2], Trigger.LOGIN)
    listing = reading(make_user()).sync_id
    queued = Sync.create(user=make_user(), trigger=Trigger.SCHEDULE, priority=3).id
    until = utcnow() + timedelta(minutes=3)
    waits.note(waits.BACKGROUND, until, "ESI is down")
    assert shown(background) == (until, "ESI is down")
    assert shown(login) == shown(listing) == shown(queued) == (None, None)
    waits.note(waits.LISTS, until, "ESI is down")
    assert shown(queued) == (until, "ESI is down")
    assert shown(listing) == (None, None), "a worker reads it now"


def test_three_thousand_syncs_wait_at_the_price_of_one_row(any_db, user: User) -> None:
    listed(user, [1])
    for number in range(20):
        listed(make_user(), [100 + number])
    with counted_statements(any_db) as statements:
        waits.note(waits.BACKGROUND, utcnow() + HOUR, "closed")
    assert len(statements) <= 3, "one statement, and its transaction"
    assert Wait.select().count() == 1
    assert Sync.select().where(Sync.waiting_until.is_null(False)).count() == 0


def test_a_sync_that_only_waits_for_another_try_says_so(user: User) -> None:
    sync_id = listed(user, [1, 2])
    failed(1)
    assert shown(sync_id) == (None, None), "the other killmail may go now"
    stored(2)
    until, reason = shown(sync_id)
    assert isinstance(until, datetime)
    assert utcnow() < until
    assert reason == "ESI did not give 1 killmail; trying again"


def test_a_sync_that_has_ended_waits_for_nothing(user: User) -> None:
    sync_id = listed(user, [1])
    waits.note(waits.BACKGROUND, utcnow() + HOUR, "closed")
    stored(1)
    finished(sync_id)
    assert shown(sync_id) == (None, None)
