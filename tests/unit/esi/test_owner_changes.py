"""Many owner changes in a row are an incident, whose pause only the operator ends; single sales are not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from database import execute, utcnow
from esi import owner_changes
from models import FailingOwner


@pytest.fixture(autouse=True)
def _database(any_db: object) -> None:
    """Each test has an empty database, of each kind."""


def is_paused() -> bool:
    return owner_changes.paused_since() is not None


def days_later(days: float) -> None:
    execute("UPDATE failing_owners SET failed_at = failed_at - ?", (days * 86_400.0,))


def five_change() -> None:
    for character_id in range(1, 6):
        owner_changes.changed(character_id)


def test_five_characters_in_a_row_are_an_incident_that_is_told_once(caplog):
    for character_id in (1, 2, 3, 4, 4, 1):
        owner_changes.changed(character_id)
    assert not is_paused()
    assert caplog.records == []
    before = utcnow() - timedelta(minutes=1)
    for character_id in (5, 5, 6, 7):
        owner_changes.changed(character_id)
    assert is_paused()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "`scripts/users.py resume-deletion`" in record.message
    assert f"restore-sold --all-since {before:%Y-%m-%dT%H:}" in record.message


def test_an_owner_who_was_here_before_and_is_unchanged_ends_the_row():
    since = utcnow() - timedelta(seconds=1)
    for character_id in range(4):
        owner_changes.changed(character_id)
    owner_changes.unchanged(since)
    for character_id in range(4):
        owner_changes.changed(character_id)
    assert not is_paused()


def test_an_owner_who_came_since_the_first_change_says_nothing():
    """A pilot who logged in after EVE changed all owners is named as at that login, of course; also where a character
    that had changed is seen to be changed once more."""
    for character_id in range(4):
        owner_changes.changed(character_id)
    came = utcnow()
    for character_id in range(4):
        owner_changes.changed(character_id)
    owner_changes.unchanged(came)
    owner_changes.changed(4)
    assert is_paused()


def test_a_pause_ends_neither_by_an_unchanged_owner_nor_with_time():
    here_before = utcnow() - timedelta(days=1)
    five_change()
    owner_changes.unchanged(here_before)
    assert is_paused()
    days_later(61)
    owner_changes.changed(6)
    owner_changes.unchanged(utcnow() - timedelta(days=1))
    assert is_paused()


def test_a_process_that_dies_before_it_pauses_has_paused():
    five_change()
    FailingOwner.delete().where(FailingOwner.gate == owner_changes.PAUSED).execute()
    assert is_paused()


def test_the_operator_ends_a_pause_and_later_changes_are_counted_anew():
    five_change()
    owner_changes.resume()
    assert not is_paused()
    owner_changes.changed(6)
    assert not is_paused()
    five_change()
    assert is_paused()


def test_the_operator_pauses_without_any_change():
    owner_changes.pause()
    since = owner_changes.paused_since()
    owner_changes.pause()
    assert since is not None
    assert owner_changes.paused_since() == since


def test_without_changes_an_unchanged_owner_writes_nothing():
    owner_changes.unchanged(utcnow())
    assert FailingOwner.select().count() == 0
