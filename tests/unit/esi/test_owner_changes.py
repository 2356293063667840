"""Many owner changes in a row are an incident; single sales among unchanged owners are not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from database import utcnow
from esi import owner_changes


@pytest.fixture(autouse=True)
def _database(any_db: object) -> None:
    """Each test has an empty database, of each kind."""


def test_five_characters_in_a_row_are_an_incident_that_is_told_once(caplog):
    for character_id in (1, 2, 3, 4, 4, 1):
        owner_changes.changed(character_id)
    assert not owner_changes.is_incident()
    assert caplog.records == []
    for character_id in (5, 5, 6, 7):
        owner_changes.changed(character_id)
    assert owner_changes.is_incident()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "restore-sold" in record.message


def test_an_owner_who_was_here_before_and_is_unchanged_ends_it():
    since = utcnow() - timedelta(seconds=1)
    for character_id in range(5):
        owner_changes.changed(character_id)
    owner_changes.unchanged(since)
    assert not owner_changes.is_incident()


def test_an_owner_who_came_since_the_first_change_says_nothing():
    """A pilot who logged in after EVE changed all owners is named as at that login, of course."""
    for character_id in range(5):
        owner_changes.changed(character_id)
    owner_changes.unchanged(utcnow())
    assert owner_changes.is_incident()


def test_without_changes_an_unchanged_owner_writes_nothing():
    owner_changes.unchanged(utcnow())
    assert not owner_changes.is_incident()
